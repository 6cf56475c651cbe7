"""Confidence sequences: intervals that may be looked at as often as one likes, while customers come in.

An interval at 95 % is right 95 times in 100 *once*. Who looks after every day and stops at the first good news is wrong
far more often: in the end always. These hold at all times at once, P(∃ t: truth outside) ≤ 1 − level, and are wider
for it. Values are one per customer, in the order in which customers came; a customer's rows belong together before.
"""

import numpy as np

from engine.records import Floats
from training.intervals import Ratios

MOST_BET = 0.5
"""The largest share that the empirical Bernstein bets on one value; below 1."""

GRID = 1_000
"""Means that the betting sequence tries: its ends are rounded outwards to a thousandth of the range."""

Bounds = tuple[Floats, Floats]


def bernstein_sequence(values: Floats, low: float, high: float, level: float = 0.95) -> Bounds:
    """Lower and upper bounds [J] of the mean after each of the values [J], which lie in [low, high] for certain.

    Predictable plug-in empirical Bernstein: Σ λ_i x_i / Σ λ_i ± (ln(2/α) + Σ v_i ψ(λ_i)) / Σ λ_i on values scaled to
    [0, 1], v_i = (x_i − m_{i−1})², ψ(λ) = −ln(1 − λ) − λ, λ_t = min(MOST_BET, √(2 ln(2/α) / (s²_{t−1} t ln(1 + t)))),
    α = 1 − level; Waudby-Smith & Ramdas (2023), theorem 2. Holds for any dependence that leaves the mean of each value,
    given those before it, the same. Wide when the range is (importance weights). Bounds never widen again.
    """
    x = _unit(values, low, high)
    log, time = np.log(2 / (1 - level)), np.arange(1, len(x) + 1)
    mean, variance = _running(x)
    bet = np.minimum(MOST_BET, np.sqrt(2 * log / (variance * time * np.log1p(time))))
    spent = ((x - mean) ** 2 * (-np.log1p(-bet) - bet)).cumsum()
    total = bet.cumsum()
    centre, reach = (bet * x).cumsum() / total, (log + spent) / total
    return _closing(centre - reach, centre + reach, low, high)


def betting_sequence(values: Floats, low: float, high: float, level: float = 0.95) -> Bounds:
    """Lower and upper bounds [J] as bernstein_sequence, by the hedged capital of a bettor; narrower, and slower.

    For each of GRID means m: what a bettor who starts with 1 and puts half on "x is above m" and half on "below" would
    own, max(½ Π (1 + λ⁺_i (x_i − m)), ½ Π (1 − λ⁻_i (x_i − m))); m is out once that reaches 1/α. λ as there, but cut at
    half of 1/m and of 1/(1 − m). Waudby-Smith & Ramdas (2023), theorem 3. Costs J × GRID in time, GRID in memory.
    """
    x = _unit(values, low, high)
    log, time = np.log(2 / (1 - level)), np.arange(1, len(x) + 1)
    _, variance = _running(x)
    bets = np.sqrt(2 * log / (variance * time * np.log1p(time)))
    grid = (np.arange(GRID) + 0.5) / GRID
    most_up, most_down = MOST_BET / grid, MOST_BET / (1 - grid)
    up, down = np.zeros(GRID), np.zeros(GRID)
    below, above = np.empty(len(x)), np.empty(len(x))
    left, right = 0, GRID
    for i, (value, bet) in enumerate(zip(x, bets, strict=True)):
        alive = slice(left, right)
        off = value - grid[alive]
        up[alive] += np.log1p(np.minimum(bet, most_up[alive]) * off)
        down[alive] += np.log1p(-np.minimum(bet, most_down[alive]) * off)
        kept = left + np.flatnonzero(np.maximum(up[alive], down[alive]) < log)
        if len(kept):
            left, right = int(kept[0]), int(kept[-1]) + 1
        below[i], above[i] = (left - 0.5) / GRID, (right + 0.5) / GRID  # the last means that are out
    return _closing(below, above, low, high)


def asymptotic_sequence(values: Floats, level: float = 0.95, planned: int | None = None) -> Bounds:
    """Lower and upper bounds [J] of the mean after each of the values [J], whatever their range.

    x̄_t ± s_t √(2 (t ρ² + 1) / (t² ρ²) · ln(√(t ρ² + 1) / α)), α = 1 − level: Waudby-Smith, Arbour, Sinha, Kennedy &
    Ramdas (2021). Tightest after `planned` values (default: all of them) by the choice of ρ. As a normal interval it
    holds once there are enough values for the central limit; the first 30 have no bounds (±∞).
    """
    time = np.arange(1, len(values) + 1)
    mean = values.cumsum() / time
    spread = np.sqrt(np.maximum((values**2).cumsum() / time - mean**2, 0.0))
    reach = spread * _reach(time.astype(np.float64), 1 - level, planned or len(values))
    reach[:29] = np.inf
    return mean - reach, mean + reach


def anytime(ratios: Ratios, planned: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of any estimate of this house that may be asked for again and again as customers come in.

    The asymptotic sequence with the estimate's own standard error, of J customers now and tightest at `planned`, which
    is fixed before the first look. About 1.5 times as wide as the normal interval there. (−∞, ∞) below 30 customers.
    """
    count = len(ratios)
    if count < 30:
        return -np.inf, np.inf
    spread = ratios.stderr() * np.sqrt(count)
    reach = spread * float(_reach(np.array([float(count)]), 1 - level, planned)[0])
    return ratios.value() - reach, ratios.value() + reach


def _reach(time: Floats, error: float, planned: int) -> Floats:
    """Standard deviations of one value that the asymptotic sequence is wide, on either side."""
    tight = (-2 * np.log(error) + np.log(-2 * np.log(error) + 1)) / max(planned, 1)  # ρ², their section 2.3
    grown = time * tight + 1
    return np.asarray(np.sqrt(2 * grown / (time**2 * tight) * np.log(np.sqrt(grown) / error)))


def _unit(values: Floats, low: float, high: float) -> Floats:
    """The values scaled to [0, 1]. Raises ValueError for one that is outside."""
    if not low < high or (len(values) and (values.min() < low or values.max() > high)):
        raise ValueError(f"expected values between {low} and {high}")
    return (values - low) / (high - low)


def _running(x: Floats) -> Bounds:
    """Mean and variance [J] of the values *before* each, begun with one value of ½ and a variance of ¼."""
    time = np.arange(1, len(x) + 1)
    mean = (0.5 + x.cumsum()) / (time + 1)
    variance = (0.25 + ((x - mean) ** 2).cumsum()) / (time + 1)
    return np.concatenate([[0.5], mean[:-1]]), np.concatenate([[0.25], variance[:-1]])


def _closing(below: Floats, above: Floats, low: float, high: float) -> Bounds:
    """Scaled back, and never wider than before: what was excluded once stays excluded."""
    width = high - low
    below, above = np.maximum.accumulate(np.maximum(below, 0.0)), np.minimum.accumulate(np.minimum(above, 1.0))
    return low + width * below, low + width * above
