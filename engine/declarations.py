"""The words of nextbest.toml as pydantic models: which keys exist, of which type, and what they default to."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    model_validator,
)

NAME, NAME_LENGTH = r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$", 100
Name = Annotated[str, StringConstraints(pattern=NAME, max_length=NAME_LENGTH)]


def _clock_time(text: str) -> str:
    hours, _, minutes = text.partition(":")
    if not (
        text.isascii()
        and hours.isdigit()
        and minutes.isdigit()
        and len(minutes) == 2
        and int(hours) < 24
        and int(minutes) < 60
    ):
        raise ValueError("a time of day such as 08:30")
    return text


def _zoned(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time with a zone such as 2026-01-01T00:00:00Z")
    return moment


def _differing(values: list[Any]) -> list[Any]:
    if len(set(values)) != len(values):
        raise ValueError("values that differ from each other")
    return values


ClockTime = Annotated[str, AfterValidator(_clock_time)]
Instant = Annotated[datetime, AfterValidator(_zoned)]
Positive = Annotated[FiniteFloat, Field(gt=0)]
Cost = Annotated[FiniteFloat, Field(ge=0)]


def seconds_of_day(text: str) -> float:
    """08:30 → 30600."""
    hours, _, minutes = text.partition(":")
    return int(hours) * 3600.0 + int(minutes) * 60.0


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class JourneyTable(_Table):
    discount_per_day: Annotated[FiniteFloat, Field(gt=0, le=1)] = 0.99
    horizon_days: Positive = 28.0
    half_lives_days: Annotated[list[Positive], Field(min_length=1, max_length=8), AfterValidator(_differing)] = [
        1.0,
        7.0,
    ]
    moments: Annotated[list[Name], AfterValidator(_differing)] = []
    content_memory: bool | None = None
    hold: bool = True


class ContextTable(_Table):
    type: Literal["number", "flag", "category"]
    evolves: Literal["static", "exogenous", "endogenous"] = "exogenous"
    categories: list[str] = []
    optional: bool = False
    minimum: FiniteFloat | None = None
    maximum: FiniteFloat | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if (self.type == "category") != bool(self.categories):
            raise ValueError("categories, for a category and for nothing else")
        if self.type != "number" and (self.minimum is not None or self.maximum is not None):
            raise ValueError("minimum and maximum only for a number")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("a minimum that is not above the maximum")
        if len(set(self.categories)) != len(self.categories):
            raise ValueError("categories that differ from each other")
        return self


class EventTable(_Table):
    value: str | None = None
    response: bool = False
    consent: Literal["granted", "withdrawn"] | None = None
    ends_journey: bool = False
    complaint: bool = False
    column: Name | None = None


class ChannelTable(_Table):
    consent: Literal["opt_in", "opt_out", "none"] = "opt_out"
    cost: Cost = 0.0


class TimingTable(_Table):
    delay_hours: Annotated[FiniteFloat, Field(ge=0)] | None = None
    at: ClockTime | None = None
    days: Annotated[int, Field(ge=0, le=60)] = 0

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.delay_hours is None) == (self.at is None):
            raise ValueError("either delay_hours or at")
        if self.at is None and self.days:
            raise ValueError("days only together with at")
        return self


class ContentTable(_Table):
    id: Name
    channels: list[str] | None = None
    timings: list[str] | None = None
    cost: Cost = 0.0
    valid_from: Instant | None = None
    valid_until: Instant | None = None
    attributes: dict[Name, FiniteFloat | bool | str] = {}

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.valid_from and self.valid_until and self.valid_from >= self.valid_until:
            raise ValueError("valid_from before valid_until")
        return self


class _Scope(_Table):
    name: Name
    channels: list[str] | None = None
    contents: list[str] | None = None
    timings: list[str] | None = None


class CapTable(_Scope):
    limit: Annotated[int, Field(ge=1, le=1000)]
    window_days: Positive


class QuietHoursTable(_Scope):
    start: ClockTime
    end: ClockTime

    @model_validator(mode="after")
    def _some_hours(self) -> Self:
        if seconds_of_day(self.start) == seconds_of_day(self.end):
            raise ValueError("an end that differs from the start")
        return self


class PredicateTable(_Table):
    event: str | None = None
    within_days: Positive | None = None
    not_within_days: Positive | None = None
    feature: str | None = None
    is_: Annotated[list[FiniteFloat | bool | str] | FiniteFloat | bool | str | None, Field(alias="is")] = None
    at_least: FiniteFloat | None = None
    at_most: FiniteFloat | None = None

    @model_validator(mode="after")
    def _about_one_thing(self) -> Self:
        about_event = self.within_days is not None or self.not_within_days is not None
        about_feature = self.is_ is not None or self.at_least is not None or self.at_most is not None
        if (self.event is None) == (self.feature is None):
            raise ValueError("either event or feature")
        if (self.event is not None) != about_event or (self.feature is not None) != about_feature:
            raise ValueError("an event with within_days or not_within_days, or a feature with is, at_least or at_most")
        return self


class EligibilityTable(_Scope):
    require: Annotated[list[PredicateTable], Field(min_length=1)]


class GuardrailsTable(_Table):
    caps: list[CapTable] = []
    quiet_hours: list[QuietHoursTable] = []
    eligibility: list[EligibilityTable] = []


class WorthTable(_Table):
    each: FiniteFloat = 0.0
    per_value: FiniteFloat = 0.0


class RewardTable(_Table):
    currency: str = ""
    events: dict[str, WorthTable]


class SpecTable(_Table):
    """The whole file."""

    name: Name
    journey: JourneyTable = JourneyTable()
    context: dict[Name, ContextTable] = {}
    events: Annotated[dict[Name, EventTable], Field(min_length=1)]
    channels: Annotated[dict[Name, ChannelTable], Field(min_length=1)]
    timings: Annotated[dict[Name, TimingTable], Field(min_length=1)] = {"now": TimingTable(delay_hours=0.0)}
    contents: list[ContentTable] = []
    contents_file: str | None = None
    guardrails: GuardrailsTable = GuardrailsTable()
    reward: RewardTable

    @model_validator(mode="after")
    def _some_contents(self) -> Self:
        if not self.contents and self.contents_file is None:
            raise ValueError("at least one of [[contents]], or contents_file")
        return self


def known_keys(path: tuple[Any, ...]) -> list[str]:
    """The keys that the table at `path` (as in a pydantic error, without its last part) may have."""
    model: Any = SpecTable
    for part in path:
        if isinstance(part, int):
            continue
        if model is None or part not in _fields(model):
            continue
        model = _table_of(_fields(model)[part].annotation)
    return list(_fields(model)) if model is not None else []


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {(f.alias or name): f for name, f in model.model_fields.items()}


def _table_of(annotation: Any) -> type[BaseModel] | None:
    """The table model inside `list[Table]`, `dict[Name, Table]` or `Table`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in reversed(getattr(annotation, "__args__", ())):
        found = _table_of(inner)
        if found is not None:
            return found
    return None
