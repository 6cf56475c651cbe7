from dataclasses import replace

import numpy as np
import pytest

from engine.records import HOLD, Bools, Floats32
from tests.envs.tiny import TinyWorld, tiny_replay, tiny_spec
from tests.training.played import play
from training.innovations import innovations_of
from training.journeys import Journeys

SPEC = tiny_spec()
ATTRIBUTES = SPEC.attributes.encode(SPEC.catalogue)


class Evenly:
    version = "evenly"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        return np.asarray(mask / mask.sum(axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def log() -> Journeys:
    return play(SPEC, TinyWorld(SPEC), tiny_replay(SPEC, 400, longest=12, shortest=1), 0)


def test_luck_is_contacts_less_their_chances_faded(log: Journeys) -> None:
    found = innovations_of(SPEC, log, Evenly(), ATTRIBUTES)
    chance = 1.0 - (log.mask / log.mask.sum(axis=1, keepdims=True))[:, HOLD]
    expected = np.zeros((len(log), 2))
    for row in range(len(log)):
        before = (log.customer == log.customer[row]) & (log.step < log.step[row])
        days = (log.decided_at[row] - log.decided_at[before]) / 86_400
        surprise = (log.action[before] != HOLD) - chance[before]
        expected[row] = [(surprise * 0.5 ** (days / half)).sum() for half in (1.0, 7.0)]
    np.testing.assert_allclose(found.surprise, expected, atol=1e-5)
    assert [SPEC.encoder.names[c] for c in found.column] == ["contact@1d", "contact@7d"]
    np.testing.assert_allclose(found.counts, np.expm1(log.observation[:, found.column]))
    np.testing.assert_allclose(found.expected, (log.mask / log.mask.sum(axis=1, keepdims=True)) @ ATTRIBUTES, atol=1e-6)


def test_a_forbidden_contact_is_no_luck(log: Journeys) -> None:
    """It was no draw of those that were allowed: it is neither surprising nor to be expected less than it was."""
    sent = np.flatnonzero((log.action != HOLD) & (log.step == 0) & np.isin(log.customer, log.customer[log.step == 1]))
    forbidden = np.isin(np.arange(len(log)), sent)
    found = innovations_of(SPEC, replace(log, forbidden=forbidden), Evenly(), ATTRIBUTES)
    next_one = (log.step == 1) & np.isin(log.customer, log.customer[sent])
    np.testing.assert_array_equal(found.surprise[next_one], 0.0)
    np.testing.assert_array_equal(found.expected[sent], ATTRIBUTES[log.action[sent]])


def test_luck_goes_along_with_nothing_that_customers_are(log: Journeys) -> None:
    """Its mean is 0, among old customers and among new ones; the counts' is not."""
    found = innovations_of(SPEC, log, Evenly(), ATTRIBUTES)
    later = log.step > 0
    for tier in (0, 1):
        mine = found.surprise[later & (log.context[:, 0] == tier)]
        assert (np.abs(mine.mean(axis=0)) < 4 * mine.std(axis=0) / np.sqrt(len(mine) / 6)).all()
    assert found.counts[later].mean() > 0.5
