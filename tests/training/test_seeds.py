"""Of several trainings, environment and validation customers keep one together."""

import numpy as np
import pytest

from envs.worlds import world
from tests.training.known_logs import logged
from training import network as networks
from training.clone import FitSettings, clone_behaviour
from training.fit import fit_outcome_model
from training.members import OutcomeSettings
from training.network import TwoTower, blended
from training.ppo import Curve, Learned, PpoSettings
from training.seeds import COURAGE, train_several

PLACE = world("confounded")
ADVICE, TIPS = 2, 1


def test_the_best_by_both_is_kept_however_bold(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this world e-mail with advice helps everybody. Who is nearer to the log is surer, and worth less."""
    monkeypatch.setattr("training.environment_values.DECISIONS", (4_000, 4_000))
    spec, (train, valid) = PLACE.spec, logged(PLACE, 900, days=8)
    clone = clone_behaviour(spec, train, valid, FitSettings(seed=1, epochs=5)).network
    model = fit_outcome_model(spec, train, valid, OutcomeSettings(seed=1, members=2, hidden=16, epochs=6))
    attributes, size = spec.attributes.encode(spec.catalogue), spec.encoder.size
    made: dict[int, TwoTower] = {
        0: blended(clone, clone, 0.5),
        1: networks.constant(ADVICE, attributes, size),
        2: networks.constant(TIPS, attributes, size),
    }
    asked: list[float] = []

    def learned(number: int, own: PpoSettings) -> Learned:
        asked.append(own.closeness)
        return Learned(made[number], 0.0, Curve((), (), (), (), ()))

    first = PpoSettings(seed=5)
    found = train_several(spec, model, valid, clone, (first, 3), learned)
    assert asked == [first.closeness * courage for courage in COURAGE]
    assert found.learned.network is made[1]
    assert found.settings.seed == first.seed + 1
    assert found.gains.shape == (3, 2)
    assert int(found.together.argmax()) == 1
    assert abs(found.together[0]) < 0.25 * found.together[1]
    assert np.isfinite(found.together).all()
