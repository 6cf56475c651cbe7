"""Is the learned environment good enough to train in? Held-out customers answer.

Are the chances that it gives to each outcome right (calibration.py)? Do journeys that it makes up under the logged
actions hold what the real ones hold, over the whole journey (comparisons.py)? Are they worth as much, under the logged
actions and under the behaviour clone? Is what it expects right where a change of policy would lead (aftermath.py)? Can
a classifier tell them apart (two_sample.py)? Does it answer to such a change as the log does (probes.py)? A difference
counts beyond what is tolerated and what luck explains (agreement.py), so a small log passes easily: each check says how
much luck alone makes.

Where context is endogenous, the logging policy looked at states that made-up journeys do not have: its actions,
repeated there, would no longer fit. Then the clone, which looks at theirs, acts in all of them.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from engine.errors import TrainingError
from engine.policy import Policy
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from training.aftermath import Aftermath, aftermath_checks, aftermaths
from training.agreement import Check, Comparison, agreement, luck
from training.calibration import Calibration, calibration_checks, calibrations
from training.comparisons import SHARE, Comparisons, worth
from training.episodes import Episodes
from training.journeys import Journeys
from training.probes import Probe, probe_checks, probes
from training.two_sample import TwoSample, two_sample

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

RUNS = 4
"""How often the customers are made up again under the logged actions: their luck is then a fifth of the variance."""
CLONED = 2
"""How often under the behaviour clone."""
FOLLOWED = 40_000
"""At most so many held-out decisions are followed in the environment, those of randomly chosen customers."""
STAGES = 1 + RUNS + CLONED + 2 + 6


@dataclass(frozen=True, slots=True)
class Certificate:
    """The verdict and what it rests on.

    values: mean returns per journey, under the logged actions (not where context is endogenous) and under the behaviour
    clone. two_sample: journeys under
    the clone. probes: may be empty, when the log cannot follow any. impossible: kinds that the log never shows; the
    environment has none. customers, decisions: held out; followed: customers whose journeys were made up again.
    """

    checks: tuple[Check, ...]
    calibrations: tuple[Calibration, ...]
    comparisons: Comparisons
    values: tuple[Comparison, ...]
    aftermaths: tuple[Aftermath, ...]
    two_sample: TwoSample
    probes: tuple[Probe, ...]
    impossible: tuple[str, ...]
    customers: int
    decisions: int
    followed: int

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def value(self) -> Comparison:
        """Worth of the logged actions, or of the clone's."""
        return self.values[0]

    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)

    def worst(self, group: str) -> Check | None:
        """Of the checks of a group, the one nearest to failing or furthest beyond."""
        return max((c for c in self.checks if c.group == group), key=lambda c: c.strain, default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; a number that is not finite (an error that the log cannot tell) becomes null."""
        found: dict[str, Any] = _plain(asdict(self))
        for check, told in zip(self.checks, found["checks"], strict=True):
            told["passed"] = check.passed
        return {"passed": self.passed, **found}

    def card(self) -> dict[str, Any]:
        """What a bundle's card says of it: the verdict, and the numbers by which to read it."""
        probed = {p.name: [_digits(p.environment), _digits(p.estimate)] for p in self.probes}
        found = {
            "passed": self.passed,
            "checks": len(self.checks),
            "failed": [check.name for check in self.failures()],
            "why": [f"{c.why}; expected {c.threshold}" for c in self.failures()],
            "customers": self.customers,
            "decisions": self.decisions,
            "values": {v.what: [_digits(v.simulated), _digits(v.real)] for v in self.values},
            "two_sample_auc": _digits(self.two_sample.auc),
            "probes": probed,
            "explained": "values and probes are [environment, held out]",
        }
        plain: dict[str, Any] = _plain(found)
        return plain


def certificate(
    spec: Spec,
    model: EnsembleOutcomeModel,
    test: Journeys,
    clone: Policy,
    seed: int,
    progress: Progress | None = None,
) -> Certificate:
    """Judge a learned model by customers that it has not seen. clone: imitates the logging policy, whose choices in
    made-up histories nobody can look up. Raises TrainingError when there is no held-out decision.
    """
    if not len(test):
        raise TrainingError("test customers: found no decisions, expected some to judge the outcome model by")
    done = _Done(progress)
    calibrated = calibrations(spec, model, test)
    done.step()
    followed = _followed(test, seed)
    real, replay = Episodes.logged(followed), followed.replay()
    answers = any(feature.evolves == "endogenous" for feature in spec.context.features)
    repeats, clones = (0, RUNS) if answers else (RUNS, CLONED)
    repeated = [done.after(Episodes.repeated(spec, model, followed, clone, seed * RUNS + r)) for r in range(repeats)]
    cloned = [done.after(Episodes.under(clone, spec, model, replay, seed * clones + run)) for run in range(clones)]
    comparisons = Comparisons.of(spec, real, repeated or cloned)
    after = aftermaths(spec, model, test, clone)
    played = {"logged actions": repeated, "behaviour clone": cloned}
    values = tuple(worth(spec, what, real, runs) for what, runs in played.items() if runs)
    told_apart = two_sample(spec, real, cloned[:1], seed)
    done.step(2)
    probed = probes(spec, model, followed, clone, seed, done.step)
    done.finish()
    checks = [*calibration_checks(calibrated), *comparisons.checks()]
    for value in values:
        noun, tolerated = f"worth of a journey under the {value.what}", SHARE * value.scale
        checks.append(agreement(f"value:{value.what}", value, tolerated, luck(len(values)), noun))
    return Certificate(
        checks=(*checks, *aftermath_checks(after), told_apart.check(), *probe_checks(probed)),
        calibrations=tuple(calibrated),
        comparisons=comparisons,
        values=values,
        aftermaths=tuple(after),
        two_sample=told_apart,
        probes=tuple(probed),
        impossible=model.impossible,
        customers=len(test.customer_ids),
        decisions=len(test),
        followed=len(followed.customer_ids),
    )


def _followed(test: Journeys, seed: int) -> Journeys:
    """All customers, or as many random ones as FOLLOWED allows."""
    customers = len(test.customer_ids)
    if len(test) <= FOLLOWED:
        return test
    most = max(1, customers * FOLLOWED // len(test))
    return test.take(np.sort(np.random.default_rng(seed).permutation(customers)[:most]))


class _Done:
    """Counts the stages of a certificate."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._done = progress, 0

    def step(self, stages: int = 1) -> None:
        self._done = min(self._done + stages, STAGES)
        if self._progress is not None:
            self._progress(self._done, STAGES)

    def after(self, made: Episodes) -> Episodes:
        """What was made, counted."""
        self.step()
        return made

    def finish(self) -> None:
        self.step(STAGES)


def _digits(value: float) -> float:
    """Four significant digits: enough to read, and the card does not hang on the last bit."""
    return float(f"{value:.4g}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
