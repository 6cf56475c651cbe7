"""Nothing works: no action has any effect, and every contact has a cost."""

import numpy as np

from engine.spec import Spec
from envs.small.world import Law, SmallWorld, per_action, unmoved

OWN = (0.01, 0.06)
"""P(order) on any day, by segment, whatever is done."""

LIKES = {
    "hold": (0.60, 0.20),
    "email/sale": (0.10, 0.20),
    "email/story": (0.10, 0.20),
    "push/sale": (0.10, 0.30),
    "push/story": (0.10, 0.10),
}
"""The logging policy, by segment: it writes more to those who buy more, so contacts and orders go together."""

SPEC = """
name = "null"
[context.segment]
type = "category"
categories = ["seldom", "often"]
evolves = "static"
[events.order]
[channels.email]
cost = 0.05
[channels.push]
cost = 0.02
[[contents]]
id = "sale"
cost = 0.10
attributes = { discount = 0.1 }
[[contents]]
id = "story"
attributes = { discount = 0.0 }
[reward]
currency = "EUR"
[reward.events.order]
each = 20.0
"""


class Null(SmallWorld):
    """
    ## Description
    P(order until tomorrow | segment z, action a) = own[z], the same for every a, with own = 1 % and 6 %. Hold is
    the optimum, and every contact loses exactly its cost: the world for false alarms. A gate that promotes anything
    but hold here, or claims a lift in orders, is wrong.

    ## Action Space
    `Discrete(5)`: hold, and two contents on two channels.

    ## Observation Space
    `Box`, float32 `[d]`, as of every journey. The segment is context.

    ## Rewards
    20 EUR an order, less 0.05 for an e-mail, 0.02 for a push and 0.10 for a sale; discount 0.99 a day.

    ## Starting State
    A customer of either segment with probability 1/2, without a history, at 09:00 UTC.

    ## Episode End
    Truncated after the last day; never terminated.

    ## Arguments
    `customers`, `days`, `seed` and `start` of the replay; `gymnasium.make("nextbest/Null-v0", days=28)`.
    """

    def __init__(self) -> None:
        spec = Spec.parse(SPEC, "null")
        likes = per_action(spec, LIKES)
        law = Law(
            shares=np.array([0.5, 0.5]),
            segment=np.arange(2),
            chance=np.repeat(np.array(OWN)[:, None], likes.shape[1], axis=1)[None, None],
            following=unmoved(*likes.shape),
            likes=likes,
        )
        super().__init__("null", spec, law)
