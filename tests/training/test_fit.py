from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import TrainingError
from engine.records import EventColumns
from engine.spec import Spec
from envs.batch import JourneyBatch
from envs.draws import Draws
from envs.ensemble import EnsembleOutcomeModel
from envs.simulate import by_policy, simulate, write_log
from envs.worlds import world
from tests.envs.tiny import TEXT, TinyWorld, tiny_replay, tiny_spec
from tests.training.played import play
from training import selection
from training.evidence import evidence_of, is_answer, turns
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.logs import read_log
from training.members import OutcomeSettings
from training.rollout import constant_values

torch.set_num_threads(1)

SPEC = tiny_spec()
WORLD = TinyWorld(SPEC)
SMALL = OutcomeSettings(members=2, hidden=16, least_steps=40)


def journeys(customers: int, seed: int = 0) -> Journeys:
    return play(SPEC, WORLD, tiny_replay(SPEC, customers, seed=seed), seed)


@pytest.fixture(scope="module")
def learned() -> EnsembleOutcomeModel:
    """Fitted to 2,500 customers, about 9,000 decisions."""
    return fit_outcome_model(SPEC, journeys(2500), journeys(500, 1), OutcomeSettings(members=3, hidden=32, epochs=8))


def test_it_learns_what_the_world_does(learned: EnsembleOutcomeModel) -> None:
    others = journeys(400, 2)
    fresh = turns(SPEC, others)
    truth = WORLD.rates(fresh.context, fresh.action, fresh.send_at, fresh.until)
    told = evidence_of(SPEC, others, fresh, learned.inputs, learned.streams).told[:, : learned.layout.told]
    chances = learned.probabilities(fresh, told)
    assert np.abs(chances - truth).mean(axis=0).max() < 0.06
    order = SPEC.fold.kind_index("order")
    for content in (0, 1):  # the effect of an action is what a policy lives on
        for tier in (0, 1):
            cell = (SPEC.catalogue.content[fresh.action] == content) & (fresh.context[:, 0] == tier)
            assert chances[cell, order].mean() == pytest.approx(truth[cell, order].mean(), abs=0.05)


def test_its_journeys_are_like_those_of_the_world(learned: EnsembleOutcomeModel) -> None:
    real = journeys(600, 3)
    made = play(SPEC, learned, tiny_replay(SPEC, 600, seed=3), 4)
    np.testing.assert_allclose(made.counts.mean(axis=0), real.counts.mean(axis=0), atol=0.03)
    order = SPEC.fold.kind_index("order")
    mean = made.values[:, order].sum() / made.counts[:, order].sum()
    assert mean == pytest.approx(real.values[:, order].sum() / real.counts[:, order].sum(), rel=0.1)
    answers = made.events.take(made.events.kind == SPEC.fold.kind_index("open"))
    assert is_answer(SPEC, turns(SPEC, made), answers).mean() > 0.9


def test_it_learns_what_becomes_of_endogenous_context(learned: EnsembleOutcomeModel) -> None:
    """A day costs 1, an offer 10 more; the tier stays and the rain is replayed."""
    replay = tiny_replay(SPEC, 200, seed=5, shortest=6)
    offer, hold = SPEC.catalogue.row("email", "offer", "now"), 0
    left = {}
    for action in (offer, hold):
        batch = JourneyBatch(SPEC, learned, replay, Draws.seeded(0, 200))
        batch.reset(journey=np.arange(200))
        for day in range(3):
            np.testing.assert_array_equal(batch.context[:, :2], replay.context[:, day, :2])
            batch.step(np.full(200, action), enforce=False)
            batch.over[:] = False
        left[action] = batch.context[:, 2].mean()
    assert left[hold] == pytest.approx(97, abs=4)
    assert left[offer] == pytest.approx(67, abs=8)


def test_the_same_seed_gives_the_same_model() -> None:
    train, valid = journeys(60), journeys(20, 1)
    one, two = (fit_outcome_model(SPEC, train, valid, SMALL) for _ in range(2))
    other = fit_outcome_model(SPEC, train, valid, replace(SMALL, seed=1))
    for a, b, c in zip(one.outcome.weights, two.outcome.weights, other.outcome.weights, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_a_training_that_runs_away_is_an_error() -> None:
    """It must not pass off the weights where it started as what it learned."""
    with pytest.raises(TrainingError, match="outcome model: found a likelihood that is not a number"):
        fit_outcome_model(SPEC, journeys(60), journeys(20, 1), replace(SMALL, learning_rate=1e30, penalty=1.0))


def test_progress_goes_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    fit_outcome_model(SPEC, journeys(30), journeys(10, 1), SMALL, lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (100, 100)


def test_a_large_log_is_decided_by_steps_and_judged_several_times_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, not passes, end a training; here there are three times as many steps in the five passes."""
    train, valid, told = journeys(60), journeys(20, 1), list[int]()
    few = replace(SMALL, batch=4, least_steps=1, patience=99, penalty=1.0)
    monkeypatch.setattr(selection, "efforts", lambda settings: (settings,))
    steps = 5 * (len(train) // 4)
    fit_outcome_model(
        SPEC, train, valid, replace(few, most_steps=steps // 3, checks=8), lambda done, _: told.append(done)
    )
    # Of two ensembles: the one search, each check, the end of the training, and that all is done.
    assert len(told) == 2 * (1 + (8 + 1) + 1)
    assert told[-1] == 100


def test_limits_that_a_small_log_does_not_reach_change_nothing() -> None:
    train, valid = journeys(60), journeys(20, 1)
    one = fit_outcome_model(SPEC, train, valid, SMALL)
    two = fit_outcome_model(SPEC, train, valid, replace(SMALL, most_steps=10**9, judged=len(valid)))
    for a, b in zip(one.outcome.weights, two.outcome.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_few_validation_decisions_judge_nearly_as_well_as_all() -> None:
    train, valid = journeys(300), journeys(300, 1)
    turn = turns(SPEC, valid)
    loss = []
    for judged in (len(valid), len(valid) // 4):
        model = fit_outcome_model(SPEC, train, valid, replace(SMALL, judged=judged))
        told = evidence_of(SPEC, valid, turn, model.inputs, model.streams).told[:, : model.layout.told]
        chances = model.probabilities(turn, told)
        loss.append(-np.log(np.where(valid.counts > 0, chances, 1 - chances)).sum(axis=1).mean())
    assert loss[1] == pytest.approx(loss[0], rel=0.03)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_device_changes_only_rounding(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no GPU that torch can use")
    train, valid = journeys(60), journeys(20, 1)
    one, two = (fit_outcome_model(SPEC, train, valid, replace(SMALL, device=d)) for d in ("cpu", device))
    for a, b in zip(one.outcome.weights, two.outcome.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("longest", [1, 3])
def test_a_handful_of_decisions_is_enough_to_run(longest: int) -> None:
    """Constant features, kinds that never happen, one-decision journeys, no validation customers."""
    always = TinyWorld(SPEC, churn=0.0)
    train = play(SPEC, always, tiny_replay(SPEC, 10, longest=longest, shortest=longest), 1)
    model = fit_outcome_model(SPEC, train, train.take(np.zeros(0, np.int64)), SMALL)
    assert "churn" in model.impossible
    assert (len(model.evolutions) > 0) == (longest > 1)
    made = play(SPEC, model, tiny_replay(SPEC, 40, longest=longest, shortest=longest), 2)
    assert np.isfinite(made.reward).all()
    assert np.isfinite(made.observation).all()


def test_nothing_to_learn_from_is_said() -> None:
    train = journeys(5)
    silent = replace(train, events=EventColumns.empty(), counts=train.counts * 0, values=train.values * 0)
    with pytest.raises(TrainingError, match="no events"):
        fit_outcome_model(SPEC, silent, silent)
    nobody = train.take(np.zeros(0, np.int64))
    with pytest.raises(TrainingError, match="no decisions"):
        fit_outcome_model(SPEC, nobody, nobody)


def test_a_targeted_history_does_not_stand_in_for_the_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In `confounded` vouchers went to good customers, so a history of vouchers looks like one. When everybody gets
    vouchers, an environment that reads customers from their history promises 20 EUR too much.
    """
    place = world("confounded")
    replay = place.replay(2_400, 28, 0)
    log = simulate(place, replay, by_policy(place.logging_policy(), 2_400, 0), place.spec, 0)
    write_log(tmp_path / "log", place.spec, log, "log", {"world": place.name})
    journeys = Journeys.of(place.spec, read_log(place.spec, tmp_path / "log"))
    voucher, advice = (place.spec.catalogue.row("email", name, "now") for name in ("voucher", "advice"))
    misled = []
    for penalties in ((0.0,), selection.PENALTIES):
        monkeypatch.setattr(selection, "PENALTIES", penalties)
        model = fit_outcome_model(place.spec, *journeys.split(0)[:2])
        worth = constant_values(place.spec, model, journeys.replay(), np.array([voucher, advice]), seed=1)
        misled.append(float(worth[0] - worth[1]))
    assert misled[0] > 0.0
    assert misled[1] == pytest.approx(-19.0, abs=6.0)  # the truth is −19.6


def test_a_penalty_leaves_only_what_history_explains() -> None:
    """Of all that the fold remembers, only the last contact matters in this world."""
    train, valid = journeys(200), journeys(60, 1)
    heard = []
    for penalty in (0.0, 4.0):
        model = fit_outcome_model(SPEC, train, valid, replace(SMALL, penalty=penalty))
        norm = np.linalg.norm(model.outcome.weights[0], axis=2).mean(axis=0)[: SPEC.encoder.size]
        heard.append({name for name, n in zip(SPEC.encoder.names, norm, strict=True) if n > 1e-3})
    history = {name for name in heard[0] if not name.startswith("context:")}
    assert len(heard[1] & history) < len(history) / 2
    assert heard[1] >= heard[0] - history  # the context is heard as before


def test_large_attributes_are_as_good_as_small_ones() -> None:
    """Prices in yen: the networks once saw them as they are, and promised orders to everybody."""
    dear = Spec.parse(TEXT.replace("discount = 0.2", "discount = 200000.0"), "dear")
    seen = []
    for spec in (SPEC, dear):
        train, valid = (play(spec, TinyWorld(spec), tiny_replay(spec, n, seed=s), s) for n, s in ((200, 0), (60, 1)))
        model = fit_outcome_model(spec, train, valid, SMALL)
        seen.append(constant_values(spec, model, valid.replay(), np.arange(len(spec.catalogue)), 0))
    np.testing.assert_allclose(seen[0], seen[1], rtol=0.3, atol=0.3)
