"""What estimates cost: a million rows, beside OBP's and SCOPE-RL's processor time in the same run.

Ours come with intervals, theirs are points, and both begin with the policies' probabilities. OBP is among the
development requirements; SCOPE-RL needs other versions of most things, so it is asked in an interpreter of its own:

    SCOPE_RL=/path/to/its/python make bench

with `pip install --no-deps scope-rl==0.2.1 d3rlpy==2.0.4 pytorch-revgrad`, numpy < 2, torch, gym, gymnasium,
scikit-learn, pandas and seaborn in it. Without, a plain loop over the decisions stands in for it.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np
import pytest

from engine.records import Floats, Ints
from training import ope, sequential
from training.intervals import Ratios, normal

ROWS, ACTIONS, STEPS, GAMMA, TIMES = 1_000_000, 10, 10, 0.99, 5
Answer = tuple[float, tuple[float, float]]

ASKED = """
import json, sys, warnings
from time import process_time
warnings.simplefilter("ignore")
import numpy as np
from scope_rl.ope.discrete.basic_estimators import DoublyRobust, PerDecisionImportanceSampling
a = np.load(sys.argv[1])
common = dict(step_per_trajectory=int(sys.argv[2]), action=a["action"], reward=a["r"], pscore=a["mu"],
              evaluation_policy_action_dist=a["pi"], gamma=float(sys.argv[3]))
model = dict(common, state_action_value_prediction=a["model"])
found = {}
for name, work in (("PDIS", lambda: PerDecisionImportanceSampling().estimate_policy_value(**common)),
                   ("DR", lambda: DoublyRobust().estimate_policy_value(**model))):
    spent = []
    for _ in range(int(sys.argv[4])):
        began = process_time()
        value = work()
        spent.append(process_time() - began)
    found[name] = [float(value), min(spent)]
print(json.dumps(found))
"""


def _best(work: Callable[[], object], times: int = TIMES) -> float:
    """The fastest of several runs, in seconds of the processor."""
    spent = []
    for _ in range(times):
        began = process_time()
        work()
        spent.append(process_time() - began)
    return min(spent)


def _log() -> tuple[Floats, Ints, Floats, Floats, Floats]:
    """r [N], action [N], μ of it [N], π [N, n], q̂ [N, n]."""
    rng = np.random.default_rng(0)
    mu, pi = (rng.random((ROWS, ACTIONS)) + 1.0 for _ in range(2))
    mu, pi = mu / mu.sum(axis=1, keepdims=True), pi / pi.sum(axis=1, keepdims=True)
    action = (rng.random(ROWS)[:, None] > mu.cumsum(axis=1)).sum(axis=1).clip(0, ACTIONS - 1)
    return rng.random(ROWS), action, mu[np.arange(ROWS), action], pi, rng.random((ROWS, ACTIONS))


def _asked(ratios: Ratios) -> Answer:
    return ratios.value(), normal(ratios)


def test_one_step() -> None:
    obp = pytest.importorskip("obp.ope", reason="obp is not installed (pip install --no-deps obp==0.4.1)")
    r, action, mu, pi, model = _log()
    common = {"reward": r, "action": action, "pscore": mu, "action_dist": pi[:, :, None]}
    modelled = common | {"estimated_rewards_by_reg_model": model[:, :, None]}

    def ours() -> list[Answer]:
        w, q, v = ope.taken(pi, action) / mu, ope.taken(model, action), np.einsum("na,na->n", pi, model)
        return [
            _asked(ope.ips(r, w)),
            _asked(ope.snips(r, w)),
            _asked(ope.direct_method(v)),
            _asked(ope.doubly_robust(r, w, q, v)),
            _asked(ope.self_normalised_doubly_robust(r, w, q, v)),
            _asked(ope.optimistic(r, w, q, v, 10.0)),
        ]

    def theirs() -> list[float]:
        return [
            obp.InverseProbabilityWeighting().estimate_policy_value(**common),
            obp.SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(**common),
            obp.DirectMethod().estimate_policy_value(**modelled),
            obp.DoublyRobust().estimate_policy_value(**modelled),
            obp.SelfNormalizedDoublyRobust().estimate_policy_value(**modelled),
            obp.DoublyRobustWithShrinkage(lambda_=10.0).estimate_policy_value(**modelled),
        ]

    assert [value for value, _ in ours()] == pytest.approx(theirs(), abs=1e-8, rel=0)
    print(f"\none step, {ROWS:,} rows, {ACTIONS} actions: IPS, SNIPS, DM, DR, SNDR and DRos, ours with intervals")
    _compare("six", _best(ours), _best(theirs), "OBP")


def test_sequential(tmp_path: Path) -> None:
    r, action, mu, pi, model = _log()
    customer, step = np.arange(ROWS) // STEPS, np.arange(ROWS) % STEPS
    discount = np.power(GAMMA, step.astype(np.float64))

    def arrays() -> tuple[Floats, Floats, Floats]:
        """r, d and rho, [J, T]."""
        rho = sequential.cumulative_weights(sequential.pad(ope.taken(pi, action) / mu, customer, step, np.nan))
        return sequential.pad(r, customer, step), sequential.pad(discount, customer, step), rho

    def pdis() -> Answer:
        return _asked(sequential.pdis(*arrays()))

    def doubly_robust() -> Answer:
        q, v = ope.taken(model, action), np.einsum("na,na->n", pi, model)
        return _asked(
            sequential.doubly_robust(*arrays(), sequential.pad(q, customer, step), sequential.pad(v, customer, step))
        )

    print(f"\nsequential, {ROWS:,} rows as {ROWS // STEPS:,} journeys of {STEPS}, ours with intervals")
    python = os.environ.get("SCOPE_RL")
    if python:
        np.savez(tmp_path / "log.npz", r=r, action=action, mu=mu, pi=pi, model=model)
        command = [python, "-W", "ignore", "-c", ASKED, str(tmp_path / "log.npz"), str(STEPS), str(GAMMA), str(TIMES)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        theirs = {name: (value, spent) for name, (value, spent) in json.loads(shown.splitlines()[-1]).items()}
    else:
        theirs = {
            "PDIS": (_looped(r, ope.taken(pi, action) / mu), _best(lambda: _looped(r, ope.taken(pi, action) / mu)))
        }
    for name, work in (("PDIS", pdis), ("DR", doubly_robust)):
        if name in theirs:
            assert work()[0] == pytest.approx(theirs[name][0], abs=1e-8)
            _compare(name, _best(work), theirs[name][1], "SCOPE-RL" if python else "a plain loop")


def _looped(r: Floats, ratio: Floats) -> float:
    """Per-decision importance sampling as one would write it, decision by decision."""
    rewards, ratios = r.reshape(-1, STEPS), ratio.reshape(-1, STEPS)
    total, weight = np.zeros(len(rewards)), np.ones(len(rewards))
    for t in range(STEPS):
        weight = weight * ratios[:, t]
        total = total + GAMMA**t * weight * rewards[:, t]
    return float(total.mean())


def _compare(name: str, ours: float, theirs: float, whose: str) -> None:
    print(f"  {name:5} {1000 * ours:7.0f} ms, {whose} {1000 * theirs:7.0f} ms: {ours / theirs:.3f} of its time")
