"""The reference learner in a world that is solved: better than what the company does, and never beyond the optimum."""

from dataclasses import replace

import numpy as np

from envs.simulate import value
from envs.small.solve import Problem
from envs.small.world import SmallWorld
from envs.worlds import world
from training import reference


def test_it_beats_the_logging_policy_and_not_the_optimum() -> None:
    place = world("fatigue")
    quick = replace(reference.settings_of(60_000), customers=256, batch=1024, learning_rate=3e-3)
    learned = reference.reference(place, quick)
    logged = value(place, place.logging_policy(), 2_000, 28, 9)
    best = value(place, reference.policy_of(place, learned.network), 2_000, 28, 9)
    error = (best - logged).std() / np.sqrt(len(best))
    assert (best - logged).mean() > 3 * error
    assert isinstance(place, SmallWorld)
    problem = Problem.of(place, days=28)
    assert best.mean() - problem.value(problem.optimum()) < 3 * best.std() / np.sqrt(len(best))
