from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records import HOLD, Floats32
from envs.disagreement import member_worths
from envs.ensemble import EnsembleOutcomeModel
from envs.excitation import Excitation, Traces, excited
from envs.laws import chance
from envs.outcomes import Turn
from tests.envs.test_ensemble import begun, model_of, turn_of
from tests.envs.tiny import tiny_spec

SPEC = tiny_spec()
SCORES = st.floats(-20.0, 20.0)
INTENSITIES = st.floats(0.0, 5.0)
ORDER, VISIT = 3, 0  # streams of `model_of`


def column(name: str) -> int:
    return SPEC.encoder.names.index(name)


def with_excitation(model: EnsembleOutcomeModel, excitation: Excitation | None) -> EnsembleOutcomeModel:
    outcome = replace(model.outcome, excitation=excitation)
    return EnsembleOutcomeModel(model.spec, model.streams, model.evolutions, model.inputs, outcome, model.context)


def pushes(rate: float, stream: int = ORDER) -> Excitation:
    """Every push that the longer half-life remembers excites a stream, of old customers twice as much."""
    traces = Traces(
        np.array([column("contact:push@1d"), column("contact:push@7d")]),
        np.array([[0.0, 0.0], [1.0, 1.0]], np.float32),
        np.array([-1, column("context:tier=old")]),
    )
    rates: Floats32 = np.zeros((2, 4), np.float32)
    rates[:, stream] = rate
    return Excitation(traces, rates)


def after(count: float, n: int, old: bool = False) -> Turn:
    """A decision to hold after so many pushes."""
    turn = turn_of(SPEC, n, HOLD)
    turn.observation[:, column("contact:push@7d")] = np.log1p(count)
    turn.observation[:, column("context:tier=old")] = old
    return turn


@given(SCORES, INTENSITIES, INTENSITIES)
def test_causes_are_independent(score: float, one: float, other: float) -> None:
    """It does not happen if neither the background nor any excitation makes it happen."""
    z, e, more = np.array([score]), np.array([one]), np.array([other])
    never = (1 - chance(z)) * np.exp(-e) * np.exp(-more)
    np.testing.assert_allclose(1 - excited(z, e + more), never, rtol=1e-9, atol=1e-12)
    assert excited(z, e + more) >= excited(z, e)
    np.testing.assert_array_equal(excited(z, 0 * e), chance(z))


def test_traces_are_weighted_counts_of_whom_they_are_for() -> None:
    observation = np.zeros((2, SPEC.encoder.size), np.float32)
    observation[:, column("contact:push@7d")] = np.log1p(3.0)
    observation[1, column("context:tier=old")] = 1.0
    found = pushes(0.1).traces.of(observation)
    np.testing.assert_allclose(found, [[3.0, 0.0], [3.0, 3.0]], rtol=1e-6)
    np.testing.assert_allclose(pushes(0.1).of(observation)[:, ORDER], [0.3, 0.6], rtol=1e-6)


def test_some_traces_are_as_they_were_among_all() -> None:
    """Columns that nobody needs any more are not looked at."""
    observation = np.random.default_rng(0).random((5, SPEC.encoder.size)).astype(np.float32)
    traces = pushes(0.1).traces
    kept = traces.some(np.array([1]))
    np.testing.assert_array_equal(kept.column, [column("contact:push@7d")])
    np.testing.assert_allclose(kept.of(observation), traces.of(observation)[:, [1]], rtol=1e-6)


def test_traces_are_never_negative() -> None:
    """The longer half-life remembers more than the shorter one; rounding must not make it less."""
    traces = Traces(np.array([0, 1]), np.array([[-1.0], [1.0]], np.float32), np.array([-1]))
    np.testing.assert_array_equal(traces.of(np.array([[0.5, 0.4999]], np.float32)), [[0.0]])


def test_what_is_excited_is_drawn_as_often_as_its_chance_says() -> None:
    """Draws, probabilities, mean rewards and what each member sees agree."""
    n, count = 20_000, 4.0
    model = with_excitation(model_of(SPEC), pushes(0.1))
    turn, told = after(count, n), np.zeros((n, model.layout.told), np.float32)
    expected = 1 - (1 - np.array([0.1, 0.5])) * np.exp(-0.1 * count)
    latent, draws = begun(model, n)
    events, worth = model.outcomes_and_worth(latent, turn, draws)
    for member in (0, 1):
        mine = latent["member"] == member
        orders = np.isin(np.flatnonzero(mine), events.row[events.kind == 2])
        assert orders.mean() == pytest.approx(expected[member], abs=0.015)
    assert model.probabilities(turn, told)[0, 2] == pytest.approx(expected.mean())
    assert worth.mean() == pytest.approx(SPEC.reward.of_events(events, turn.action).mean(), rel=0.03)
    plain = member_worths(model_of(SPEC), turn, told)[:, 0]
    np.testing.assert_allclose(member_worths(model, turn, told)[:, 0], plain * expected / [0.1, 0.5], rtol=1e-6)


def test_each_contact_adds_the_same_again() -> None:
    """In −log P(not): a second push adds what the first one added, whoever speaks and however likely it was before."""
    model = with_excitation(model_of(SPEC), pushes(0.05))
    told = np.zeros((1, model.layout.told), np.float32)
    for stream, kind in ((ORDER, 2), (VISIT, 0)):
        model = with_excitation(model_of(SPEC, members=1), pushes(0.05, stream))
        never = [-np.log(1 - model.probabilities(after(k, 1, old=True), told)[0, kind]) for k in (0, 1, 2, 30)]
        np.testing.assert_allclose(np.array(never) - never[0], 0.1 * np.array([0, 1, 2, 30]), atol=1e-6)


def test_no_excitation_changes_nothing() -> None:
    plain, n = model_of(SPEC), 500
    none = with_excitation(plain, pushes(0.0))
    told = []
    for model in (plain, none):
        latent, draws = begun(model, n)
        events, worth = model.outcomes_and_worth(latent, after(3.0, n), draws)
        told.append((events.kind, events.occurred_at, events.value, worth))
    for a, b in zip(*told, strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_is_saved_with_the_model(tmp_path: Path) -> None:
    model, told = with_excitation(model_of(SPEC), pushes(0.2)), np.zeros((1, model_of(SPEC).layout.told), np.float32)
    model.save(tmp_path / "model.npz")
    again = EnsembleOutcomeModel.load(tmp_path / "model.npz", SPEC)
    assert again.outcome.excitation is not None
    for name in ("column", "mix", "trait"):
        kept, mine = (getattr(m.outcome.excitation.traces, name) for m in (again, model))  # type: ignore[union-attr]
        np.testing.assert_array_equal(kept, mine)
    turn = after(2.0, 1)
    np.testing.assert_array_equal(again.probabilities(turn, told), model.probabilities(turn, told))
    model_of(SPEC).save(tmp_path / "model.npz")
    assert EnsembleOutcomeModel.load(tmp_path / "model.npz", SPEC).outcome.excitation is None
