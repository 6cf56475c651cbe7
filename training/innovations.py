"""What was luck in what the log did: actions less what was to be expected of them.

Given all that a policy sees, which action it draws is luck. So what it drew less what was to be expected goes along
with nothing that a customer is, seen or unseen, and whatever goes along with it is its effect: the idea of g-estimation
(Robins, Communications in Statistics 1994), experiments in sequence without a model of the customer. The effects that
an environment claims can be held against it, and corrected, however wrong its networks are about who is who. Where
propensities hang on what the log does not hold, or are not as `behaviour` says, it fails as all else does.
"""

from dataclasses import dataclass

import numpy as np

from engine.policy import Policy
from engine.records import DAY, HOLD, Floats, Floats32, Ints
from engine.spec import Spec
from training.journeys import Journeys
from training.panels import BLOCK
from training.sequential import pad


@dataclass(frozen=True, slots=True)
class Innovations:
    """Of N decisions. expected: float32 [N, k], the mean attributes of the action that was to be drawn. column: Ints
    [q], columns of the observation, log(1 + decayed count of contacts), a half-life each. counts: float32 [N, q];
    surprise: float32 [N, q], the same sums of contacts less their chances, over the decisions of the log before this.
    """

    expected: Floats32
    column: Ints
    counts: Floats32
    surprise: Floats32


def innovations_of(spec: Spec, journeys: Journeys, behaviour: Policy, attributes: Floats32) -> Innovations:
    """By what `behaviour` would have drawn, with attributes float32 [n, k] as the networks see them."""
    expected, contact = _to_be_expected(journeys, behaviour, attributes)
    # A forbidden action was no draw of those that were allowed.
    surprise = np.where(journeys.forbidden, 0.0, (journeys.action != HOLD) - contact)
    expected[journeys.forbidden] = attributes[journeys.action[journeys.forbidden]]
    column = spec.encoder.count_columns(np.array([spec.fold.counters.index("contact")])).ravel()
    return Innovations(
        expected=expected,
        column=column,
        counts=np.expm1(journeys.observation[:, column]),
        surprise=_faded(journeys, surprise, np.asarray(spec.fold.half_lives) / DAY),
    )


def _to_be_expected(journeys: Journeys, behaviour: Policy, attributes: Floats32) -> tuple[Floats32, Floats]:
    """Mean attributes [N, k] and P(contact) [N], in blocks: all chances at once may be a large table."""
    expected = np.empty((len(journeys), attributes.shape[1]), np.float32)
    contact = np.empty(len(journeys))
    for start in range(0, len(journeys), BLOCK):
        rows = slice(start, start + BLOCK)
        chances = behaviour.probabilities(journeys.observation[rows], journeys.mask[rows])
        expected[rows], contact[rows] = chances @ attributes, 1.0 - chances[:, HOLD]
    return expected, contact


def _faded(journeys: Journeys, each: Floats, half_lives: Floats) -> Floats32:
    """Sums [N, halves] of `each` [N] over a customer's earlier decisions, fading with these half-lives in days."""
    at = pad(journeys.decided_at / DAY, journeys.customer, journeys.step, 0.0)
    added = pad(each, journeys.customer, journeys.step, 0.0)
    sums = np.zeros((*at.shape, len(half_lives)), np.float32)
    for step in range(1, at.shape[1]):
        days = np.maximum(at[:, step] - at[:, step - 1], 0.0)[:, None]
        sums[:, step] = (sums[:, step - 1] + added[:, step - 1, None]) * np.exp2(-days / half_lives)
    return sums[journeys.customer, journeys.step]
