"""nextbest.toml, read and checked: what do we know, what can we do, when may we, what is it worth."""

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from engine.catalogue import Catalogue, Channel, Content, Timing
from engine.conditions import compile_predicate
from engine.contents_file import contents_text, read_contents
from engine.declarations import (
    ContentTable,
    EligibilityTable,
    SpecTable,
    seconds_of_day,
)
from engine.encoding import AttributeSchema, ContextFeature, ContextSchema, Encoder
from engine.errors import SpecError, nearest
from engine.guardrails import Eligibility, Guardrails, QuietHours, compile_guardrails
from engine.journey import Cap, Fold
from engine.layout import EventKind
from engine.records import DAY, Bools
from engine.reward import Reward
from engine.wording import worded

MANY_CONTENTS = 50
"""With more contents than this the fold keeps no memory of single contents, unless the spec asks for it."""


@dataclass(frozen=True, slots=True)
class JourneySettings:
    """[journey]: discount per day, horizon and half-lives in days, the named moments."""

    discount_per_day: float
    horizon_days: float
    half_lives_days: tuple[float, ...]
    moments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spec:
    """One use case, compiled. `text` (and `contents_text`, a CSV) is all that is needed to make it again."""

    name: str
    text: str
    contents_file: str | None
    contents_text: str | None
    kinds: tuple[EventKind, ...]
    catalogue: Catalogue
    fold: Fold
    context: ContextSchema
    encoder: Encoder
    attributes: AttributeSchema
    guardrails: Guardrails
    reward: Reward
    currency: str
    journey: JourneySettings

    @staticmethod
    def read(path: Path) -> "Spec":
        """The spec in a file. Raises SpecError that names file, table, key, what was found and what is expected."""
        try:
            text = Path(path).read_text("utf-8-sig")  # some editors begin with a byte order mark
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise SpecError(f"{path}: cannot be read: {reason}") from None
        return Spec.parse(text, file=str(path), folder=Path(path).parent)

    @staticmethod
    def parse(
        text: str,
        file: str = "nextbest.toml",
        folder: Path | None = None,
        contents_text: str | None = None,
    ) -> "Spec":
        """The spec in a text. Raises SpecError.

        `folder` is where a `contents_file` is looked for; a `contents_text` (a CSV) is taken in its place.
        """
        return _Reader(file, folder, contents_text).compile(text)

    @property
    def digest(self) -> str:
        """12 hex digits that change with the text of the spec or of its contents file."""
        return sha256(f"{self.text}\0{self.contents_text or ''}".encode()).hexdigest()[:12]


class _Reader:
    def __init__(self, file: str, folder: Path | None, contents_text: str | None) -> None:
        self._file, self._folder = file, folder
        self._contents_text = contents_text

    def compile(self, text: str) -> Spec:
        table = self._table(text)
        kinds = tuple(EventKind(name, **dict(kind)) for name, kind in table.events.items())
        catalogue = self._catalogue(table)
        context = ContextSchema(
            [
                ContextFeature(name, **{**dict(feature), "categories": tuple(feature.categories)})
                for name, feature in table.context.items()
            ]
        )
        fold = self._fold(table, kinds, catalogue)
        return Spec(
            name=table.name,
            text=text,
            contents_file=table.contents_file,
            contents_text=self._contents_text,
            kinds=kinds,
            catalogue=catalogue,
            fold=fold,
            context=context,
            encoder=Encoder(fold, context),
            attributes=AttributeSchema.of(catalogue),
            guardrails=self._guardrails(table, fold, context),
            reward=self._reward(table, fold),
            currency=table.reward.currency,
            journey=JourneySettings(
                table.journey.discount_per_day,
                table.journey.horizon_days,
                tuple(table.journey.half_lives_days),
                tuple(table.journey.moments),
            ),
        )

    def _table(self, text: str) -> SpecTable:
        try:
            return SpecTable.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise SpecError(f"{self._file}: is not TOML: {error}") from None
        except ValidationError as error:
            raise SpecError(worded(error, self._file)) from None

    def _error(self, table: str, key: str, message: str) -> SpecError:
        return SpecError(f"{self._file}: [{table}] {key}: {message}")

    def _catalogue(self, table: SpecTable) -> Catalogue:
        channels = [Channel(name, c.consent, c.cost) for name, c in table.channels.items()]
        timings = [
            Timing(name, t.delay_hours, None if t.at is None else seconds_of_day(t.at), t.days)
            for name, t in table.timings.items()
        ]
        names, times = [c.name for c in channels], [t.name for t in timings]
        contents: list[Content] = []
        listed = [*table.contents, *self._listed(table)]
        if not listed:
            raise SpecError(f"{self._file}: contents_file: found no content in it, expected at least one")
        known: set[str] = set()
        for declared in listed:
            where = f"contents {declared.id}"
            if declared.id in known:
                raise self._error("contents", "id", f"found {declared.id!r} twice, expected ids that differ")
            known.add(declared.id)
            contents.append(
                Content(
                    id=declared.id,
                    channels=self._names(where, "channels", declared.channels, names),
                    timings=self._names(where, "timings", declared.timings, times),
                    attributes=dict(declared.attributes),
                    cost=declared.cost,
                    valid_from=_epoch(declared.valid_from),
                    valid_until=_epoch(declared.valid_until),
                )
            )
        self._check_attribute_types(contents)
        return Catalogue(channels, contents, timings)

    def _listed(self, table: SpecTable) -> list[ContentTable]:
        if table.contents_file is None:
            return []
        path = (self._folder or Path()) / table.contents_file
        try:
            if self._contents_text is None:
                self._contents_text = contents_text(path)
        except (OSError, UnicodeDecodeError, ImportError) as error:
            raise SpecError(f"{self._file}: contents_file: {path} cannot be read: {error}") from None
        return read_contents(path, self._contents_text)

    def _names(self, table: str, key: str, chosen: list[str] | None, known: Sequence[str]) -> tuple[str, ...]:
        """The chosen names, all known ones when none are given; each must be known, and named once."""
        if chosen is None:
            return tuple(known)
        for name in chosen:
            if name not in known:
                raise self._error(table, key, f"found {name!r}, which is not declared{nearest(name, known)}")
        if not chosen or len(set(chosen)) != len(chosen):
            raise self._error(table, key, f"found {chosen!r}, expected at least one name, each once")
        return tuple(chosen)

    def _check_attribute_types(self, contents: Sequence[Content]) -> None:
        seen: dict[str, tuple[bool, str]] = {}
        for content in contents:
            for name, value in content.attributes.items():
                is_text = isinstance(value, str)
                before = seen.setdefault(name, (is_text, content.id))
                if before[0] != is_text:
                    other = f"a {'text' if before[0] else 'number or flag'} as in content {before[1]!r}"
                    raise self._error(
                        f"contents {content.id}", f"attributes.{name}", f"found {value!r}, expected {other}"
                    )

    def _scope(self, table: str, scope: Any, catalogue: Catalogue) -> Bools:
        """The actions that a rule is about, Bools [n]; hold never is."""
        channels = set(self._names(table, "channels", scope.channels, [c.name for c in catalogue.channels]))
        contents = set(self._names(table, "contents", scope.contents, [c.id for c in catalogue.contents]))
        timings = set(self._names(table, "timings", scope.timings, [t.name for t in catalogue.timings]))
        return np.array(
            [
                not a.is_hold and a.channel in channels and a.content in contents and a.timing in timings
                for a in catalogue.actions
            ]
        )

    def _fold(self, table: SpecTable, kinds: tuple[EventKind, ...], catalogue: Catalogue) -> Fold:
        self._no_twins("guardrails.caps", table.guardrails.caps)
        caps = [
            Cap(c.name, self._scope(f"guardrails.caps {c.name}", c, catalogue), c.limit, c.window_days * DAY)
            for c in table.guardrails.caps
        ]
        memory = table.journey.content_memory
        memory = len(catalogue.contents) <= MANY_CONTENTS if memory is None else memory
        return Fold(kinds, catalogue, sorted(table.journey.half_lives_days), caps, memory)

    def _guardrails(self, table: SpecTable, fold: Fold, context: ContextSchema) -> Guardrails:
        declared = table.guardrails
        self._no_twins("guardrails.quiet_hours", declared.quiet_hours)
        self._no_twins("guardrails.eligibility", declared.eligibility)
        quiet = [
            QuietHours(
                q.name,
                self._scope(f"guardrails.quiet_hours {q.name}", q, fold.catalogue),
                seconds_of_day(q.start),
                seconds_of_day(q.end),
            )
            for q in declared.quiet_hours
        ]
        eligibility = [self._eligibility(e, fold, context) for e in declared.eligibility]
        return compile_guardrails(fold, context, quiet, eligibility, table.journey.hold)

    def _eligibility(self, declared: EligibilityTable, fold: Fold, context: ContextSchema) -> Eligibility:
        where = f"guardrails.eligibility {declared.name}"
        fail = partial(self._error, where)
        require = tuple(compile_predicate(p, fold, context, fail) for p in declared.require)
        return Eligibility(declared.name, self._scope(where, declared, fold.catalogue), require)

    def _reward(self, table: SpecTable, fold: Fold) -> Reward:
        each, per_value = np.zeros(len(fold.kinds)), np.zeros(len(fold.kinds))
        known = [k.name for k in fold.kinds]
        for name, worth in table.reward.events.items():
            if name not in known:
                raise self._error(f"reward.events.{name}", name, f"the event is not declared{nearest(name, known)}")
            kind = fold.kind_index(name)
            if worth.per_value and fold.kinds[kind].value is None:
                raise self._error(f"reward.events.{name}", "per_value", f"[events.{name}] declares no value")
            each[kind], per_value[kind] = worth.each, worth.per_value
        return Reward(each, per_value, fold.catalogue.cost, table.journey.discount_per_day)

    def _no_twins(self, table: str, declared: Iterable[Any]) -> None:
        names = [d.name for d in declared]
        for name in names:
            if names.count(name) > 1:
                raise self._error(table, "name", f"found {name!r} twice, expected names that differ")


def _epoch(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
