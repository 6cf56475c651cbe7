"""The order comes a week after the content that caused it, so who looks at the next day praises the wrong one."""

import numpy as np

from engine.spec import Spec
from envs.small.world import Law, SmallWorld, per_action, unmoved

DELAY = 7
"""Days from a guide to the order that it causes."""

OWN = 0.02
"""P(order) on a day, by itself."""

AT_ONCE = {
    "hold": (0.0, 0.0),
    "email/flash_sale": (0.01, 0.02),
    "email/guide": (-0.01, -0.01),
    "push/guide": (-0.01, -0.01),
}
"""What a contact adds to that until the next day, by segment. Who reads a guide does not buy on that day."""

A_WEEK_LATER = {
    "hold": (0.0, 0.0),
    "email/flash_sale": (0.0, 0.0),
    "email/guide": (0.10, 0.04),
    "push/guide": (0.04, 0.08),
}
"""P(the contact causes one more order, seven days later), by segment."""

LIKES = {
    "hold": (0.55, 0.55),
    "email/flash_sale": (0.25, 0.25),
    "email/guide": (0.08, 0.12),
    "push/guide": (0.12, 0.08),
}
"""The logging policy, by segment."""

SPEC = """
name = "delayed"
[context.segment]
type = "category"
categories = ["readers", "phones"]
evolves = "static"
[events.order]
[channels.email]
cost = 0.05
[channels.push]
cost = 0.02
[[contents]]
id = "flash_sale"
channels = ["email"]
attributes = { discount = 0.2 }
[[contents]]
id = "guide"
attributes = { discount = 0.0 }
[reward]
currency = "EUR"
[reward.events.order]
each = 20.0
"""


class Delayed(SmallWorld):
    """
    ## Description
    Each decision may cause two orders,

        P(order until tomorrow | segment z, action a)                = 0.02 + at_once[z, a]
        P(order in the day that begins 7 days later | z, a)          = later[z, a]

    A flash sale adds 1 or 2 % at once; a guide takes 1 % away at once and adds 4 to 10 % a week later. So the mean
    reward until the next decision ranks guides below hold, and they are the best. In the last seven
    days of a journey their orders come too late to count, and the optimum turns to the flash sale.

    ## Action Space
    `Discrete(4)`: hold, flash sale by e-mail, guide by e-mail or push. Each segment has its own best channel.

    ## Observation Space
    `Box`, float32 `[d]`, as of every journey. The segment is context, the day is in the clock; orders that are on
    their way are hidden, and no decision changes them.

    ## Rewards
    20 EUR an order, less 0.05 for an e-mail and 0.02 for a push; discount 0.99 a day.

    ## Starting State
    A customer of either segment with probability 1/2, without a history, at 09:00 UTC.

    ## Episode End
    Truncated after the last day; never terminated.

    ## Arguments
    `customers`, `days`, `seed` and `start` of the replay; `gymnasium.make("nextbest/Delayed-v0", days=28)`.
    """

    def __init__(self) -> None:
        spec = Spec.parse(SPEC, "delayed")
        likes = per_action(spec, LIKES)
        law = Law(
            shares=np.array([0.5, 0.5]),
            segment=np.arange(2),
            chance=np.stack([OWN + per_action(spec, AT_ONCE), per_action(spec, A_WEEK_LATER)])[None],
            following=unmoved(*likes.shape),
            likes=likes,
            delays=(0, DELAY),
        )
        super().__init__("delayed", spec, law)
