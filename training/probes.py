"""Does the environment answer to a change of policy as the log does? Probes: the behaviour clone, tilted a little.

For each probe two gains over the clone, on the same held-out customers: the environment's, and the off-policy estimate
of training/judge.py. The clone stands in for the logging policy on both sides, so what it gets wrong about the log is
in both. A probe is tilted as far as the log can follow: until half of its customers' weight is gone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.policy import Policy
from engine.records import HOLD, Floats, Floats32
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from training.agreement import Check, luck
from training.episodes import Episodes
from training.expected import ExpectedOutcomes
from training.intervals import Estimate
from training.journeys import Journeys
from training.judge import LEAST_CUSTOMERS, Judge
from training.sequential import cumulative_weights, pad
from training.support import LEAST_ESS, effective_sample_size
from training.tilted import Favouring, favoured

KEPT = 0.5
"""Share of the customers that the weights of whole journeys must leave as effective sample size."""
TILTS = (1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1)
"""Log-odds by which a probe favours what it is for, the strongest that the log can follow is taken."""
CHANNELS = 3
"""So many channels get a probe of their own, those that the log used most."""
FACTOR = 0.5
"""The environment's gain may be off by so large a share of the larger of the two gains: right within a factor of two,
which still tells what helps from what harms."""
RUNS = 1
MODESTY = 1.5
"""The estimate's standard errors are taken that much larger: the noise of what it has fitted is not in them. Of models
that were right, one in twenty was beyond three of its own errors on the Complete Journey data.
"""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a tilted clone gains over the clone, per journey: in the environment, and estimated from the log.

    tilt: log-odds. ess: share of the customers that whole-journey weights leave. Errors are standard errors.
    """

    name: str
    tilt: float
    ess: float
    environment: float
    environment_error: float
    estimate: float
    estimate_error: float


def probes(
    spec: Spec, model: EnsembleOutcomeModel, test: Journeys, clone: Policy, seed: int, done: Callable[[], None]
) -> list[Probe]:
    """Every probe that the log can follow; none where there are too few customers to judge by. `done` is called after
    each, and once for the clone.
    """
    if len(test.customer_ids) * KEPT < max(LEAST_ESS, LEAST_CUSTOMERS):
        return []
    judge = Judge(spec, replace(test, propensity=np.full(len(test), np.nan)), clone, seed)
    chances = clone.probabilities(test.observation, test.mask)
    base, level = judge.judge(clone).gain, _earned(spec, model, test, clone, seed)
    done()
    found = []
    for name, towards in _directions(spec, test).items():
        tilt, ess = _strongest(test, chances, towards)
        if tilt:
            policy = Favouring(clone, tilt, towards)
            gain = judge.judge(policy).gain
            found += _probe((name, tilt, ess), _earned(spec, model, test, policy, seed) - level, gain, base)
        done()
    return found


def probe_checks(found: Sequence[Probe]) -> Iterator[Check]:
    """Group `probe`."""
    for probe in found:
        error = float(np.hypot(probe.environment_error, MODESTY * probe.estimate_error))
        tolerated = FACTOR * max(abs(probe.environment), abs(probe.estimate))
        chance = luck(len(found)) * error
        limit, gap = max(tolerated, chance), probe.environment - probe.estimate
        yield Check(
            name=f"probe:{probe.name}",
            value=gap,
            threshold=f"within ± {limit:.3g}"
            + (" (a factor of two)" if tolerated >= chance else f" (luck, {luck(len(found)):.1f} s.e.)"),
            strain=abs(gap) / limit if limit > 0 else 0.0,
            short=f"{probe.name} {probe.environment:+.3g} for {probe.estimate:+.3g}",
            why=f"the clone tilted towards {probe.name} gains {probe.environment:+.3g} per journey in the environment, "
            f"{probe.estimate:+.3g} by the log; luck alone makes about ± {2 * error:.2g}",
        )


def _directions(spec: Spec, test: Journeys) -> dict[str, Floats | None]:
    """Names and directions: uniform, hold, the channels that the log used most."""
    channel = spec.catalogue.channel
    used = np.bincount(channel[test.action[test.action != HOLD]], minlength=len(spec.catalogue.channels))
    most = [c for c in np.argsort(-used, kind="stable")[:CHANNELS] if used[c] > 0]
    if len(most) == 1:  # towards the only channel is away from hold
        most = []
    found: dict[str, Floats | None] = {"uniform": None, "hold": 1.0 * (np.arange(len(spec.catalogue)) == HOLD)}
    return found | {spec.catalogue.channels[c].name: 1.0 * (channel == c) for c in most}


def _strongest(test: Journeys, chances: Floats32, towards: Floats | None) -> tuple[float, float]:
    """The strongest tilt that leaves KEPT of the customers, and what it leaves; (0, 1) when there is none."""
    taken = (np.arange(len(test)), test.action)
    for tilt in TILTS:
        after = favoured(chances, tilt, towards)[taken].astype(np.float64)
        ratio = after / np.maximum(chances[taken], 1e-6)
        weights = cumulative_weights(pad(ratio, test.customer, test.step, np.nan))
        ess = float(effective_sample_size(weights).min()) / len(weights)
        if ess >= KEPT:
            return (tilt, ess) if ratio.std() > 1e-6 else (0.0, 1.0)
    return 0.0, 1.0


def _earned(spec: Spec, model: EnsembleOutcomeModel, test: Journeys, policy: Policy, seed: int) -> Floats:
    """Returns [J] without luck in the rewards, in the mean of a few runs."""
    mean, replay = ExpectedOutcomes(model), test.replay()
    runs = [Episodes.under(policy, spec, mean, replay, seed * RUNS + run).returns(spec) for run in range(RUNS)]
    return np.asarray(np.mean(runs, axis=0), np.float64)


def _probe(what: tuple[str, float, float], gained: Floats, gain: Estimate, base: Estimate) -> list[Probe]:
    """One probe, or none when the judge refuses."""
    if gain.value is None or gain.lower is None or gain.upper is None or base.value is None:
        return []
    return [
        Probe(
            *what,
            environment=float(gained.mean()),
            environment_error=float(gained.std() / np.sqrt(len(gained))),
            estimate=gain.value - base.value,
            estimate_error=(gain.upper - gain.lower) / (2 * 1.96),
        )
    ]
