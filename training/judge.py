"""One log judges policies: support first, then several estimators side by side, then harms.

Journeys of one decision are judged by the one-step estimators (training/ope.py), longer ones by the
sequential (training/sequential.py). The first estimator of each list is the recommended one: it decides at
the gate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from engine.errors import TrainingError
from engine.policy import Policy
from engine.records import HOLD, Floats, Floats32
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from envs.outcomes import OutcomeModel
from training import ope, sequential
from training.differences import Side
from training.distribution import worst
from training.environment_values import EnvironmentValues
from training.fitted import Basis, Fitted, FittedEvaluator
from training.harms import Harm, harms_of, weeks_of
from training.intervals import Estimate, Ratios, interval, mean_of, refused, stretched
from training.journeys import Journeys
from training.judged import Judged
from training.luck import Luck
from training.marginal_weights import MarginalWeights
from training.panels import panel_of, probabilities_of, splits_of
from training.propensities import propensities_of
from training.reward_model import TreeModel
from training.segments import Segment, segments
from training.shrinkage import Chosen, tuned_doubly_robust
from training.state_weights import StateWeigher
from training.support import (
    Support,
    carrying,
    effective_sample_size,
    support_of,
    too_far,
    too_few,
    too_rare,
    unsupported_mass,
)

ONE_STEP = ("SNDR", "DRos", "DR", "SNIPS", "IPS", "DM")
SEQUENTIAL = ("marginal DR", "marginal IS", "weighted DR", "DR", "weighted PDIS", "PDIS", "FQE")

MODELS = ("DM", "FQE")
"""Estimators that are a model's answer: shown as a number, never with an interval."""

LEAST_CUSTOMERS = 20
"""Fewer customers than this judge nobody."""

TAIL = 0.1
"""The share of journeys, the worst ones, whose mean is told beside that of all."""

FOLDS = 5


@dataclass(frozen=True, slots=True)
class _Answer:
    """An estimator's ratios, the sample size they rest on, and why they must not be read. leeway: what its interval
    grows by at both ends. w: weights [N] of rewards whose luck is known. doubt: as of `Estimate`.
    """

    method: str
    ratios: Ratios | Chosen
    ess: float
    why_not: str = ""
    leeway: float = 0.0
    w: Floats | None = None
    doubt: float | None = None


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A policy's weights [N] of the logged decisions. noise: as of MarginalWeights. whole: before any were cut."""

    w: Floats
    ess: float
    removed: float
    noise: Callable[[Floats], Floats]
    whole: MarginalWeights | None = None


class Judge:
    """Judges policies on journeys that none of them has learned from.

    `behaviour`: a clone of the logging policy, whose probabilities stand in for propensities that the log
    lacks; every estimate says so. `error`: chance that `bound` is above the truth. `model`: the learned environment, in
    which the value model of longer journeys is fitted; without it, or without a clone, that is fitted to the log.
    Raises TrainingError when propensities are missing and there is no clone, or when there are fewer than
    LEAST_CUSTOMERS.
    """

    def __init__(
        self,
        spec: Spec,
        test: Journeys,
        behaviour: Policy | None,
        seed: int = 0,
        error: float = 0.025,
        model: OutcomeModel | None = None,
    ) -> None:
        self._spec, self._test, self._seed, self._error = spec, test, seed, error
        self.customers, self.decisions = len(test.customer_ids), len(test)
        if self.customers < LEAST_CUSTOMERS:
            raise TrainingError(f"found {self.customers} customers to judge by, expected at least {LEAST_CUSTOMERS}")
        self._propensity, self.estimated = propensities_of(test, behaviour)
        self._panel = panel_of(spec, test)
        self._reward, self._discount = self._pad(test.reward), self._pad(self._panel.discount)
        self._logged = mean_of((self._discount * self._reward).sum(axis=1))
        fold = np.random.default_rng(seed).permutation(self.customers) % FOLDS
        basis = Basis.of(test.observation, self._panel.attributes, test.action, spec.encoder.context_columns)
        self._fitted, self._trees = FittedEvaluator(self._panel, basis, fold), TreeModel.of(self._panel, fold)
        self._splits = splits_of(spec, test)
        traits = [s.of for s, f in zip(self._splits, spec.context.features, strict=True) if f.evolves == "static"]
        self._environment: EnvironmentValues | None = None
        self.luck: Luck | None = None
        if isinstance(model, EnsembleOutcomeModel) and behaviour is not None and not self.one_step:
            self._environment = EnvironmentValues(spec, model, test, behaviour, self._panel, basis)
            self.luck = Luck(spec, model, test, self._panel.discount)
        self._weigher = None if self.one_step else StateWeigher(self._panel, basis, traits, self._environment is None)
        self._harms = harms_of(spec, test)
        self._weeks = weeks_of(test)

    @property
    def one_step(self) -> bool:
        """Is every journey a single decision?"""
        return self._panel.longest == 1

    def logged(self) -> Estimate:
        """What the logging policy earned on these customers, with its interval."""
        low, high = interval(self._logged, self._rng())
        return Estimate(self._logged.value(), low, high, float(self.customers), "mean of the log")

    def judge(self, policy: Policy, error: float | None = None) -> Judged:
        """Everything the log says about a policy, from its probabilities at the logged decisions. error: of its
        `bound`, None = the judge's.
        """
        chances = probabilities_of(policy, self._test.observation, self._test.mask)
        return self.of(chances, self._environment.of(policy, chances) if self._environment else None, error)

    def of(self, chances: Floats32, values: Fitted | None = None, error: float | None = None) -> Judged:
        """As `judge`, of the policy with these probabilities [N, n] at the logged decisions. values: its Q̂, of a model
        that has not seen these customers; None = fitted to the log. error: as there.
        """
        ratio = ope.taken(chances, self._test.action) / self._propensity
        rho = sequential.cumulative_weights(self._pad(ratio, np.nan))
        support = support_of(self._pad(ratio, np.nan), rho, unsupported_mass(chances, self._test.action))
        fitted = self._fitted.fit(chances)
        if self._trees:
            fitted = self._trees.better(fitted, chances)
        best = values or fitted
        weighed = self._weigh(ratio, chances, best)
        answers = self._one_step(weighed, fitted) if self.one_step else self._journeys(rho, weighed, (best, fitted))
        gains = tuple(self._estimate(a, support, a.ratios.minus(self._logged), 1.0) for a in answers)
        first = answers[0]
        worths = tuple(self._estimate(a, support, a.ratios) for a in answers)
        bound, side = None, None
        parts: tuple[Segment, ...] = ()
        if gains[0].supported:
            gain = first.ratios.minus(self._logged)
            bound = self._interval(gain, first, 1.0, 1 - 2 * (error or self._error))[0]
            parts = self._segments(gain, weighed.w)
            if isinstance(first.ratios, Ratios):
                side = Side(worths[0], first.ratios, first.leeway, first.w)
        return Judged(
            support=support,
            values=worths,
            gains=gains,
            bound=bound,
            harms={name: self._harm(happened, weighed, first, support) for name, happened in self._harms.items()},
            holds=float(chances[:, HOLD].mean()),
            segments=parts,
            tail=self._tail(rho, support),
            side=side,
        )

    def _weigh(self, ratio: Floats, chances: Floats32, fitted: Fitted) -> _Weighed:
        """One decision's weight is its ratio; a longer journey's hang on its states as well."""
        if self._weigher is None:
            return _Weighed(ratio, float(effective_sample_size(ratio)), 0.0, lambda _: np.zeros(self.customers))
        found = self._weigher.fit(ratio, chances, fitted.v, partial(self._pulls, fitted))
        return _Weighed(found.w, found.left, found.removed, found.noise, found.whole())

    def _corrected(self, weights: MarginalWeights | _Weighed, fitted: Fitted) -> tuple[Ratios, Floats]:
        """Marginal DR with these weights, and their own noise."""
        r, d, w, q, v = (self._reward, self._discount, *map(self._pad, (weights.w, fitted.q, fitted.v)))
        errors = sequential.temporal_differences(r, d, q, v)
        return sequential.marginal_doubly_robust(r, d, w, q, v), weights.noise(self._flat(errors))

    def _pulls(self, fitted: Fitted, weights: MarginalWeights) -> tuple[Floats, Floats]:
        """How far each customer moves the gain, with weights that are known, and with their noise."""
        found, noise = self._corrected(weights, fitted)
        return found.minus(self._logged).influence(), found.plus(noise).minus(self._logged).influence()

    def _one_step(self, weighed: _Weighed, fitted: Fitted) -> list[_Answer]:
        r, w, q, v = self._test.reward, weighed.w, fitted.q, fitted.v
        why = too_few(weighed.ess)
        found: tuple[Ratios | Chosen, ...] = (
            ope.self_normalised_doubly_robust(r, w, q, v),
            tuned_doubly_robust(r, w, q, v),
            ope.doubly_robust(r, w, q, v),
            ope.snips(r, w),
            ope.ips(r, w),
            ope.direct_method(v),
        )
        return [
            _Answer(name, ratios, weighed.ess, "" if name in MODELS else why)
            for name, ratios in zip(ONE_STEP, found, strict=True)
        ]

    def _journeys(self, rho: Floats, weighed: _Weighed, models: tuple[Fitted, Fitted]) -> list[_Answer]:
        """`models`: the value model that is corrected, and fitted Q evaluation as such."""
        r, d, w = self._reward, self._discount, self._pad(weighed.w)
        (q, v), own = (self._pad(x) for x in (models[0].q, models[0].v)), models[1]
        whole, marginal = float(effective_sample_size(rho).min()), weighed.ess
        corrected = Ratios.plus(*self._corrected(weighed, models[0]))
        weighted = sequential.marginal_importance_sampling(r, d, w)
        told = sequential.direct_method(v).value()  # of those who were cut nobody but the model has said anything
        leeway = weighed.removed * max(abs(corrected.value() - told), abs(told - self._logged.value()))
        answers = (
            corrected,
            weighted.plus(weighed.noise(self._flat(d * r))),
            sequential.weighted_doubly_robust(r, d, rho, q, v),
            sequential.doubly_robust(r, d, rho, q, v),
            sequential.weighted_pdis(r, d, rho),
            sequential.pdis(r, d, rho),
            sequential.direct_method(self._pad(own.v)),
        )
        carried = carrying(corrected.minus(self._logged).influence())
        enough = (too_few(marginal) or too_far(weighed.removed) or too_rare(carried), too_few(whole))
        rests: list[tuple[float, str, float, Floats | None, float | None]]
        rests = [(marginal, enough[0], leeway, weighed.w, None)] * 2 + [(whole, enough[1], 0.0, None, None)] * 4
        rests.append((marginal, "", 0.0, None, own.doubt))
        return [_Answer(n, x, *rest) for n, x, rest in zip(SEQUENTIAL, answers, rests, strict=True)]

    def _estimate(self, answer: _Answer, support: Support, ratios: Ratios | Chosen, less: float = 0.0) -> Estimate:
        """One answer as an estimate of these ratios, or as a refusal. less: the weight that rewards have in what was
        taken from the answer's own ratios.
        """
        why = support.objection() or answer.why_not
        if why:
            return refused(answer.method, answer.ess, why)
        known = "estimated propensities" if self.estimated else ""
        if answer.method in MODELS:
            note = "; ".join(n for n in ("a model's answer: no interval", known) if n)
            return Estimate(ratios.value(), None, None, answer.ess, answer.method, note=note, doubt=answer.doubt)
        low, high = self._interval(ratios, answer, less)
        chosen = f"λ {ratios.parameter:.3g} by SLOPE" if isinstance(ratios, Chosen) else ""
        note = "; ".join(n for n in (chosen, known) if n)
        return Estimate(ratios.value(), low, high, answer.ess, answer.method, note=note)

    def _interval(
        self, ratios: Ratios | Chosen, answer: _Answer, less: float, level: float = 0.95
    ) -> tuple[float, float]:
        if isinstance(ratios, Chosen):
            return ratios.interval(self._rng(), level)
        low, high = stretched(ratios.value(), interval(ratios, self._rng(), level), self._stretch(ratios, answer, less))
        return low - answer.leeway, high + answer.leeway

    def _stretch(self, ratios: Ratios | Chosen, answer: _Answer, less: float) -> float:
        if self.luck is None or answer.w is None or isinstance(ratios, Chosen):
            return 1.0
        return self.luck.stretch(ratios, answer.w - less)

    def _segments(self, gain: Ratios | Chosen, weight: Floats) -> tuple[Segment, ...]:
        """A customer weighs what his decisions weigh on average."""
        decisions = np.bincount(self._test.customer)
        each = np.bincount(self._test.customer, weights=weight) / decisions
        luck = self.luck.variance(weight - 1.0) if self.luck else None
        return segments(gain.anchor if isinstance(gain, Chosen) else gain, each, self._splits, luck=luck)

    def _tail(self, rho: Floats, support: Support) -> Estimate:
        found = worst((self._discount * self._reward).sum(axis=1), rho[:, -1], TAIL, self._rng())
        why = support.objection()
        return refused(found.method, found.ess, why) if why else found

    def _harm(self, happened: Floats, weighed: _Weighed, first: _Answer, support: Support) -> Harm:
        """State-marginalised weights, none of them cut, applied to what happened, per customer and week."""
        counted, weights = mean_of(self._pad(happened).sum(axis=1) / self._weeks), weighed.whole or weighed
        noise = weights.noise(happened / self._weeks)
        found = mean_of(self._pad(weights.w * happened).sum(axis=1) / self._weeks).plus(noise)
        by = _Answer("marginal weights", found, first.ess, first.why_not)
        return Harm(counted.value(), self._estimate(by, support, found.minus(counted)))

    def _pad(self, values: Floats, fill: float = 0.0) -> Floats:
        return sequential.pad(values, self._test.customer, self._test.step, fill)

    def _flat(self, values: Floats) -> Floats:
        """[J, T] → [N]."""
        return values[self._test.customer, self._test.step]

    def _rng(self) -> np.random.Generator:
        """The same for every estimate: policies are compared on the same resamples."""
        return np.random.default_rng(self._seed)
