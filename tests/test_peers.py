"""Learners that others wrote: they see what ours see, take only what is eligible, and are there or are skipped."""

import numpy as np
import pytest

from engine.records import Bools, Floats32
from engine.spec import Spec
from envs.worlds import world
from tests.benchmarks.quality.learners import log_of
from tests.benchmarks.quality.peer import PEERS, PYTHON, STAND_IN, Peer, arrays
from training.journeys import Journeys


@pytest.fixture(scope="module")
def logged() -> tuple[Spec, Journeys]:
    place = world("confounded")
    return place.spec, log_of(place, 200, 1)


def narrowed(journeys: Journeys) -> tuple[Floats32, Bools]:
    """Observations, each with only two eligible actions: hold and another one in turn."""
    mask = np.zeros((400, journeys.mask.shape[1]), bool)
    mask[:, 0] = True
    mask[np.arange(400), 1 + np.arange(400) % (mask.shape[1] - 1)] = True
    return journeys.observation[:400], mask


def test_an_episode_ends_where_its_customer_or_the_log_does(logged: tuple[Spec, Journeys]) -> None:
    spec, journeys = logged
    told = arrays(spec, journeys)
    assert not (told["terminal"] & told["timeout"]).any()
    ends = np.flatnonzero(told["terminal"] | told["timeout"])
    assert journeys.customer[ends].tolist() == list(range(len(journeys.customer_ids)))
    assert told["terminal"].tolist() == journeys.ended.tolist()
    assert told["discount"] == pytest.approx(spec.reward.discount_per_day)  # a decision a day


def test_a_peer_takes_the_eligible_action_that_it_scores_highest(logged: tuple[Spec, Journeys]) -> None:
    spec, journeys = logged
    observation, mask = narrowed(journeys)
    everything = np.ones_like(mask)
    with Peer(STAND_IN, spec, journeys, steps=0, seed=1) as peer:
        chosen, free = peer.probabilities(observation, mask), peer.probabilities(observation, everything)
        again = np.concatenate(
            [peer.probabilities(observation[i : i + 40], mask[i : i + 40]) for i in range(0, 400, 40)]
        )
    assert (chosen.max(axis=1) == 1.0).all()
    assert (chosen.sum(axis=1) == 1.0).all()
    assert (chosen[~mask] == 0.0).all()
    kept = mask[np.arange(400), free.argmax(axis=1)]
    assert (chosen[kept] == free[kept]).all()  # what it likes best, wherever that is eligible
    assert kept.any()
    assert not kept.all()
    assert (again == chosen).all()


@pytest.mark.skipif(not PYTHON.is_made(), reason=f"runs/{PYTHON.name} is not made: run the study `peers` once")
@pytest.mark.parametrize("name", PEERS)
def test_every_peer_learns_and_takes_only_what_is_eligible(name: str, logged: tuple[Spec, Journeys]) -> None:
    spec, journeys = logged
    observation, mask = narrowed(journeys)
    with Peer(name, spec, journeys, steps=50, seed=1) as peer:
        chosen = peer.probabilities(observation, mask)
        assert (peer.probabilities(observation, mask) == chosen).all()
        assert peer.seconds > 0
    assert (chosen[~mask] == 0.0).all()
    assert (chosen.sum(axis=1) == 1.0).all()
