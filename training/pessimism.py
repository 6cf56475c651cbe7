"""How much should a learner distrust the environment where its members differ? The validation customers' log answers.

MOPO (Yu et al., NeurIPS 2020) takes λ · uncertainty from every reward; its λ is set by hand. Here it is asked of
customers to whom the environment was not fitted. For each λ the clone is tilted towards what the environment, less λ
times its doubt, says is worth most, all as far from the log as PPO goes; what these policies earn at the logged
decisions is estimated from what the customers really did (doubly robust, the environment's mean as its model). Whoever
chooses by a model's own numbers picks its errors along with its insights (the winner's curse); a reward that was paid
shares none of them. The smallest λ is taken under which the choices do not earn clearly less than under the best.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.policy import Policy
from engine.records import HOLD, Floats, Floats32, Ints
from engine.spec import Spec
from envs.disagreement import member_worths
from envs.ensemble import EnsembleOutcomeModel
from envs.outcomes import Turn
from training import ope
from training.agreement import ENOUGH
from training.evidence import turns
from training.intervals import Ratios
from training.journeys import Journeys
from training.judge import LEAST_CUSTOMERS
from training.members import Progress
from training.panels import probabilities_of
from training.propensities import propensities_of
from training.tilted import tilt

STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The λ that are tried, in standard deviations of the ensemble."""
UNKNOWN = 1.0
"""λ where the validation customers cannot tell: one standard deviation, some caution without evidence for more."""
FAR = 0.2
"""KL(choices ‖ clone) in nats, the mean over decisions: as far as PPO goes (0.04 to 0.7 in four worlds). To take the
best of all actions, as no learner does that is held to the log, asks what one of a hundred looks like by luck."""
SURE = 2.33
"""Standard errors by which a smaller λ has to be worse before it is left: of six λ one is always lucky (one-sided 5 %,
Bonferroni over five comparisons)."""
SLIGHT = 0.05
"""And by more than this share of the best one's own standard error: λ that choose alike differ by rounding."""
CELLS, LEAST = 1_500_000, 4_000
"""Decisions times actions at most at which the members are asked; but so many decisions where there are."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What is gained over the log in a decision's window by choosing with this λ: what the environment promises, what
    the validation customers' log says, and its standard error (customers as clusters). In the currency.
    """

    strength: float
    promised: float
    gain: float
    error: float


@dataclass(frozen=True, slots=True)
class Pessimism:
    """strength: λ. tried: by λ, ascending; empty where the validation customers cannot tell."""

    strength: float
    tried: tuple[Tried, ...]


def pessimism(
    spec: Spec,
    model: EnsembleOutcomeModel,
    valid: Journeys,
    clone: Policy,
    seed: int,
    progress: Progress | None = None,
) -> Pessimism:
    """Choose λ for `model`, whose weights were fitted to other customers than those of `valid` (who said when to stop).

    Looks one decision ahead only, so what an action is worth later is not asked. Where the log is small its word is
    vague, and the smallest λ wins. UNKNOWN where those asked are fewer than LEAST_CUSTOMERS, or show fewer than ENOUGH
    events that the reward counts. Where the log has no propensities those of `clone` stand in.
    """
    paid = (spec.reward.each != 0) | (spec.reward.per_value != 0)
    some = _some(valid, len(spec.catalogue.actions), seed)
    if some.counts[:, paid].sum() < ENOUGH or len(some.customer_ids) < LEAST_CUSTOMERS:
        return Pessimism(UNKNOWN, ())
    worths = _worths(spec, model, some, progress)
    mean, spread = worths.mean(axis=0), worths.std(axis=0)
    log = _Log(some, mean, probabilities_of(clone, some.observation, some.mask), propensities_of(some, clone)[0])
    found = [log.gain(log.choices(mean - strength * spread)) for strength in STRENGTHS]
    tried = [Tried(s, p, g.value(), g.stderr()) for s, (p, g) in zip(STRENGTHS, found, strict=True)]
    return Pessimism(STRENGTHS[_first_close([gain for _, gain in found])], tuple(tried))


def _first_close(gains: Sequence[Ratios]) -> int:
    """The first that is not clearly worse than the best: by no more than SURE standard errors, paired."""
    best = int(np.argmax([gain.value() for gain in gains]))
    slight = SLIGHT * gains[best].stderr()
    gaps = (gains[best].minus(gain) for gain in gains[:best])
    return next((i for i, gap in enumerate(gaps) if gap.value() <= SURE * gap.stderr() + slight), best)


@dataclass(frozen=True, slots=True)
class _Log:
    """Logged decisions [N] with mean [N, n], what the environment says of each action, the clone's probabilities
    [N, n], and the propensities [N].
    """

    journeys: Journeys
    mean: Floats
    clone: Floats32
    propensity: Floats

    def choices(self, worth: Floats) -> Floats32:
        """The clone, tilted towards `worth` [N, n] until it is FAR, or as far as it can be."""
        mask, (low, high) = self.journeys.mask, (1e-4, 1e4)
        better = (worth / max(float(worth[mask].std()), 1e-9)).astype(np.float32)
        for _ in range(30):
            middle = float(np.sqrt(low * high))
            found = tilt(self.clone, better, mask, middle, 0.0)
            low, high = (middle, high) if self._distance(found) > FAR else (low, middle)
        return found

    def _distance(self, chances: Floats32) -> float:
        """KL(chances ‖ clone), the mean over decisions."""
        ratio = np.divide(chances, self.clone, out=np.ones_like(chances), where=chances > 0)
        return float((chances * np.log(ratio)).sum(axis=1).mean())

    def gain(self, chances: Floats32) -> tuple[float, Ratios]:
        """What the environment promises of these chances [N, n] beyond the log's, and what the log says of it."""
        action, reward, customer = self.journeys.action, self.journeys.reward, self.journeys.customer
        at = np.arange(len(action))
        weight = chances[at, action] / self.propensity
        expected, usual = ((p * self.mean).sum(axis=1) for p in (chances, self.clone))
        value = ope.self_normalised_doubly_robust(reward, weight, self.mean[at, action], expected, customer)
        return float((expected - usual).mean()), value.minus(ope.on_policy(reward, customer))


def _some(valid: Journeys, actions: int, seed: int) -> Journeys:
    """As many whole journeys, by chance, as CELLS allow."""
    customers = len(valid.customer_ids)
    share = min(1.0, max(CELLS / actions, LEAST) / max(len(valid), 1))
    drawn: Ints = np.sort(np.random.default_rng(seed).permutation(customers)[: max(1, int(customers * share))])
    return valid.take(drawn)


def _worths(spec: Spec, model: EnsembleOutcomeModel, journeys: Journeys, progress: Progress | None) -> Floats:
    """What each member says that each action is worth, [M, N, n]; 0 where it is not eligible."""
    logged, actions = turns(spec, journeys), len(spec.catalogue.actions)
    found = np.zeros((model.members, len(journeys), actions))
    for action in range(actions):
        rows = np.flatnonzero(journeys.mask[:, action])
        if len(rows):
            found[:, rows, action] = member_worths(model, _instead(spec, logged, rows, action))
        if progress is not None:
            progress(action + 1, actions)
    return found


def _instead(spec: Spec, logged: Turn, rows: Ints, action: int) -> Turn:
    """These decisions [R] with another action; one whose timing had passed goes out at once."""
    now, zone, chosen = logged.now[rows], logged.zone[rows], np.full(len(rows), action)
    send_at = spec.catalogue.send_at_of(chosen, now, zone)
    return Turn(
        observation=logged.observation[rows],
        context=logged.context[rows],
        action=chosen,
        last_contact=logged.last_contact[rows],
        now=now,
        send_at=np.where(np.isnan(send_at) & (chosen != HOLD), now, send_at),
        until=logged.until[rows],
        zone=zone,
    )
