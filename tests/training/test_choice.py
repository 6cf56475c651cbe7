import numpy as np
import pytest

from engine.errors import TrainingError
from engine.records import Bools, Floats32
from envs.worlds import world
from tests.training.known_logs import logged
from training.choice import Chooser, score
from training.intervals import Estimate, refused
from training.journeys import Journeys
from training.seeds import certain

PLACE = world("confounded")


class Fixed:
    """The same probabilities for everybody."""

    version = "fixed"

    def __init__(self, *chances: float) -> None:
        self.chances = np.array(chances, np.float32)

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        return np.repeat(self.chances[None], len(observation), axis=0)


@pytest.fixture(scope="module")
def valid() -> Journeys:
    return logged(PLACE, 1_000, days=8)[1]


def estimate(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half, 100.0, "a method")


def test_what_the_log_speaks_for_is_chosen(valid: Journeys) -> None:
    """In this world e-mail with advice helps everybody, and the log has given it to four in ten of the cold ones."""
    chooser = Chooser(PLACE.spec, valid, PLACE.logging_policy())
    for name, policy in (("hold more", Fixed(0.7, 0.1, 0.1, 0.1)), ("advice", Fixed(0.2, 0.1, 0.6, 0.1))):
        assert chooser.consider(name, policy) is not None
    found = chooser.best()
    assert found.name == "advice"
    assert found.told
    assert found.gain is not None
    assert found.scores["advice"] == max(s for s in found.scores.values() if s is not None)
    assert found.scores["advice"] is not None
    assert found.scores["advice"] < found.gain


def test_a_tilt_is_judged_as_the_policy_that_it_makes(valid: Journeys) -> None:
    chooser = Chooser(PLACE.spec, valid, PLACE.logging_policy())
    same = chooser.consider_tilt("same", np.zeros(valid.mask.shape, np.float32), 1.0, 0.0)
    assert same is not None
    assert same.value == pytest.approx(0.0, abs=0.2)  # the logging policy itself gains nothing


def test_without_enough_customers_the_most_careful_one_is_taken(valid: Journeys) -> None:
    chooser = Chooser(PLACE.spec, valid.take(np.arange(10)), PLACE.logging_policy())
    for name in ("careful", "bold"):
        assert chooser.consider(name, Fixed(0.0, 0.0, 1.0, 0.0)) is None
    found = chooser.best()
    assert (found.name, found.gain, found.told) == ("careful", None, False)


def test_nothing_to_choose_from_is_an_error(valid: Journeys) -> None:
    with pytest.raises(TrainingError, match="no policy to choose from"):
        Chooser(PLACE.spec, valid, PLACE.logging_policy()).best()


def test_a_score_is_a_gain_less_its_doubt() -> None:
    assert score(estimate(2.0, 1.96)) == pytest.approx(1.0)
    assert score(refused("a method", 3.0, "too few")) is None
    assert score(None) is None


def test_gains_on_which_members_agree_score_higher() -> None:
    rng = np.random.default_rng(0)
    luck = rng.normal(size=(5, 200))
    agreed = 1.0 + 0.1 * luck
    torn = agreed + np.array([[-3.0], [-1.0], [0.0], [1.0], [3.0]])
    assert 0.95 < certain(agreed) < agreed.mean()
    assert certain(torn) < 0.0 < torn.mean()
    assert certain(3.0 * agreed) == pytest.approx(3.0 * certain(agreed))
    assert certain(agreed[:1]) > 0  # one member: only luck is left to doubt
