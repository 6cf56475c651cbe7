"""Contents that come up later: the journeys on which a policy meets them before anybody does."""

from dataclasses import replace

import numpy as np
import pytest

from engine.records import DAY, HOLD, Bools
from engine.spec import Spec
from envs.replay import Replay
from envs.worlds import world
from tests.training.known_logs import logged
from training.clone import FitSettings, clone_behaviour
from training.fit import columns_of_names, fit_outcome_model, inputs_of
from training.members import OutcomeSettings
from training.network import linear
from training.upcoming import MOST, WEEK, with_upcoming

PLACE = world("new_content")
NEW = slice(5, 8)
"""Actions whose contents appear after the log."""


def mask_at(spec: Spec, replay: Replay, j: int) -> Bools:
    taken = replay.take(np.array([j]))
    mask: Bools = spec.guardrails.mask(taken.initial, taken.context[:, 0], taken.decided_at[:, 0], taken.zone)
    return np.asarray(mask[0], bool)


@pytest.mark.parametrize("days", [10, 28])
def test_half_of_the_journeys_happen_when_new_contents_are_there(days: int) -> None:
    """Also where they appear between the last decision of the log and the end of its window: nobody was sent them."""
    spec, (train, _) = PLACE.spec, logged(PLACE, 60, days=days)
    replay = train.replay()
    found = with_upcoming(spec, replay)
    many = len(replay)
    assert len(found) == 2 * many
    moved = found.decided_at[many:] - found.decided_at[:many]
    shift = float(np.nanmin(moved))
    assert np.nanmax(moved) == shift > 0
    assert shift % WEEK == 0
    np.testing.assert_array_equal(found.context[many:], found.context[:many])
    assert not train.mask[:, NEW].any()
    for j in range(many):
        assert not mask_at(spec, found, j)[NEW].any()
        assert mask_at(spec, found, many + j)[NEW].all()


def test_a_log_that_met_all_contents_stays_as_it_is() -> None:
    place = world("fatigue")
    replay = logged(place, 30, days=5)[0].replay()
    assert with_upcoming(place.spec, replay) is replay


def test_nobody_has_nothing_ahead() -> None:
    nobody = logged(PLACE, 20, days=4)[0].replay().take(np.zeros(0, np.int64))
    assert with_upcoming(PLACE.spec, nobody) is nobody


def test_of_many_beginnings_the_first_count_and_what_customers_bring_along_moves_with_them() -> None:
    replay = logged(PLACE, 20, days=6)[0].replay()
    end = float(np.nanmax(replay.until))
    contents = [replace(c, valid_from=end + n * 40 * DAY) for n, c in enumerate([*PLACE.spec.catalogue.contents] * 2)]
    catalogue = type(PLACE.spec.catalogue)(
        PLACE.spec.catalogue.channels, contents[: MOST + 2], PLACE.spec.catalogue.timings
    )
    found = with_upcoming(replace(PLACE.spec, catalogue=catalogue), replay)
    many = len(replay)
    assert len(found) == 2 * MOST * many
    begins = sorted(c.valid_from or 0.0 for c in contents)[:MOST]
    for n, at in enumerate(begins):
        own = found.take(np.arange((MOST + n) * many, (MOST + n + 1) * many))
        assert at <= own.decided_at[:, 0].min() < at + 2 * WEEK
        shift = own.decided_at[0, 0] - replay.decided_at[0, 0]
        np.testing.assert_array_equal(own.initial.as_of, replay.initial.as_of + shift)
        np.testing.assert_array_equal(own.initial.last, replay.initial.last + shift)
        np.testing.assert_array_equal(own.initial.decayed, replay.initial.decayed)


def test_the_names_of_contents_that_nobody_met_say_nothing() -> None:
    spec, (train, valid) = PLACE.spec, logged(PLACE, 80, days=6)
    network = clone_behaviour(spec, train, valid, FitSettings(seed=1, epochs=2)).network
    names = spec.attributes.identity
    size = linear(network.key_tower, 0).weight[:, names].detach().norm(dim=0).numpy()
    assert (size[:4] > 0).all()
    assert (size[4:] == 0).all()


def test_the_environment_hears_names_that_it_met_and_knows_others_by_their_attributes() -> None:
    spec, (train, valid) = PLACE.spec, logged(PLACE, 200, days=8)
    model = fit_outcome_model(spec, train, valid, OutcomeSettings(seed=1, members=2, hidden=8, epochs=2))
    names = spec.encoder.size + np.arange(spec.attributes.size)[spec.attributes.identity]
    assert (model.outcome.weights[0][:, names[4:]] == 0).all()
    assert model.outcome.effects is not None
    heard = np.linalg.norm(model.outcome.effects.key[:, spec.attributes.identity], axis=2)
    assert (heard[:, :4] > 0).all()
    assert (heard[:, 4:] == 0).all()
    linked = model.outcome.links[:, -len(names) :]
    assert (linked[:, 4:] == linked[:, 4:5]).all()


def test_where_contents_have_no_attributes_names_are_never_forgotten() -> None:
    lines = [line for line in PLACE.spec.text.splitlines() if not line.startswith("attributes")]
    assert [len(columns) for columns in columns_of_names(Spec.parse("\n".join(lines)), 20)] == [0, 0]
    assert [len(columns) for columns in columns_of_names(PLACE.spec, 20)] == [7, 7]


@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_an_attribute_counts_the_same_in_any_unit(factor: float) -> None:
    """A price cut of 0.2, or of 20 percent."""
    text = PLACE.spec.text.replace("sale = 0.2", f"sale = {0.2 * factor}")
    spec, (train, valid) = Spec.parse(text), logged(PLACE, 80, days=6)
    attributes = spec.attributes.encode(spec.catalogue)
    network = clone_behaviour(spec, train, valid, FitSettings(seed=1, epochs=1)).network
    column = spec.attributes.names.index("attribute:sale")
    scaled = attributes[:, column] / network.scale[column].item()
    assert scaled.max() == pytest.approx(1.0)
    assert inputs_of(spec, train).attributes[:, column].max() == pytest.approx(1.0)
    assert inputs_of(spec, train).attributes[HOLD].max() == 1.0
