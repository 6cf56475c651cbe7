"""Naive averages mislead: the log spends its vouchers on those who would have bought anyway."""

import numpy as np

from engine.spec import Spec
from envs.small.world import Law, SmallWorld, per_action, unmoved

OWN = (0.02, 0.20)
"""P(order) on a day without contact, by segment."""

SHARES = (0.7, 0.3)
"""How many customers are of each segment."""

LIFT = {
    "hold": (0.0, 0.0),
    "email/voucher": (-0.01, -0.01),
    "email/advice": (0.03, 0.03),
    "push/reminder": (0.01, 0.01),
}
"""What a contact adds to that, by segment. A voucher makes customers wait for the next one."""

LIKES = {
    "hold": (0.40, 0.10),
    "email/voucher": (0.10, 0.70),
    "email/advice": (0.40, 0.10),
    "push/reminder": (0.10, 0.10),
}
"""The logging policy, by segment."""

SPEC = """
name = "confounded"
[context.segment]
type = "category"
categories = ["cold", "warm"]
evolves = "static"
[events.order]
[channels.email]
cost = 0.05
[channels.push]
cost = 0.02
[[contents]]
id = "voucher"
channels = ["email"]
attributes = { discount = 0.1 }
[[contents]]
id = "advice"
channels = ["email"]
attributes = { discount = 0.0 }
[[contents]]
id = "reminder"
channels = ["push"]
attributes = { discount = 0.0 }
[reward]
currency = "EUR"
[reward.events.order]
each = 20.0
"""


class Confounded(SmallWorld):
    """
    ## Description
    P(order until tomorrow | segment z, action a) = own[z] + lift[a], own = 2 % (cold) and 20 % (warm), lift = −1 %
    (voucher), +3 % (advice), +1 % (reminder). Three customers in ten are warm.

    The log gives seven of ten warm customers a voucher, and one of ten cold ones. So the mean reward after a voucher
    is the highest of all actions, although a voucher is worse than hold for everybody: Simpson's paradox (Simpson,
    JRSS B 1951). The segment is in the context and the propensities are exact, so weighting by them (Horvitz and
    Thompson, JASA 1952), or comparing within segments, finds the truth.

    ## Action Space
    `Discrete(4)`: hold, voucher and advice by e-mail, reminder by push.

    ## Observation Space
    `Box`, float32 `[d]`, as of every journey. The segment is context.

    ## Rewards
    20 EUR an order, less 0.05 for an e-mail and 0.02 for a push; discount 0.99 a day.

    ## Starting State
    A customer, cold with probability 0.7, without a history, at 09:00 UTC.

    ## Episode End
    Truncated after the last day; never terminated.

    ## Arguments
    `customers`, `days`, `seed` and `start` of the replay; `gymnasium.make("nextbest/Confounded-v0", days=28)`.
    """

    def __init__(self) -> None:
        spec = Spec.parse(SPEC, "confounded")
        likes = per_action(spec, LIKES)
        law = Law(
            shares=np.array(SHARES),
            segment=np.arange(2),
            chance=(np.array(OWN)[:, None] + per_action(spec, LIFT))[None, None],
            following=unmoved(*likes.shape),
            likes=likes,
        )
        super().__init__("confounded", spec, law)
