"""What the log says of one policy."""

from collections.abc import Mapping
from dataclasses import dataclass

from training.differences import Side
from training.harms import Harm
from training.intervals import Estimate
from training.segments import Segment
from training.support import Support


@dataclass(frozen=True, slots=True)
class Judged:
    """What the log says of one policy.

    values: the policy's own value by each method, the recommended one first. gains: the same minus the
    logging policy on the same customers. bound: lower bound of the recommended gain at its one-sided
    error; None without support. harms: "contacts", "withdrawals", "complaints", "endings", where the spec knows
    them. holds: share of decisions on which it holds. segments: gains by context, by the recommended method; none
    without support. tail: what the worst tenth of journeys is worth on average, by whole-journey weights. side: for
    paired differences to other policies (training/differences.py); None without support.
    """

    support: Support
    values: tuple[Estimate, ...]
    gains: tuple[Estimate, ...]
    bound: float | None
    harms: Mapping[str, Harm]
    holds: float
    segments: tuple[Segment, ...]
    tail: Estimate
    side: Side | None = None

    @property
    def value(self) -> Estimate:
        return self.values[0]

    @property
    def gain(self) -> Estimate:
        return self.gains[0]
