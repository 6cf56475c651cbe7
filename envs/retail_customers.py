"""The customers of the retail world: what is hidden in them, how they are drawn, when decisions come up."""

from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from engine.clock import at_local, utc_offset, zone_id
from engine.records import DAY, Bools, EventColumns, Floats, Ints
from engine.spec import Spec
from envs import retail_numbers as numbers
from envs.draws import Draws
from envs.outcomes import Latent

WAITING = 3
"""Contacts that are decided but not yet sent, per customer."""
LATE = 6
"""Events that are certain but lie after the window, per customer."""
LAST_WINDOW = 23 * 3600.0
"""Seconds after a journey's last decision. Less than the usual day, so that a reader of the log counts all of it."""


@dataclass(slots=True)
class Shoppers:
    """The hidden variables of B customers; the fields are arrays with first axis B.

    kind: type. peak: the local hour at which they have time. affinity: [B, channels]. warmth, thrift, skin, budget:
    readiness to respond, effect of incentives, fatigue per contact, median basket (EUR). intent: know, go, do, buy.
    Decaying levels: fatigue; habit (of waiting for discounts); trust; interest (from informing contents; it ripens
    to appetite in days); appetite (to buy; it lasts); spark (an urge to buy now; it does not). seen: [B, contents],
    decayed exposures. basket: EUR. offer: what is off until offer_until, a share below 1, EUR from there on.
    trouble: 1 = something is wrong with an order. due: [B, WAITING] contacts on their way (inf = none) with their
    catalogue rows. late_*: [B, LATE] events on their way.
    """

    kind: Ints
    peak: Floats
    affinity: Floats
    warmth: Floats
    thrift: Floats
    skin: Floats
    budget: Floats
    intent: Ints
    fatigue: Floats
    habit: Floats
    trust: Floats
    interest: Floats
    appetite: Floats
    spark: Floats
    seen: Floats
    basket: Floats
    basket_at: Floats
    offer: Floats
    offer_until: Floats
    trouble: Floats
    due: Floats
    due_action: Ints
    late_at: Floats
    late_kind: Ints
    late_value: Floats
    late_channel: Ints
    late_content: Ints

    @staticmethod
    def of(latent: Latent) -> "Shoppers":
        """The same arrays under their names."""
        return Shoppers(**cast(dict[str, Any], {f.name: latent[f.name] for f in fields(Shoppers)}))

    def latent(self) -> Latent:
        return {f.name: cast(NDArray[np.generic], getattr(self, f.name)) for f in fields(self)}

    def __len__(self) -> int:
        return len(self.kind)


def draw_shoppers(spec: Spec, n: int, seed: int) -> Shoppers:
    """n customers, the same i-th one for every n."""
    draws = Draws.independent(seed, n, salt=1)
    kind = pick(numbers.SHARES, draws.uniform(1)[:, 0])
    spread = draws.normal(5)
    channels = len(spec.catalogue.channels)
    zeros = np.zeros(n)
    return Shoppers(
        kind=kind,
        peak=np.mod(numbers.PEAK[kind] + 1.3 * spread[:, 0], 24.0),
        affinity=numbers.AFFINITY[kind] + 0.35 * draws.normal(channels),
        warmth=numbers.WARMTH[kind] + 0.35 * spread[:, 1],
        thrift=numbers.THRIFT[kind] * np.exp(0.2 * spread[:, 2]),
        skin=numbers.SKIN[kind] * np.exp(0.3 * spread[:, 3]),
        budget=numbers.BUDGET[kind] * np.exp(0.25 * spread[:, 4]),
        intent=pick(numbers.START_INTENT, draws.uniform(1)[:, 0]),
        fatigue=zeros.copy(),
        habit=zeros.copy(),
        trust=zeros.copy(),
        interest=zeros.copy(),
        appetite=0.3 * draws.uniform(1)[:, 0],
        spark=zeros.copy(),
        seen=np.zeros((n, len(spec.catalogue.contents))),
        basket=zeros.copy(),
        basket_at=np.full(n, -np.inf),
        offer=zeros.copy(),
        offer_until=np.full(n, -np.inf),
        trouble=zeros.copy(),
        due=np.full((n, WAITING), np.inf),
        due_action=np.zeros((n, WAITING), np.int64),
        late_at=np.full((n, LATE), np.inf),
        late_kind=np.zeros((n, LATE), np.int64),
        late_value=np.zeros((n, LATE)),
        late_channel=np.full((n, LATE), -1),
        late_content=np.full((n, LATE), -1),
    )


@dataclass(frozen=True, slots=True)
class Calendar:
    """When decisions come up and what it is like then. zone: [J]; decided_at, until: [J, T]; context: [J, T, c]."""

    zone: Ints
    length: Ints
    decided_at: Floats
    until: Floats
    context: Floats


def draw_calendar(spec: Spec, shoppers: Shoppers, days: int, seed: int, start: float) -> Calendar:
    """About one decision a day at each customer's own hours, from a first day in the week after `start`."""
    n = len(shoppers)
    draws = Draws.independent(seed, n, salt=2)
    zone_at = pick(numbers.ZONE_SHARES, draws.uniform(1)[:, 0])
    zone = np.array([zone_id(z) for z in numbers.ZONES])[zone_at]
    first_day = np.floor(7.0 * draws.uniform(1)[:, 0])
    usual = 8.0 + 13.0 * draws.uniform(1)
    hour = np.clip(usual + 1.5 * draws.normal(days), 6.5, 22.5)
    wall = np.asarray(start + (first_day[:, None] + np.arange(days)) * DAY + np.floor(hour * 3600.0), np.float64)
    instant = at_local(np.repeat(zone, days), wall.ravel()).reshape(n, days)
    comes_up = draws.uniform(days) >= 0.08
    comes_up[:, 0] = True
    context = _context(spec, shoppers, zone_at, first_day.astype(np.int64), draws, (days, seed))
    length = comes_up.sum(axis=1)
    order = np.argsort(~comes_up, axis=1, kind="stable")
    beyond = np.arange(days) >= length[:, None]
    decided_at = np.where(beyond, np.nan, np.take_along_axis(instant, order, axis=1))
    until = np.concatenate([decided_at[:, 1:], np.full((n, 1), np.nan)], axis=1)
    last = length - 1
    until[np.arange(n), last] = decided_at[np.arange(n), last] + LAST_WINDOW
    context = np.take_along_axis(context, order[:, :, None], axis=1)
    context[beyond] = np.nan
    return Calendar(zone, length, decided_at, until, context)


def _context(
    spec: Spec, shoppers: Shoppers, place: Ints, first_day: Ints, draws: Draws, span: tuple[int, int]
) -> Floats:
    """The context of every day, [J, days, c]; the basket is added by the world. span: (days, seed)."""
    days, seed = span
    n, kind = len(shoppers), shoppers.kind
    context = np.zeros((n, days, len(spec.context)))
    column = spec.context.index
    static = draws.uniform(3)
    context[:, :, column["loyalty"]] = pick(numbers.LOYALTY[kind], static[:, 0])[:, None]
    age = np.where(static[:, 2] < 0.1, -1, pick(numbers.AGES[kind], static[:, 1]))
    context[:, :, column["age_band"]] = age[:, None]
    device = pick(np.repeat(numbers.ON_DEVICE[kind], days, axis=0), draws.uniform(days).ravel())
    context[:, :, column["device"]] = device.reshape(n, days)
    context[:, :, column["weather"]] = _weather(days + 7, seed)[place[:, None], first_day[:, None] + np.arange(days)]
    context[:, :, column["availability"]] = walk(numbers.AVAILABILITY, np.zeros(n, np.int64), draws.uniform(days))
    return context


def _weather(days: int, seed: int) -> Ints:
    """[zones, days]: the same weather for all who live in a zone."""
    places = len(numbers.ZONES)
    draws = Draws.independent(seed, places, salt=3)
    return walk(numbers.WEATHER, np.ones(places, np.int64), draws.uniform(days))


def walk(steps: Floats, start: Ints, u: Floats) -> Ints:
    """Markov chains, [n, days]: `steps` [s, s] are the chances from one day to the next, u [n, days] decides."""
    at, path = start, np.empty(u.shape, np.int64)
    for day in range(u.shape[1]):
        at = pick(steps[at], u[:, day])
        path[:, day] = at
    return path


def pick(shares: Floats, u: Floats) -> Ints:
    """The place in `shares` ([k], or [n, k] with a row each; they sum to 1) that u [n] falls into."""
    cumulated = np.cumsum(shares, axis=-1)
    return np.asarray(np.minimum((u[:, None] >= cumulated).sum(axis=1), shares.shape[-1] - 1), np.int64)


def hour_match(peak: Floats, zone: Ints, at: Floats) -> Floats:
    """How well an instant fits a customer's rhythm, in (0, 1]: 1 at their hour, 0.14 six hours away."""
    hour = np.mod(at + utc_offset(zone, at), DAY) / 3600.0
    apart = np.abs(np.mod(hour - peak + 12.0, 24.0) - 12.0)
    return np.exp(-0.5 * (apart / 3.0) ** 2)


def consents(spec: Spec, shoppers: Shoppers, seed: int, at: Floats) -> EventColumns:
    """What customers allowed or forbade at sign-up, `at` [B], as events: one per channel that is not as by default."""
    n = len(shoppers)
    given = Draws.independent(seed, n, salt=4).uniform(len(spec.catalogue.channels)) < numbers.CONSENT[shoppers.kind]
    opt_in = np.array([c.consent == "opt_in" for c in spec.catalogue.channels], bool)
    says: Bools = given == opt_in
    row, channel = np.nonzero(says)
    kind = np.where(opt_in[channel], spec.fold.kind_index("consent_granted"), spec.fold.kind_index("unsubscribe"))
    return EventColumns(row, kind, at[row], np.zeros(len(row)), channel, np.full(len(row), -1))
