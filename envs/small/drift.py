"""The effects change half-way through: what the first fortnight teaches is wrong in the second."""

import numpy as np

from engine.records import DAY
from engine.spec import Spec
from envs.small.world import START, Law, SmallWorld, per_action, unmoved

CHANGE = START - 9 * 3600.0 + 14 * DAY
"""2026-03-16T00:00:00Z: half-way through the 28 days that a log has by default."""

OWN = 0.02
"""P(order) on a day without contact."""

BEFORE = {
    "hold": (0.0, 0.0),
    "email/coats": (0.08, 0.04),
    "email/shirts": (-0.01, -0.01),
    "push/coats": (0.06, 0.06),
    "push/shirts": (-0.01, -0.01),
}
"""What a contact adds to that until the change, by segment."""

AFTER = {
    "hold": (0.0, 0.0),
    "email/coats": (-0.01, -0.01),
    "email/shirts": (0.06, 0.04),
    "push/coats": (-0.01, -0.01),
    "push/shirts": (0.04, 0.06),
}
"""And from then on."""

LIKES = {
    "hold": (0.40, 0.40),
    "email/coats": (0.20, 0.10),
    "email/shirts": (0.10, 0.20),
    "push/coats": (0.20, 0.10),
    "push/shirts": (0.10, 0.20),
}
"""The logging policy, by segment."""

SPEC = """
name = "drift"
[context.segment]
type = "category"
categories = ["desk", "road"]
evolves = "static"
[events.order]
[channels.email]
cost = 0.05
[channels.push]
cost = 0.02
[[contents]]
id = "coats"
attributes = { season = "winter" }
[[contents]]
id = "shirts"
attributes = { season = "summer" }
[reward]
currency = "EUR"
[reward.events.order]
each = 20.0
"""


class Drift(SmallWorld):
    """
    ## Description
    P(order until tomorrow | segment z, action a, time t) = 0.02 + before[z, a] for t < 16 March 2026, 0:00 UTC, and
    0.02 + after[z, a] from then on. Coats sell before, shirts after, and each does a little harm at
    the wrong time. Every journey starts on the same day, so the change comes on the same day of every journey. A mean
    over the whole log mixes two truths; a policy that does not see the calendar cannot be right in both halves.

    ## Action Space
    `Discrete(5)`: hold, and two contents on two channels. Each segment has its own best channel.

    ## Observation Space
    `Box`, float32 `[d]`, as of every journey. The segment is context, the day is in the clock.

    ## Rewards
    20 EUR an order, less 0.05 for an e-mail and 0.02 for a push; discount 0.99 a day.

    ## Starting State
    A customer of either segment with probability 1/2, without a history, at 09:00 UTC.

    ## Episode End
    Truncated after the last day; never terminated.

    ## Arguments
    `customers`, `days`, `seed` and `start` of the replay; `start` may lie before or after the change;
    `gymnasium.make("nextbest/Drift-v0", days=28)`.
    """

    def __init__(self) -> None:
        spec = Spec.parse(SPEC, "drift")
        likes = per_action(spec, LIKES)
        law = Law(
            shares=np.array([0.5, 0.5]),
            segment=np.arange(2),
            chance=np.stack([OWN + per_action(spec, BEFORE), OWN + per_action(spec, AFTER)])[:, None],
            following=unmoved(*likes.shape),
            likes=likes,
            changes=(CHANGE,),
        )
        super().__init__("drift", spec, law)
