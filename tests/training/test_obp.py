"""Each one-step estimator is OBP's, to 1e-8: on made-up logs and on the Open Bandit sample that comes with it."""

from pathlib import Path

import numpy as np
import pytest

from engine.records import Floats, Ints
from engine.spec import Spec
from examples.open_bandit.convert import CAMPAIGNS, convert
from examples.open_bandit.estimate import DIRECTIONS, shares
from tests.training.test_ope import one_step_log
from training import ope
from training.journeys import Journeys
from training.logs import read_log

obp = pytest.importorskip("obp.ope", reason="obp is not installed (pip install --no-deps obp==0.4.1)")


def theirs(r: Floats, action: Ints, mu: Floats, pi: Floats, model: Floats) -> dict[str, float]:
    """By OBP. mu [N] of the logged action; pi and model [N, n]."""
    common = {"reward": r, "action": action, "pscore": mu, "action_dist": pi[:, :, None]}
    modelled = common | {"estimated_rewards_by_reg_model": model[:, :, None]}
    plain = {
        "IPS": obp.InverseProbabilityWeighting(),
        "SNIPS": obp.SelfNormalizedInverseProbabilityWeighting(),
    }
    leaning = {
        "DM": obp.DirectMethod(),
        "DR": obp.DoublyRobust(),
        "SNDR": obp.SelfNormalizedDoublyRobust(),
        "Switch-DR": obp.SwitchDoublyRobust(tau=1.5),
        "DRos": obp.DoublyRobustWithShrinkage(lambda_=20.0),
    }
    found = {name: e.estimate_policy_value(**common) for name, e in plain.items()}
    return found | {name: e.estimate_policy_value(**modelled) for name, e in leaning.items()}


def ours(r: Floats, action: Ints, mu: Floats, pi: Floats, model: Floats) -> dict[str, float]:
    at = np.arange(len(r))
    w, q, v = pi[at, action] / mu, model[at, action], (pi * model).sum(axis=1)
    found = {
        "IPS": ope.ips(r, w),
        "SNIPS": ope.snips(r, w),
        "DM": ope.direct_method(v),
        "DR": ope.doubly_robust(r, w, q, v),
        "SNDR": ope.self_normalised_doubly_robust(r, w, q, v),
        "Switch-DR": ope.switch(r, w, q, v, 1.5),
        "DRos": ope.optimistic(r, w, q, v, 20.0),
    }
    return {name: ratios.value() for name, ratios in found.items()}


def test_on_a_made_up_log() -> None:
    log, action, pi, mu, model = one_step_log(500, seed=4)
    arrays = (log["r"], action, mu[np.arange(500), action], pi, model)
    assert ours(*arrays) == pytest.approx(theirs(*arrays), abs=1e-8, rel=0)


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_on_the_open_bandit_sample(campaign: str, tmp_path: Path) -> None:
    folders = convert(tmp_path)
    spec = Spec.read(folders[campaign, "random"] / "nextbest.toml")
    logs = {p: Journeys.of(spec, read_log(spec, folders[campaign, p])) for p, _ in DIRECTIONS}
    for log, policy in DIRECTIONS:
        judged = logs[log]
        chances = shares(spec, logs[policy], policy == "random").probabilities(judged.observation, judged.mask)
        pi = chances.astype(np.float64)
        pi /= pi.sum(axis=1, keepdims=True)
        arrays = (judged.reward, judged.action, judged.propensity, pi, item_rates(judged, len(spec.catalogue)))
        assert ours(*arrays) == pytest.approx(theirs(*arrays), abs=1e-8, rel=0), (log, policy)


def item_rates(log: Journeys, actions: int) -> Floats:
    """A reward model [N, n], cross-fitted in two halves: each item's click rate, shrunk to 1 in 200."""
    model = np.empty((len(log), actions))
    for half in (0, 1):
        rows = np.arange(len(log)) % 2 == half
        shown = np.bincount(log.action[~rows], minlength=actions)
        clicked = np.bincount(log.action[~rows], weights=log.reward[~rows], minlength=actions)
        model[rows] = (clicked + 1) / (shown + 200)
    return model
