"""What an evaluation found, as data: for the gate, for reports, and as JSON in between."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.errors import TrainingError
from training.blend import bolder
from training.differences import Difference, beats
from training.harms import CONTACTS, MOST_CONTACTS, Harm, limited
from training.intervals import Estimate
from training.segments import Segment

EVALUATION = "evaluation/evaluation.json"
"""Artifact of the parent run: all that was found, for the gate."""

ERROR = 0.05
"""Chance that the gate lets any policy through that is no better than the log, shared by all candidates
(training/favourite.py).
"""


@dataclass(frozen=True, slots=True)
class Terms:
    """What whoever evaluates may ask for. look: see `error_of`. contacts: how many times the log's contacts a candidate
    may make, by the estimate. Raises TrainingError for a number that is no limit.
    """

    look: int | None = None
    contacts: float = MOST_CONTACTS

    def __post_init__(self) -> None:
        if not 0.0 < self.contacts < float("inf"):
            raise TrainingError(f"contacts: found {self.contacts}, expected a number above 0, such as 2")


def error_of(look: int | None) -> float:
    """The k-th look's share of ERROR: ERROR / (k (k + 1)); None = there is only one.

    These add up to ERROR over all looks that there may ever be. A union bound, so it holds whatever was learned or
    promoted in between, and however the looks' customers overlap. Raises ValueError for a look before the first.
    """
    if look is None:
        return ERROR
    if look < 1:
        raise ValueError(f"look: found {look}, expected 1 for the first, 2 for the second and so on")
    return ERROR / (look * (look + 1))


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known to be true of a policy: its value and its gain over the logging policy, each with
    standard error.
    """

    value: float
    value_error: float
    gain: float | None = None
    gain_error: float | None = None


CHAMPION = "champion"
"""How the champion is called in the differences to it."""


@dataclass(frozen=True, slots=True)
class Reigning:
    """Who was champion at the time of the evaluation. model: NAME/VERSION in the registry. policy: its version. gain:
    over the log, on the same customers; refused where the log or another spec does not let it be judged.
    """

    model: str
    policy: str
    gain: Estimate


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that is known of one candidate; see Judged. environment: its value in the learned environment,
    never with an interval. over: what it earns more than each constant (training/alike.py), and than the champion; none
    where the log does not support both.
    """

    candidate: str
    version: str
    support: Mapping[str, float]
    values: tuple[Estimate, ...]
    gains: tuple[Estimate, ...]
    bound: float | None
    harms: Mapping[str, Harm]
    holds: float
    environment: Estimate | None = None
    truth: Truth | None = None
    segments: tuple[Segment, ...] = ()
    tail: Estimate | None = None
    over: tuple[Difference, ...] = ()

    @property
    def over_alike(self) -> tuple[Difference, ...]:
        """What it earns more than each constant."""
        return tuple(d for d in self.over if d.other != CHAMPION)

    @property
    def value(self) -> Estimate:
        """By the recommended estimator."""
        return self.values[0]

    @property
    def gain(self) -> Estimate:
        """Over the logging policy, by the recommended estimator, on the same customers."""
        return self.gains[0]


@dataclass(frozen=True, slots=True)
class Report:
    """Candidates side by side. logged: what the logging policy earned on the same customers. error: see
    ERROR; `bound` of each evaluation holds its share of it. estimated: propensities were estimated. held_out: no
    candidate has learned from these customers, for all that is known. champion: None where there was none. alike: the
    gain over the log of each constant that candidates are compared with (training/alike.py). excused: those of them
    that nobody has to beat, since they do harm, or do not themselves earn more than the log for certain. look: which
    of several, see `error_of`; None = the only one. earlier: evaluations of this experiment's other trainings that it
    does not know of. favourite: the candidate that has half of the error; None = all have the same. choosing: who has
    half of the error of the statement that choosing for each customer earns more than any action for everybody. ends:
    from how many ends those on the way to PPO may be asked, each with its part of their error (training/blend.py); 1 in
    evaluations of earlier versions.
    """

    currency: str
    customers: int
    decisions: int
    logged: Estimate
    evaluations: tuple[Evaluation, ...]
    estimated: bool
    error: float = ERROR
    held_out: bool = True
    champion: Reigning | None = None
    alike: Mapping[str, Estimate] = field(default_factory=dict)
    excused: tuple[str, ...] = ()
    look: int | None = None
    earlier: int = 0
    favourite: str | None = None
    ends: int = 1
    choosing: str | None = None

    def personalises(self, candidate: str, excused: Collection[str] = ()) -> bool:
        """Does it earn more than each action for everybody, but for the `excused`, for certain? On the way to PPO it
        and all who go further do (training/blend.py), and one of these without support shows nothing. False where there
        is nobody to compare with.
        """
        compared = {e.candidate: [d for d in e.over_alike if d.other not in excused] for e in self.evaluations}
        return all(beats(compared[name]) for name in (*bolder(candidate, compared), candidate))

    def chooses_well(self, candidate: str) -> bool:
        """Is it shown that choosing for each customer adds something: over all actions for everybody, or all that
        nobody excuses?
        """
        return self.personalises(candidate) or self.personalises(candidate, self.excused)

    @property
    def who(self) -> str:
        """Whom it rests on, in words."""
        kind = "held-out customers" if self.held_out else "customers (among them perhaps some that were learned from)"
        return f"{self.customers:,} {kind}, {self.decisions:,} decisions"

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> "Report":
        """Raises TrainingError for a text that `to_json` did not write."""
        try:
            found: dict[str, Any] = json.loads(text)
            evaluations = tuple(_evaluation(e) for e in found.pop("evaluations"))
            champion, logged = found.pop("champion", None), Estimate(**found.pop("logged"))
            reigning = Reigning(**champion | {"gain": Estimate(**champion["gain"])}) if champion else None
            alike = {name: Estimate(**gain) for name, gain in found.pop("alike", {}).items()}
            known: dict[str, Any] = {"champion": reigning, "alike": alike, "excused": tuple(found.pop("excused", ()))}
            return Report(logged=logged, evaluations=evaluations, **known, **found)
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{EVALUATION}: cannot be read ({error}); run `nextbest evaluate` again") from None


def _evaluation(found: dict[str, Any]) -> Evaluation:
    """From JSON."""
    values, gains = (tuple(Estimate(**e) for e in found.pop(name)) for name in ("values", "gains"))
    raw = found.pop("harms")
    # An evaluation of an earlier version says nothing of limits.
    harms = {name: Harm(**h | {"excess": Estimate(**h["excess"])}) for name, h in raw.items()}
    if CONTACTS in harms and "allowed" not in raw[CONTACTS]:
        harms = limited(harms, MOST_CONTACTS)
    environment, truth, tail = found.pop("environment"), found.pop("truth"), found.pop("tail", None)
    over = tuple(Difference(**d | {"gain": Estimate(**d["gain"])}) for d in found.pop("over", ()))
    parts = tuple(Segment(**part | {"gain": Estimate(**part["gain"])}) for part in found.pop("segments", ()))
    return Evaluation(
        harms=harms,
        environment=Estimate(**environment) if environment else None,
        truth=Truth(**truth) if truth else None,
        values=values,
        gains=gains,
        segments=parts,
        tail=Estimate(**tail) if tail else None,
        over=over,
        **found,
    )
