"""Few signals: two decisions in a thousand of the log are followed by an order."""

import numpy as np

from engine.spec import Spec
from envs.small.world import Law, SmallWorld, per_action, unmoved

OWN = 0.001
"""P(order) on a day without contact."""

LIFT = {
    "hold": (0.0, 0.0),
    "email/sale": (0.006, 0.0),
    "email/story": (0.001, 0.001),
    "push/sale": (0.001, 0.001),
    "push/story": (0.0, 0.006),
}
"""What a contact adds to that, by segment."""

LIKES = {
    "hold": (0.5, 0.5),
    "email/sale": (0.125, 0.125),
    "email/story": (0.125, 0.125),
    "push/sale": (0.125, 0.125),
    "push/story": (0.125, 0.125),
}
"""The logging policy, by segment: 0.001 + 0.125 · (0.006 + 0.001 + 0.001) = 0.002 in both."""

SPEC = """
name = "rare"
[context.segment]
type = "category"
categories = ["bargains", "stories"]
evolves = "static"
[events.order]
[channels.email]
cost = 0.05
[channels.push]
cost = 0.02
[[contents]]
id = "sale"
attributes = { discount = 0.1 }
[[contents]]
id = "story"
attributes = { discount = 0.0 }
[reward]
currency = "EUR"
[reward.events.order]
each = 100.0
"""


class Rare(SmallWorld):
    """
    ## Description
    P(order until tomorrow | segment z, action a) = 0.001 + lift[z, a], with a lift of 0.006 for the one contact that
    suits the segment and 0 or 0.001 for the others. Under the logging policy 0.2 % of the decisions are followed by
    an order, in both segments. The effect is large (seven times as many orders); what is scarce is evidence:
    a log of N decisions holds about N / 4,000 orders after each kind of contact.

    ## Action Space
    `Discrete(5)`: hold, and two contents on two channels.

    ## Observation Space
    `Box`, float32 `[d]`, as of every journey. The segment is context.

    ## Rewards
    100 EUR an order, less 0.05 for an e-mail and 0.02 for a push; discount 0.99 a day.

    ## Starting State
    A customer of either segment with probability 1/2, without a history, at 09:00 UTC.

    ## Episode End
    Truncated after the last day; never terminated.

    ## Arguments
    `customers`, `days`, `seed` and `start` of the replay; `gymnasium.make("nextbest/Rare-v0", days=28)`.
    """

    def __init__(self) -> None:
        spec = Spec.parse(SPEC, "rare")
        likes = per_action(spec, LIKES)
        law = Law(
            shares=np.array([0.5, 0.5]),
            segment=np.arange(2),
            chance=(OWN + per_action(spec, LIFT))[None, None],
            following=unmoved(*likes.shape),
            likes=likes,
        )
        super().__init__("rare", spec, law)
