"""What customers of the retail world do by themselves: browse, fill baskets, order, need help, leave, calm down."""

import numpy as np

from engine.records import Bools, Floats, Ints
from engine.spec import Spec
from envs import retail_numbers as numbers
from envs.retail_customers import LAST_WINDOW, Shoppers, hour_match, pick
from envs.retail_happenings import Window

_MOST = 3
"""Events of one kind in a window, at most."""
_BASKET_DAYS = 4.0
_WALLET = 600.0
"""EUR, the largest basket."""


def browse(s: Shoppers, window: Window, spec: Spec) -> None:
    """Views, searches, visits and baskets: more of them with appetite, fewer with fatigue."""
    weather = window.turn.context[:, spec.context.index["weather"]].astype(np.int64)
    activity = np.exp(-0.12 * s.fatigue) * (1.0 + 0.4 * s.appetite) * numbers.WEATHER_BROWSING[weather] * window.days
    rates = numbers.BROWSING_RATES[s.kind] * numbers.INTENT_BROWSING[s.intent] * activity[:, None]
    counts = _poisson(rates, window.uniform(len(numbers.BROWSING)))
    # Per kind two times and a choice between them for each event, then its size.
    luck = window.uniform(len(numbers.BROWSING) * (3 * _MOST + 1)).reshape(*counts.shape, 3 * _MOST + 1)
    kind, nth, row = np.nonzero(counts.T[:, None] > np.arange(_MOST)[:, None])
    u = luck[row, kind]
    event = np.arange(len(row))
    times = np.stack([u[event, 2 * nth], u[event, 2 * nth + 1], u[:, 2 * _MOST]], axis=1)
    at, size = _at_leisure(s, window, row, times), u[event, 2 * _MOST + 1 + nth]
    for k, name in enumerate(numbers.BROWSING):
        mine = kind == k
        value = _value(s, name, row[mine], size[mine])
        window.add(name, row[mine], at[mine], value)
        if name == "add_to_cart":
            _fill_basket(s, row[mine], at[mine], value)


def _fill_basket(s: Shoppers, row: Ints, at: Floats, value: Floats) -> None:
    """EUR that were added to baskets; a row may add several times."""
    np.add.at(s.basket, row, value)
    np.minimum(s.basket, _WALLET, out=s.basket)
    np.maximum.at(s.basket_at, row, at)


def order(s: Shoppers, window: Window, spec: Spec, clicked_at: Floats) -> None:
    """At most one order in a window. Its chance: type, intent, basket, appetite, urge; less when tired or spoilt."""
    u = window.uniform(6)
    column = spec.context.index["availability"]
    stock = numbers.AVAILABILITY_ORDERS[window.turn.context[:, column].astype(np.int64)]
    open_basket = np.where(s.basket > 0.0, numbers.BASKET_ORDERS[s.kind], 0.0)
    base = (numbers.BASE_ORDERS[s.kind] * numbers.INTENT_ORDERS[s.intent] + open_basket) * stock
    mood = np.exp(1.0 * s.appetite - 0.4 * s.habit - 0.15 * s.fatigue + 0.15 * s.trust - 0.4 * s.trouble)
    effective_days = np.minimum(window.days, 2.0)
    chance = -np.expm1(-base * mood * (1.0 + s.spark) * effective_days)
    row = np.flatnonzero(u[:, 0] < chance)
    start = np.maximum(window.turn.now, np.minimum(clicked_at, window.turn.until))[row]
    at = window.turn.until[row] - u[row, 1] * (window.turn.until[row] - start)
    plain = s.budget[row] * np.exp(0.33 * _logit(u[row, 2]))
    value: Floats = np.where(s.basket[row] > 0.0, s.basket[row], plain).clip(8.0, _WALLET).round(2)
    window.add("order", row, at, value)
    _redeem(s, window, row, at, value)
    s.basket[row], s.spark[row] = 0.0, 0.0
    s.appetite[row] *= 0.45
    s.intent[row] = 0
    s.trouble[row] = np.where(u[row, 3] < 0.10, 1.0, s.trouble[row])


def _redeem(s: Shoppers, window: Window, row: Ints, at: Floats, value: Floats) -> None:
    """An offer that is still good is used, by those too who would have bought without it."""
    uses = at < s.offer_until[row]
    row, at, value = row[uses], at[uses], value[uses]
    off = s.offer[row]
    given: Floats = np.where(off < 1.0, off * value, np.minimum(off, value))
    window.add("redemption", row, at, given.round(2))
    s.offer_until[row] = -np.inf


def need_help(s: Shoppers, window: Window) -> None:
    """Who has trouble writes or calls, and trusts less with every day that it goes on."""
    u = window.uniform(4)
    asks = (s.trouble > 0.0) & (u[:, 0] < -np.expm1(-0.6 * window.days))
    row = np.flatnonzero(asks)
    window.add("support_contact", row, _at_leisure(s, window, row, u[row, 1:4]))
    s.trust -= 0.3 * s.trouble * window.days
    over = window.uniform(1)[:, 0] < -np.expm1(-0.12 * window.days)
    s.trouble[over] = 0.0


def leave(s: Shoppers, window: Window) -> None:
    """Fatigue and trouble drive customers away for good, within a day of a decision."""
    u = window.uniform(2)
    rate = numbers.CHURN[s.kind] * np.exp(0.65 * s.fatigue - 0.5 * s.trust + 0.9 * s.trouble)
    row = np.flatnonzero(u[:, 0] < -np.expm1(-np.minimum(rate, 0.08) * window.days))
    length = np.minimum(window.turn.until[row] - window.turn.now[row], LAST_WINDOW)
    window.add("churn", row, window.turn.now[row] + length * (1.0 - 0.1 * u[row, 1]))


def pass_time(s: Shoppers, window: Window) -> None:
    """Moods fade, baskets are forgotten, intents change: appetite makes the wish to buy more likely."""
    u = window.uniform(2)
    ripe = -s.interest * np.expm1(-window.days / numbers.RIPENING_DAYS)
    for level, days in (
        (s.fatigue, numbers.FATIGUE_DAYS),
        (s.interest, numbers.RIPENING_DAYS),
        (s.appetite, numbers.APPETITE_DAYS),
        (s.trust, numbers.TRUST_DAYS),
        (s.habit, numbers.HABIT_DAYS),
        (s.spark, numbers.SPARK_DAYS),
    ):
        level *= np.exp(-window.days / days)
    s.appetite[:] = np.minimum(s.appetite + ripe, 2.5)
    s.seen *= np.exp(-window.days / numbers.SEEN_DAYS)[:, None]
    forgotten = window.turn.until - s.basket_at > _BASKET_DAYS * 86_400.0
    s.basket[forgotten] = 0.0
    wish = np.tile(np.log(numbers.START_INTENT), (len(s), 1))
    wish[:, 3] += 0.8 * s.appetite + 0.6 * (s.basket > 0.0)
    share = np.exp(wish)
    changes = u[:, 0] < -np.expm1(-0.5 * window.days)
    s.intent[changes] = pick(share / share.sum(axis=1, keepdims=True), u[:, 1])[changes]


def _at_leisure(s: Shoppers, window: Window, row: Ints, u: Floats) -> Floats:
    """A time in (now, until] for each row: of two, the one that fits their rhythm more often. u: [m, 3]."""
    now, until, zone = window.turn.now[row], window.turn.until[row], window.turn.zone[row]
    first, second = until - u[:, 0] * (until - now), until - u[:, 1] * (until - now)
    a, b = (0.1 + hour_match(s.peak[row], zone, at) for at in (first, second))
    takes_first: Bools = u[:, 2] < a / (a + b)
    return np.where(takes_first, first, second)


def _value(s: Shoppers, name: str, row: Ints, u: Floats) -> Floats:
    """Seconds of a view, EUR of a basket; heavy-ish tails (log-logistic)."""
    if name in ("page_view", "product_view"):
        keen = 1.0 + 0.5 * (s.intent[row] == 3) + 0.4 * s.appetite[row]
        seconds: Floats = numbers.DWELL[s.kind[row]] * keen * np.exp(0.5 * _logit(u))
        return seconds.clip(1.0, 1800.0).round(1)
    if name == "add_to_cart":
        worth: Floats = s.budget[row] * np.exp(0.33 * _logit(u))
        return worth.clip(4.0, _WALLET).round(2)
    return np.zeros(len(row))


def _poisson(rate: Floats, u: Floats) -> Ints:
    """Poisson counts by inversion, at most _MOST. rate, u: the same shape."""
    term = np.exp(-rate)
    cumulated, count = term.copy(), np.zeros(rate.shape, np.int64)
    for k in range(1, _MOST + 1):
        count += u >= cumulated
        term = term * rate / k
        cumulated += term
    return count


def _logit(u: Floats) -> Floats:
    return np.log(np.maximum(u, 1e-12) / (1.0 - u))
