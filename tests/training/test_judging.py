"""Judged side by side, a policy gets the verdict that it gets alone."""

import pickle
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from engine.bundle import Bundle
from engine.policy import Policy
from envs.worlds import world
from tests.training.known_logs import logged
from training import judging
from training import network as networks
from training.clone import FitSettings, clone_behaviour
from training.export import export_bundle
from training.fit import fit_outcome_model
from training.judge import Judge
from training.judging import judge_all
from training.members import OutcomeSettings
from training.network import NetworkPolicy
from training.threads import WORKERS

PLACE = world("confounded")


def test_side_by_side_as_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A served bundle, a network and chance alone, with the environment's word and an error of its own for each."""
    monkeypatch.setattr("training.environment_values.DECISIONS", (2_000, 2_000))
    spec, (log, _) = PLACE.spec, logged(PLACE, 200, days=6)
    clone = clone_behaviour(spec, log, log, FitSettings(seed=1, epochs=2)).network
    model = fit_outcome_model(spec, log, log, OutcomeSettings(seed=1, members=2, hidden=8, epochs=1, most_steps=50))
    attributes = spec.attributes.encode(spec.catalogue)
    policies: dict[str, Policy] = {
        "bundle": export_bundle(clone, spec, {"name": "clone"}, tmp_path / "clone").policy,
        "network": NetworkPolicy(clone, attributes),
        "uniform": NetworkPolicy(networks.uniform(networks.Shape(spec.encoder.size, attributes.shape[1])), attributes),
    }
    errors, told = {"bundle": 0.01, "network": 0.02, "uniform": 0.3}, list[tuple[int, int]]()
    judge = Judge(spec, log, policies["network"], model=model)
    alone = judge_all(judge, policies, errors)
    monkeypatch.setenv(WORKERS, "2")
    monkeypatch.setattr(judging, "WORTH_A_PROCESS", 1)
    together = judge_all(judge, policies, errors, lambda done, total: told.append((done, total)))
    assert list(together) == list(alone) == list(policies)
    for name, found in together.items():
        assert found.bound is not None
        assert repr(asdict(found)) == repr(asdict(alone[name])), name
        assert found.bound == judge.judge(policies[name], errors[name]).bound
    assert told == sorted(told)


def test_a_served_policy_comes_back_from_a_pickle_as_it_was(tmp_path: Path) -> None:
    spec, (log, _) = PLACE.spec, logged(PLACE, 200, days=3)
    clone = clone_behaviour(spec, log, log, FitSettings(seed=1, epochs=1)).network
    bundle = export_bundle(clone, spec, {"name": "clone"}, tmp_path / "clone")
    attributes = spec.attributes.encode(spec.catalogue)
    assert bundle.policy.with_catalogue(attributes[:3])._network is bundle.policy._network
    for policy in (Bundle.load(tmp_path / "clone").policy, bundle.policy.with_catalogue(attributes[:3])):
        again = pickle.loads(pickle.dumps(policy))
        assert (again.version, again.actions) == (policy.version, policy.actions)
        mask = np.ones((5, policy.actions), np.bool_)
        seen = log.observation[:5]
        np.testing.assert_array_equal(again.probabilities(seen, mask), policy.probabilities(seen, mask))
