from dataclasses import replace

import numpy as np
import pytest

from engine.records import Floats
from envs.draws import Draws
from tests.envs.tiny import TinyWorld, tiny_replay, tiny_spec
from tests.training.played import play
from training.episodes import Episodes
from training.two_sample import figure_names, figures, placements, two_sample

SPEC = tiny_spec()
VISIT = SPEC.fold.kind_index("visit")


def lived(customers: int, seed: int) -> Episodes:
    return Episodes.logged(play(SPEC, TinyWorld(SPEC), tiny_replay(SPEC, customers, seed=5), seed))


def test_journeys_of_one_world_cannot_be_told_apart() -> None:
    """Over many pairs the AUC is a half, and its error is how much it varies."""
    found = [two_sample(SPEC, lived(200, 2 * seed), [lived(200, 2 * seed + 1)], seed) for seed in range(8)]
    aucs, errors = np.array([f.auc for f in found]), np.array([f.error for f in found])
    assert aucs.mean() == pytest.approx(0.5, abs=3 * errors.mean() / 8**0.5)
    assert (np.abs(aucs - 0.5) < 3.5 * errors).all()
    assert all(f.check().passed for f in found)


def test_customers_who_are_too_much_alike_are_told_apart() -> None:
    """Every mean is right: half of the customers get the visits of two, the other half none."""
    real, made = lived(400, 1), lived(400, 2)
    keen = np.arange(400) % 2 == 0
    visits = np.flatnonzero(real.events.kind == VISIT)
    kept = visits[keen[real.customer[real.events.row[visits]]]]
    rest = np.flatnonzero(real.events.kind != VISIT)
    uneven = replace(real, events=real.events.take(np.concatenate([rest, kept, kept])))
    told = two_sample(SPEC, uneven, [made], 0)
    assert not told.check().passed
    assert "visit" in told.giveaways[0].figure


def test_too_few_customers_tell_nothing() -> None:
    told = two_sample(SPEC, lived(12, 1), [lived(12, 2)], 0)
    assert told.auc == 0.5
    assert told.check().passed


def test_figures_of_a_journey_by_hand() -> None:
    real = lived(30, 3)
    table = dict(zip(figure_names(SPEC), figures(SPEC, real).T, strict=True))
    someone = int(np.bincount(real.customer[real.events.row[real.events.kind == VISIT]]).argmax())
    mine = real.customer == someone
    at = np.sort(real.events.occurred_at[(real.events.kind == VISIT) & mine[real.events.row]])
    assert table["visit, events"][someone] == len(at)
    assert table["visit, days apart"][someone] == pytest.approx(np.diff(at).mean() / 86400)
    assert table["decisions"][someone] == mine.sum()
    assert table["contacts"][someone] == (real.action[mine] != 0).sum()
    assert table["return"][someone] == pytest.approx(real.returns(SPEC)[someone])
    none = table["visit, events"] == 0
    assert np.isnan(table["visit, days apart"][none]).all()


def test_the_auc_counts_pairs() -> None:
    score: Floats = np.round(Draws.seeded(0, 60).normal(1)[:, 0], 1)
    made_up = np.arange(60) % 3 == 0
    pairs = score[made_up][:, None] - score[~made_up][None, :]
    auc, _ = placements(score, made_up)
    assert auc == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
