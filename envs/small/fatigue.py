"""Greedy loses to patience: a contact works the better, the longer the last one is ago."""

import numpy as np

from engine.records import HOLD, Floats32, Ints
from engine.spec import Spec
from envs.small.world import Law, SmallWorld, per_action

REST = 7
"""After so many days without contact customers are as ready as they will ever be."""

OWN = 0.02
"""P(order) on a day without contact, of a rested customer."""

LIFT = {
    "hold": (0.0, 0.0),
    "email/sale": (0.09, 0.02),
    "email/story": (0.02, 0.07),
    "push/sale": (0.06, 0.02),
    "push/story": (0.02, 0.09),
}
"""What a contact adds to that, by segment."""

LIKES = {
    "hold": (0.70, 0.70),
    "email/sale": (0.08, 0.12),
    "email/story": (0.10, 0.04),
    "push/sale": (0.04, 0.10),
    "push/story": (0.08, 0.04),
}
"""The logging policy, by segment."""

SPEC = """
name = "fatigue"
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
each = 30.0
"""


class Fatigue(SmallWorld):
    """
    ## Description
    With rest r = days since the last contact, at most 7 (and 7 before the first),

        P(order until tomorrow | segment z, rest r, action a) = (0.02 + lift[z, a]) · r / 7

    So at every r the best contact brings more until tomorrow than hold does, and who looks no further writes every
    day; but then r is always 1, and the customer orders less than one who is left alone. Patience waits for r
    to grow: the world of recharging bandits (Kleinberg and Immorlica, "Recharging bandits", FOCS 2018).

    ## Action Space
    `Discrete(5)`: hold, and two contents on two channels. Each segment has its own best contact.

    ## Observation Space
    `Box`, float32 `[d]`, as of every journey. The segment is context; `since:contact@7d` tells r exactly.

    ## Rewards
    30 EUR an order, less 0.05 for an e-mail and 0.02 for a push; discount 0.99 a day.

    ## Starting State
    A customer of either segment with probability 1/2, without a history, at 09:00 UTC.

    ## Episode End
    Truncated after the last day; never terminated.

    ## Arguments
    `customers`, `days`, `seed` and `start` of the replay; `gymnasium.make("nextbest/Fatigue-v0", days=28)`.
    """

    def __init__(self) -> None:
        spec = Spec.parse(SPEC, "fatigue")
        lift, likes = per_action(spec, LIFT), per_action(spec, LIKES)
        segments, actions = lift.shape
        rest = np.tile(np.arange(1, REST + 1), segments)
        segment = np.repeat(np.arange(segments), REST)
        after = np.where(np.arange(actions) == HOLD, np.minimum(rest + 1, REST)[:, None], 1)
        law = Law(
            shares=np.where(rest == REST, 1.0 / segments, 0.0),
            segment=segment,
            chance=((OWN + lift[segment]) * rest[:, None] / REST)[None, None],
            following=segment[:, None] * REST + after - 1,
            likes=likes[segment],
        )
        super().__init__("fatigue", spec, law)
        self._contact = spec.encoder.names.index("since:contact@7d")

    def see(self, observation: Floats32) -> Ints:
        """State = segment · 7 + rest − 1. The observation holds 2^(−age / 7 days) of the last contact, 0 = none."""
        with np.errstate(divide="ignore"):
            days = -7.0 * np.log2(observation[:, self._contact].astype(np.float64))
        rest = np.clip(np.round(days), 1, REST).astype(np.int64)
        return super().see(observation) * REST + rest - 1
