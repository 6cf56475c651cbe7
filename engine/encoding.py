"""From what is known to what a policy sees: observation, context row, attribute matrix.

These are raw features; normalising them is the policy graph's business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from engine.catalogue import AttributeColumn, Catalogue, attribute_columns, attribute_values
from engine.clock import utc_offset
from engine.errors import RequestError, Violation, nearest
from engine.journey import GRANTED, WITHDRAWN, Fold, JourneyState
from engine.records import DAY, Floats, Floats32, Ints, Value

YEAR = 365.2425 * DAY
LARGEST = float(np.finfo(np.float32).max)
"""The largest number that an observation (float32) can hold."""
_NUMBERS = (int, float, np.integer, np.floating)


@dataclass(frozen=True, slots=True)
class ContextFeature:
    """A feature that the caller sends along, or that the customers table holds.

    evolves: "static" (never changes), "exogenous" (changes by itself), "endogenous" (answers to our actions).
    optional: it may be missing; its absence is then a feature of its own. minimum, maximum: limits of a number.
    """

    name: str
    type: Literal["number", "flag", "category"] = "number"
    evolves: Literal["static", "exogenous", "endogenous"] = "exogenous"
    categories: tuple[str, ...] = ()
    optional: bool = False
    minimum: float | None = None
    maximum: float | None = None


class ContextSchema:
    """The declared context features as columns of Floats [c].

    A number is itself, NaN = missing. A flag is 0 or 1, NaN = missing. A category is its place in the
    declared list, -1 = missing.
    """

    def __init__(self, features: Sequence[ContextFeature]) -> None:
        self.features = tuple(features)
        self.index = {f.name: i for i, f in enumerate(self.features)}

    def __len__(self) -> int:
        return len(self.features)

    def row(self, context: Mapping[str, Value]) -> Floats:
        """One context as Floats [c]. Raises RequestError with a violation `context.<name>` per bad feature."""
        violations = [
            Violation(f"context.{name}", f"is not declared{nearest(name, list(self.index))}")
            for name in context
            if name not in self.index
        ]
        row = np.full(len(self.features), np.nan)
        for i, feature in enumerate(self.features):
            try:
                row[i] = _number_of(feature, context.get(feature.name))
            except ValueError as wrong:
                violations.append(Violation(f"context.{feature.name}", str(wrong)))
        if violations:
            raise RequestError(violations)
        return row

    def mapping(self, row: Floats) -> dict[str, Value]:
        """The inverse of `row`; missing features are None."""
        return {f.name: _value_of(f, float(x)) for f, x in zip(self.features, row, strict=True)}


class Encoder:
    """(JourneyState, context, clock) → observation float32 [B, d]; `names` [d] says what each column is.

    log(1 + |x|) of every decayed sum (with its sign), 2^(-time since / half-life) of every latest time, the
    share of each cap that is used, consents (1 granted, -1 withdrawn, 0 unknown), the local clock, the context.
    Always finite.
    """

    def __init__(self, fold: Fold, context: ContextSchema) -> None:
        self.fold, self.context = fold, context
        days = [f"{h / DAY:g}d" for h in fold.half_lives]
        names = [f"{c}@{h}" for c in fold.counters for h in days]
        names += [f"since:{x}@{h}" for x in fold.lasts for h in days]
        names += [f"cap:{c.name}" for c in fold.caps]
        names += [f"consent:{c.name}" for c in fold.catalogue.channels]
        names += ["clock:hour_sin", "clock:hour_cos", "clock:week_sin", "clock:week_cos", "clock:weekend"]
        names += ["clock:year_sin", "clock:year_cos"]
        names += [name for f in context.features for name in _context_names(f)]
        self.names = tuple(names)
        self._limit: Floats = np.array([c.limit for c in fold.caps], np.float64)
        self._window: Floats = np.repeat([c.window_seconds for c in fold.caps], [c.limit for c in fold.caps])
        self._of_cap: Floats = np.repeat(np.eye(len(fold.caps)), [c.limit for c in fold.caps], axis=0)

    @property
    def size(self) -> int:
        return len(self.names)

    @property
    def context_columns(self) -> Ints:
        """Which columns of an observation the context makes; the others are history and clock."""
        return np.flatnonzero([name.startswith("context:") for name in self.names])

    def count_columns(self, counters: Ints) -> Ints:
        """The columns [c, half-lives] of some of the fold's counters, the shortest half-life first."""
        halves = len(self.fold.half_lives)
        return np.asarray(counters[:, None] * halves + np.arange(halves), np.int64)

    @property
    def contact_columns(self) -> Ints:
        """Which columns tell of past contacts: their counts, the times since, the shares of caps."""
        counts = self.count_columns(np.flatnonzero(self.fold.contact.any(axis=0))).ravel()
        others = np.flatnonzero([name.startswith(("since:contact", "cap:")) for name in self.names])
        return np.concatenate([counts, others])

    def observe(self, state: JourneyState, context: Floats, now: Floats, zone: Ints) -> Floats32:
        """Observations [B, d] of B customers at `now` [B] with context [B, c] and zones [B]."""
        fold, halves = self.fold, len(self.fold.half_lives)
        sums, times = len(fold.counters) * halves, len(fold.lasts) * halves
        observation = np.empty((len(now), self.size), np.float32)
        age = np.maximum(now[:, None] - state.last, 0.0)
        # One half-life after the other, in place: on large batches memory costs more than the arithmetic.
        for h, half_life in enumerate(fold.half_lives):
            decayed = fold.decayed_by(h, state, now)
            logs = np.abs(decayed)
            observation[:, h:sums:halves] = np.copysign(np.log1p(logs, out=logs), decayed, out=logs)
            observation[:, sums + h : sums + times : halves] = np.exp2(age / -half_life)
        consent = (state.consent == GRANTED).astype(np.float64) - (state.consent == WITHDRAWN)
        parts = [self._used(state, now), consent, _clock(now, zone), *self._context(context)]
        np.concatenate(parts, axis=1, out=observation[:, sums + times :], casting="same_kind")
        return observation

    def _used(self, state: JourneyState, now: Floats) -> Floats:
        """The share of each cap that is used, [B, caps]."""
        counts = (state.slots > now[:, None] - self._window).astype(np.float64) @ self._of_cap
        return np.asarray(counts / self._limit, np.float64)

    def _context(self, context: Floats) -> list[Floats]:
        parts = []
        for i, feature in enumerate(self.context.features):
            column = context[:, i]
            if feature.type == "category":
                parts.append((column[:, None] == np.arange(len(feature.categories))).astype(np.float64))
                continue
            missing = np.isnan(column)
            parts.append(np.where(missing, 0.0, column)[:, None])
            if feature.optional:
                parts.append(missing.astype(np.float64)[:, None])
        return parts


@dataclass(frozen=True, slots=True)
class AttributeSchema:
    """The columns under which a policy knows actions: fixed when it is trained, so that later contents fit in.

    Channels, timings and contents are one-hot (contents unknown to the schema: all zero); `columns` are
    content attributes.
    """

    channels: tuple[str, ...]
    timings: tuple[str, ...]
    columns: tuple[AttributeColumn, ...]
    contents: tuple[str, ...]

    @staticmethod
    def of(catalogue: Catalogue) -> "AttributeSchema":
        return AttributeSchema(
            channels=tuple(c.name for c in catalogue.channels),
            timings=tuple(t.name for t in catalogue.timings),
            columns=attribute_columns(catalogue.contents),
            contents=tuple(c.id for c in catalogue.contents),
        )

    @property
    def names(self) -> tuple[str, ...]:
        return (
            "hold",
            *(f"channel:{c}" for c in self.channels),
            *(f"timing:{t}" for t in self.timings),
            *(f"attribute:{a}" + (f"={v}" if v is not None else "") for a, v in self.columns),
            *(f"content:{x}" for x in self.contents),
        )

    @property
    def size(self) -> int:
        return len(self.names)

    @property
    def identity(self) -> slice:
        """The columns that only name a content."""
        return slice(self.size - len(self.contents), self.size)

    def encode(self, catalogue: Catalogue) -> Floats32:
        """The catalogue's actions as float32 [n, k]; row 0 (hold) is one in its first column only."""
        groups = [
            _one_hot([c.name for c in catalogue.channels], self.channels)[catalogue.channel],
            _one_hot([t.name for t in catalogue.timings], self.timings)[catalogue.timing],
            attribute_values(catalogue.contents, self.columns)[catalogue.content]
            if catalogue.contents
            else np.zeros((len(catalogue), len(self.columns))),
            _one_hot([c.id for c in catalogue.contents], self.contents)[catalogue.content],
        ]
        table = np.concatenate([np.zeros((len(catalogue), 1)), *groups], axis=1).astype(np.float32)
        table[0] = 0.0
        table[0, 0] = 1.0
        return table

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "AttributeSchema":
        return AttributeSchema(
            channels=tuple(data["channels"]),
            timings=tuple(data["timings"]),
            columns=tuple((str(a), None if v is None else str(v)) for a, v in data["columns"]),
            contents=tuple(data["contents"]),
        )


def _one_hot(names: Sequence[str], vocabulary: Sequence[str]) -> Floats:
    """[max(names, 1), vocabulary]; a row of zeros for a name outside the vocabulary."""
    return np.array([[name == v for v in vocabulary] for name in names or [""]], np.float64).reshape(
        -1, len(vocabulary)
    )


def _clock(now: Floats, zone: Ints) -> Floats:
    local = now + utc_offset(zone, now)
    day = 2 * np.pi * local / DAY
    week = 2 * np.pi * (local / DAY - 4.0) / 7.0  # 1970-01-01 was a Thursday; weeks start on Monday
    year = 2 * np.pi * local / YEAR
    weekend = np.mod(np.floor(local / DAY) + 3, 7) >= 5
    columns = [np.sin(day), np.cos(day), np.sin(week), np.cos(week), weekend, np.sin(year), np.cos(year)]
    return np.stack(columns, axis=1)


def _context_names(feature: ContextFeature) -> list[str]:
    if feature.type == "category":
        return [f"context:{feature.name}={c}" for c in feature.categories]
    return [f"context:{feature.name}"] + ([f"context:{feature.name}:missing"] if feature.optional else [])


def _number_of(feature: ContextFeature, value: Value) -> float:
    """The column's number for one value. Raises ValueError with what was found and what is expected."""
    if value is None:
        if not feature.optional:
            raise ValueError(f"is missing, expected a {feature.type}")
        return -1.0 if feature.type == "category" else float("nan")
    if feature.type == "category":
        if value not in feature.categories:
            raise ValueError(
                f"found {value!r}, expected one of its categories{nearest(str(value), feature.categories)}"
            )
        return float(feature.categories.index(str(value)))
    if feature.type == "flag":
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"found {value!r}, expected true or false")
        return float(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, _NUMBERS) or not abs(value) <= LARGEST:
        raise ValueError(f"found {value!r}, expected a finite number")
    if (feature.minimum is not None and value < feature.minimum) or (
        feature.maximum is not None and value > feature.maximum
    ):
        raise ValueError(f"found {value!r}, expected {_limits(feature)}")
    return float(value)


def _limits(feature: ContextFeature) -> str:
    low = "" if feature.minimum is None else f"at least {feature.minimum:g}"
    high = "" if feature.maximum is None else f"at most {feature.maximum:g}"
    return " and ".join(part for part in (low, high) if part)


def _value_of(feature: ContextFeature, number: float) -> Value:
    if feature.type == "category":
        return None if number < 0 else feature.categories[int(number)]
    if np.isnan(number):
        return None
    return bool(number) if feature.type == "flag" else number
