"""How much should a learner distrust the environment where its members differ? The validation customers answer.

MOPO (Yu et al., NeurIPS 2020) takes λ · uncertainty from every reward; its λ is set by hand. Here two models that have
nothing in common settle it: one learned from the training customers chooses actions, the other, learned from the
validation customers, says what they are worth. Whoever chooses by a model's own numbers picks its errors along with
its insights (the winner's curse); the second model does not share these errors. The smallest λ is taken under which
the choices are worth as much as under the best, up to a standard error.
"""

from dataclasses import dataclass, replace

import numpy as np

from engine.records import Bools, Floats, Ints
from engine.spec import Spec
from envs.disagreement import member_worths
from envs.ensemble import EnsembleOutcomeModel
from training.agreement import ENOUGH
from training.evidence import turns
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.members import OutcomeSettings, Progress

STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The λ that are tried, in standard deviations of the ensemble."""
ASKED = 4_000
"""Validation decisions at most at which choices are compared."""
UNKNOWN = 1.0
"""λ where the validation customers cannot tell: one standard deviation, some caution without evidence for more."""
OFFERED = 24
"""Eligible actions, drawn by chance, among which each choice is made."""


@dataclass(frozen=True, slots=True)
class Pessimism:
    """strength: λ. tried: each λ, what its choices promise, and what they are worth, per decision; empty where the
    validation customers cannot tell.
    """

    strength: float
    tried: tuple[tuple[float, float, float], ...]

    @property
    def optimism(self) -> float:
        """By how much choices without any pessimism promise more than they are worth, per decision."""
        _, promised, worth = self.tried[0] if self.tried else (0.0, np.nan, np.nan)
        return promised - worth


def pessimism(
    spec: Spec,
    model: EnsembleOutcomeModel,
    data: tuple[Journeys, Journeys],
    settings: OutcomeSettings,
    progress: Progress | None = None,
) -> Pessimism:
    """Choose λ for `model`, which was fitted to `data[0]`, with a second model fitted to `data[1]`.

    Looks one decision ahead only. The second model is stopped early by customers of `data[0]`, and learns from fewer
    than the first, so it is the poorer judge; only errors that both share escape it. λ is UNKNOWN where they show fewer
    than ENOUGH events that the reward counts.
    """
    train, valid = data
    paid = (spec.reward.each != 0) | (spec.reward.per_value != 0)
    if valid.counts[:, paid].sum() < ENOUGH:
        return Pessimism(UNKNOWN, ())
    judge = fit_outcome_model(spec, valid, train, replace(settings, seed=settings.seed + 1), progress)
    rows, action = offers(valid, np.random.default_rng(settings.seed))
    first, second = (_worths(spec, m, valid, rows, action) for m in (model, judge))
    mean, spread, truth = first.mean(axis=0), first.std(axis=0), second.mean(axis=0)
    choices = [(mean - strength * spread).argmax(axis=1)[:, None] for strength in STRENGTHS]
    promised, worth = (np.stack([np.take_along_axis(x, c, axis=1)[:, 0] for c in choices]) for x in (mean, truth))
    best = worth[int(worth.mean(axis=1).argmax())]
    close = [_close(best - own, valid.customer[rows]) for own in worth]
    tried = zip(STRENGTHS, promised.mean(axis=1).tolist(), worth.mean(axis=1).tolist(), strict=True)
    return Pessimism(STRENGTHS[int(np.argmax(close))], tuple(tried))


def _close(gap: Floats, customer: Ints) -> bool:
    """Is this gap [R] to the best within its standard error, customers as clusters?"""
    each = np.bincount(customer, weights=gap - gap.mean())
    return bool(gap.sum() <= np.sqrt((each**2).sum()))


def offers(journeys: Journeys, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Decisions [R] and for each OFFERED eligible actions [R, OFFERED], with repetition where there are fewer."""
    rows: Ints = rng.permutation(len(journeys))[:ASKED]
    mask: Bools = journeys.mask[rows]
    key = np.where(mask, rng.random(mask.shape), -1.0)
    order = np.argsort(-key, axis=1)[:, :OFFERED]
    several = mask.sum(axis=1)[:, None]
    return rows, np.take_along_axis(order, np.arange(order.shape[1]) % several, axis=1)


def _worths(spec: Spec, model: EnsembleOutcomeModel, journeys: Journeys, rows: Ints, action: Ints) -> Floats:
    """What each member says that each offered action is worth, [M, R, offered]."""
    asked = turns(spec, journeys)
    found = []
    for column in action.T:
        now, zone = asked.now[rows], asked.zone[rows]
        send_at = spec.catalogue.send_at_of(column, now, zone)
        turn = replace(
            asked,
            observation=asked.observation[rows],
            context=asked.context[rows],
            action=column,
            last_contact=asked.last_contact[rows],
            now=now,
            send_at=np.where(np.isnan(send_at) & (column != 0), now, send_at),
            until=asked.until[rows],
            zone=zone,
        )
        found.append(member_worths(model, turn))
    return np.stack(found, axis=2)
