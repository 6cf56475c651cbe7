"""A part of the way to a bold policy: as far as the log can follow it."""

from dataclasses import replace

import numpy as np
import pytest

from envs.worlds import world
from tests.training.known_logs import logged
from training.blend import PARTS, blend
from training.clone import FitSettings, Fitted, clone_behaviour
from training.distil import DistilSettings, distil
from training.network import NetworkPolicy, TwoTower
from training.panels import probabilities_of
from training.tilted import Favouring

PLACE = world("confounded")
SPEC = PLACE.spec
ATTRIBUTES = SPEC.attributes.encode(SPEC.catalogue)
TRAIN, VALID = logged(PLACE, 900, days=8)
ADVICE = 2
PAID = replace(TRAIN, reward=1.0 * (TRAIN.action == ADVICE))
"""Customers who pay one EUR for each e-mail with advice, at once."""


@pytest.fixture(scope="module")
def clone() -> Fitted:
    return clone_behaviour(SPEC, TRAIN, VALID, FitSettings(seed=1, epochs=5))


def towards(clone: TwoTower, row: int, by: float) -> TwoTower:
    """The clone with the log-odds of one action raised."""
    teacher = Favouring(NetworkPolicy(clone, ATTRIBUTES), by, 1.0 * (np.arange(len(SPEC.catalogue)) == row))
    settings = DistilSettings(fit=FitSettings(epochs=30, batch=512, patience=5))
    return distil(SPEC, teacher, clone, (TRAIN, VALID), settings).network


def test_the_log_says_how_far(clone: Fitted) -> None:
    """Where more of it gains for certain, most of it is taken; without customers, the first step."""
    bold = towards(clone.network, ADVICE, 1.0)
    found = blend(SPEC, None, PAID, (clone.network, bold))
    assert found.pick.told
    assert found.part == PARTS[-1]
    shown = [s for s in found.pick.scores.values() if s is not None]
    assert shown == sorted(shown)
    few = blend(SPEC, None, VALID.take(np.arange(10)), (clone.network, bold))
    assert (few.part, few.pick.told) == (PARTS[0], False)


def test_a_part_of_the_way_is_in_between(clone: Fitted) -> None:
    bold = towards(clone.network, ADVICE, 1.0)
    usual, most = (
        probabilities_of(NetworkPolicy(n, ATTRIBUTES), VALID.observation, VALID.mask)[:, ADVICE].mean()
        for n in (clone.network, bold)
    )
    found = blend(SPEC, None, VALID, (clone.network, bold)).network
    between = probabilities_of(NetworkPolicy(found, ATTRIBUTES), VALID.observation, VALID.mask)[:, ADVICE].mean()
    assert usual < between < most
