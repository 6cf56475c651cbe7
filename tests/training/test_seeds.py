"""Of several trainings, environment and validation customers keep one together."""

from collections.abc import Sequence

import numpy as np
import pytest

from envs.worlds import world
from tests.training.known_logs import logged
from tests.training.test_blend import towards
from training import network as networks
from training.clone import FitSettings, clone_behaviour
from training.fit import fit_outcome_model
from training.members import OutcomeSettings
from training.network import TwoTower
from training.ppo import Curve, Learned, PpoSettings
from training.seeds import COURAGE, Several, best_of, tries

PLACE = world("confounded")
ADVICE, TIPS = 2, 1


def test_the_best_by_both_is_kept_but_not_one_that_the_log_cannot_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this world e-mail with advice helps everybody, tips nobody; to write it always is more than 50 customers can
    judge, whatever the environment promises.
    """
    monkeypatch.setattr("training.environment_values.DECISIONS", (4_000, 4_000))
    spec, (train, valid) = PLACE.spec, logged(PLACE, 1_800, days=8)
    valid = valid.take(np.arange(50))
    clone = clone_behaviour(spec, train, valid, FitSettings(seed=1, epochs=5)).network
    model = fit_outcome_model(spec, train, valid, OutcomeSettings(seed=1, members=2, hidden=16, epochs=6))
    attributes, size = spec.attributes.encode(spec.catalogue), spec.encoder.size
    always = networks.constant(ADVICE, attributes, size)
    made = [towards(clone, TIPS, 1.0), towards(clone, ADVICE, 1.0), always]
    first = PpoSettings(seed=5)
    asked = tries(first, 3)
    assert [own.closeness for own in asked] == [first.closeness * courage for courage in COURAGE]

    def best(of: Sequence[TwoTower]) -> Several:
        learned = [Learned(network, 0.0, Curve((), (), (), (), ())) for network in of]
        return best_of(spec, model, valid, clone, list(zip(asked, learned, strict=True)))

    found = best(made)
    assert found.gains.shape == (3, 2)
    assert int(found.gains.mean(axis=1).argmax()) == 2
    assert np.isnan(found.together).tolist() == [False, False, True]
    assert found.learned.network is made[1]
    assert found.settings.seed == first.seed + 1
    assert found.together[1] > max(0.0, found.together[0])

    assert np.isnan(best([always, always, always]).together).all()
