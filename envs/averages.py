"""What a stream of the learned outcome model gives on average: the means of its laws, without drawing from them.

Learners get rewards from here (`EnsembleOutcomeModel.outcomes_and_worth`), and the means of the log are kept with it
(`training/means.py`). A mean must see the whole tail: a few quantiles miss the rare dear orders that it is made of.
What belongs to a scale or a bound is computed once, so that a mean costs a small table of elementary functions.
"""

from dataclasses import dataclass

import numpy as np

from engine.records import Floats
from envs.laws import EDGE, Scale, chance, log_odds

BENDS = 48
"""Where the line through a scale may bend: means are within 0.2 % of those of draws, heavy tails included."""
_ROWS = 1024
"""Rows at a time: their tables stay in the cache, and memory does not grow with the rows."""
_EXACT = 64
"""Numbers of events up to which a mean is an exact sum."""
_RATIO = 1.05
"""How far the numbers that are looked at beyond lie apart."""


@dataclass(frozen=True, slots=True)
class MeanValue:
    """The mean of a `Scale`'s value of a logistic score, in closed form.

    As a function of its score z a value is v₀ + Σ w·1[z ≥ at] for steps, so its mean is v₀ + Σ w·σ((m − at) / s).
    Otherwise it is taken as a line that bends, v₀ + Σ w·max(z − at, 0), so its mean is v₀ + s·Σ w·log(1 + e^((m − at)
    / s)); the bends are put where the line would else be furthest off. first: v₀. at, weight: Floats [k].
    """

    first: float
    at: Floats
    weight: Floats
    steps: bool

    @staticmethod
    def of(scale: Scale) -> "MeanValue":
        if scale.steps:
            return MeanValue(float(scale.level[0]), log_odds(scale.upto[:-1]), np.diff(scale.level), True)
        at, level = _bent(scale)
        slope = np.diff(level) / np.diff(at)
        return MeanValue(float(level[0]), at, np.diff(slope, prepend=0.0, append=0.0), False)

    def __call__(self, centre: Floats, spread: Floats) -> Floats:
        """Means [B] of scores with these centres and spreads [B]."""
        found = np.empty(len(centre))
        for start in range(0, len(centre), _ROWS):
            rows = slice(start, start + _ROWS)
            s = spread[rows]
            z = (centre[rows, None] - self.at) / s[:, None]
            found[rows] = chance(z) @ self.weight if self.steps else s * (_softplus(z) @ self.weight)
        return self.first + found


def _bent(scale: Scale) -> tuple[Floats, Floats]:
    """Scores [k] and values [k] of the line with at most BENDS bends that follows the scale best.

    One bend after the other is put where the line is furthest off; then all values but the ends are moved to where the
    squares of what is left are least, so that its errors cancel in a mean. An error counts by the log's density of its
    score to the power 3/4: scores are spread around other centres than in the log as a whole.
    """
    inside = scale.upto[1:-1]
    first, last = log_odds(np.array([0.0, 1.0]))
    known = np.concatenate([[first], log_odds(inside[(inside > EDGE) & (inside < 1 - EDGE)]), [last]])
    between = np.diff(known)[:, None] * np.arange(8) / 8
    z = np.append((known[:-1, None] + between).ravel(), last)
    value, p = scale.value(z), chance(z)
    matters = (p * (1 - p)) ** 0.75
    bends = np.array([0, len(z) - 1])
    while len(bends) < BENDS:
        off = np.abs(value - np.interp(z, z[bends], value[bends])) * matters
        if off.max() <= 0.0:
            break
        bends = np.sort(np.append(bends, off.argmax()))
    matters = matters * np.sqrt(np.gradient(z))
    hats = np.stack([np.interp(z, z[bends], hat) for hat in np.eye(len(bends))], axis=1)
    ends = hats[:, [0, -1]] @ value[[0, -1]]
    level = value[bends]
    level[1:-1] = np.linalg.lstsq(hats[:, 1:-1] * matters[:, None], (value - ends) * matters, rcond=None)[0]
    return z[bends], np.clip(level, value[0], value[-1])


def _softplus(z: Floats) -> Floats:
    """log(1 + e^z), without overflow."""
    return np.asarray(np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z))), np.float64)


@dataclass(frozen=True, slots=True)
class MeanNumber:
    """The mean of `envs.laws.number_of`: 1 + Σ_k P(N ≥ k), k = 2 … most.

    Up to 64 as it stands; beyond, P(N ≥ k) is taken as linear between numbers that lie 5 % apart, so that a window
    with a million events costs little more than one with a hundred. upto: Floats [q], log(k − ½) of the numbers k that
    are looked at, the first and the last being the bounds of all, log ½ and log(most + ½). weight: Floats [q], for how
    many numbers each stands, 0 for the bounds.
    """

    upto: Floats
    weight: Floats

    @staticmethod
    def of(most: int) -> "MeanNumber":
        exact = np.arange(2, min(most, _EXACT) + 1)
        beyond = int(np.ceil(np.log(max(most / _EXACT, 1.0)) / np.log(_RATIO)))
        far = np.unique(np.round(np.geomspace(_EXACT, max(most, _EXACT), beyond + 1)).astype(np.int64))
        weight = np.ones(len(exact) + len(far) - 1)
        # Σ over (a, b] of a line from a to b: (b − a − 1) / 2 of its start, (b − a + 1) / 2 of its end
        gap = np.diff(far)
        weight[len(exact) :] = (gap + 1) / 2
        weight[len(exact) - 1 : -1] += (gap - 1) / 2
        k = np.concatenate([[1], exact, far[1:], [most + 1]])
        return MeanNumber(np.log(k - 0.5), np.concatenate([[0.0], weight, [0.0]]))

    def __call__(self, centre: Floats, spread: Floats) -> Floats:
        """Means [B] of log-counts with these centres and spreads [B]."""
        found = np.empty(len(centre))
        for start in range(0, len(centre), _ROWS):
            rows = slice(start, start + _ROWS)
            z = (centre[rows, None] - self.upto) / spread[rows, None]
            upto = 1.0 / (1.0 + np.exp(np.minimum(z, 700.0)))  # exact where it is tiny: beyond `most` all are
            inside = np.maximum(upto[:, -1] - upto[:, 0], 1e-12 * upto[:, -1])
            found[rows] = (upto[:, -1:] - upto) @ self.weight / inside
        return 1.0 + found
