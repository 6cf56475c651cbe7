import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from engine.errors import TrainingError
from engine.records import DAY, HOLD, Floats, Floats32
from engine.spec import Spec
from envs.batch import JourneyBatch
from envs.carryover import Carryover
from envs.draws import Draws
from envs.effects import Effects
from envs.ensemble import EnsembleOutcomeModel
from envs.laws import BINS, Evolution, Layout, Scale, Stream, chance, log_odds, number_of
from envs.networks import Inputs, Networks
from envs.outcomes import Latent, Turn
from tests.envs.tiny import START, TEXT, tiny_replay, tiny_spec

EDGES = np.linspace(0, 1, BINS + 1)
NONE = np.full((1, 2), -1), np.ones(1)
ORDER = Scale.of(np.exp(np.random.default_rng(0).normal(3, 0.5, 2000)))


def streams(spec: Spec) -> list[Stream]:
    visit, opened, order = (spec.fold.kind_index(k) for k in ("visit", "open", "order"))
    pairs = np.array([[0, 1], [1, -1]])
    return [
        Stream(visit, False, 5, EDGES, Scale.of(np.array([10.0, 10.0, 20.0])), 0.0, *NONE),
        Stream(opened, False, 1, EDGES, None, 0.5, pairs, np.array([0.25, 0.75])),
        Stream(opened, True, 1, EDGES, None, 0.0, *NONE),
        Stream(order, False, 1, EDGES, ORDER, 0.0, *NONE),
    ]


def model_of(spec: Spec, members: int = 2, hidden: int = 3) -> EnsembleOutcomeModel:
    """Streams of chance 0.6, 0.3, 0.8; orders 0.1 in member 0 and 0.5 in member 1. Nothing depends on the inputs."""
    laws = streams(spec)
    layout = Layout.of(laws)
    size = layout.size
    bias = np.zeros((members, size), np.float32)
    bias[:, :3] = np.log([0.6 / 0.4, 0.3 / 0.7, 0.8 / 0.2])
    bias[0, 3], bias[1:, 3] = np.log(0.1 / 0.9), 0.0
    attributes = spec.attributes.encode(spec.catalogue)
    d = spec.encoder.size
    inputs = Inputs(np.zeros(d, np.float32), np.ones(d, np.float32), attributes)
    balance = Evolution(2, np.array([0.0]), Scale.of(np.arange(101.0)))
    sizes = [inputs.size, hidden, size], [inputs.size + 2 * len(spec.kinds) + 1, hidden, balance.width]
    outcome, context = ([np.zeros((members, a, b), np.float32) for a, b in pairwise(s)] for s in sizes)
    links = np.zeros((members, layout.told + attributes.shape[1], layout.linked), np.float32)
    still = np.tile(np.array([-50, 0, -50, 0, 0], np.float32), (members, 1))
    hold: Floats32 = np.zeros((members, hidden), np.float32)
    return EnsembleOutcomeModel(
        spec,
        laws,
        [balance],
        inputs,
        Networks(tuple(outcome), (hold, bias), links),
        Networks(tuple(context), (hold, still), np.zeros((members, 0, 1), np.float32)),
    )


def turn_of(spec: Spec, n: int, action: int, last: int = HOLD, window: float = DAY) -> Turn:
    now, chosen = np.full(n, START), np.full(n, action)
    zone = tiny_replay(spec, 1).zone[[0] * n]
    return Turn(
        observation=np.zeros((n, spec.encoder.size), np.float32),
        context=np.tile([0.0, 0.0, 40.0], (n, 1)),
        action=chosen,
        last_contact=np.full(n, last),
        now=now,
        send_at=spec.catalogue.send_at_of(chosen, now, zone),
        until=now + window,
        zone=zone,
    )


def begun(model: EnsembleOutcomeModel, n: int) -> tuple[Latent, Draws]:
    draws = Draws.independent(1, n)
    return model.begin(tiny_replay(model.spec), np.zeros(n, np.int64), draws), draws


def test_events_come_as_often_as_their_chances_say() -> None:
    spec = tiny_spec()
    model, n = model_of(spec), 20_000
    latent, draws = begun(model, n)
    assert set(np.unique(latent["member"])) == {0, 1}
    turn = turn_of(spec, n, spec.catalogue.row("email", "tip", "now"))
    events = model.outcomes(latent, turn, draws)
    happened = np.zeros((n, len(spec.kinds)), bool)
    happened[events.row, events.kind] = True
    np.testing.assert_allclose(happened.mean(axis=0), [0.6, 1 - 0.7 * 0.2, 0.3, 0, 0], atol=0.012)
    told = np.zeros((n, model.layout.told), np.float32)
    np.testing.assert_allclose(model.probabilities(turn, told)[0], [0.6, 1 - 0.7 * 0.2, 0.3, 0, 0], atol=1e-6)
    assert happened[latent["member"] == 0, 2].mean() == pytest.approx(0.1, abs=0.012)
    assert ((events.occurred_at > turn.now[events.row]) & (events.occurred_at <= turn.until[events.row])).all()
    visits = events.take(events.kind == 0)
    assert set(np.unique(visits.value)) == {10.0, 20.0}
    assert (visits.value == 10.0).mean() == pytest.approx(2 / 3, abs=0.02)
    assert np.bincount(visits.row).max() == 5
    assert events.value[events.kind == 2].mean() == pytest.approx(np.exp(3.125), rel=0.05)
    assert (visits.channel == -1).all()


def test_past_contacts_carry_over_to_scores() -> None:
    """By their decayed counts: two contacts of late, 0.5 each off the log-odds of visits, nothing to other streams."""
    spec = tiny_spec()
    model = model_of(spec)
    column = np.array([spec.encoder.names.index("contact@7d")])
    effect = np.array([[-0.5, 0.0, 0.0, 0.0]], np.float32)
    model.outcome = replace(model.outcome, carryover=Carryover(column, effect, np.array([3.0], np.float32)))
    turn = turn_of(spec, 4, spec.catalogue.row("email", "tip", "now"))
    turn.observation[1:, column] = np.log1p([[2.0], [3.0], [30.0]])
    chances = model.probabilities(turn, np.zeros((4, model.layout.told), np.float32))
    expected = [1 / (1 + np.exp(0.5 * count) * 0.4 / 0.6) for count in (0, 2, 3, 3)]  # the log never showed more
    np.testing.assert_allclose(chances[:, 0], expected, atol=1e-6)
    np.testing.assert_allclose(chances[1:, 1:], chances[:1, 1:].repeat(3, axis=0), atol=1e-6)


def test_a_stream_knows_what_earlier_ones_drew_and_what_was_done() -> None:
    """Orders: never without a visit; dearer by one in score for each score of the visits; an offer doubles the odds."""
    spec = tiny_spec()
    model = model_of(spec, members=1)
    links, layout, order = model.outcome.links, model.layout, 3
    links[0, 0, order], model.outcome.biases[1][0, order] = 50.0, -50.0
    links[0, layout.streams, layout.value[0] + 1] = 1.0
    offered = spec.attributes.names.index("content:offer")
    links[0, layout.told + offered, order] = np.log(2.0)
    model = EnsembleOutcomeModel(spec, model.streams, model.evolutions, model.inputs, model.outcome, model.context)
    n, share = 20_000, []
    for content in ("tip", "offer"):
        latent, draws = begun(model, n)
        turn = turn_of(spec, n, spec.catalogue.row("email", content, "now"))
        events, worth = model.outcomes_and_worth(latent, turn, draws)
        visited = np.bincount(events.row[events.kind == 0], minlength=n) > 0
        orders = events.take(events.kind == 2)
        assert visited[orders.row].all()
        share.append(len(orders) / visited.sum())
        paid = spec.reward.of_events(events, turn.action)
        assert worth.mean() == pytest.approx(paid.mean(), rel=0.06)
        assert worth.std() < 0.8 * paid.std()
        spent = np.bincount(events.row[events.kind == 0], weights=events.value[events.kind == 0], minlength=n)
        mean_spent = (spent / np.maximum(np.bincount(events.row[events.kind == 0], minlength=n), 1))[orders.row]
        assert orders.value[mean_spent == 20].mean() > 1.3 * orders.value[mean_spent == 10].mean()
    np.testing.assert_allclose(share, [1 / 2, 2 / 3], atol=0.02)
    told = np.zeros((1, layout.told), np.float32)
    one = turn_of(spec, 1, spec.catalogue.row("email", "offer", "now"))
    assert model.probabilities(one, told)[0, 2] < 1e-9
    told[0, 0] = 1.0
    assert model.probabilities(one, told)[0, 2] == pytest.approx(2 / 3)


HEAVY = {
    "log-normal": np.exp(np.random.default_rng(0).normal(3, 1.5, 20_000)),
    "mostly nothing": np.where(np.arange(20_000) % 50 == 0, np.random.default_rng(0).exponential(1000, 20_000), 0.0),
    "three prices": np.repeat([0.0, 100.0, 5000.0], [900, 80, 20]),
}


@pytest.mark.parametrize("values", HEAVY.values(), ids=HEAVY.keys())
def test_mean_rewards_see_the_rare_and_dear(values: Floats) -> None:
    """What orders are worth on average is the mean of what is drawn, although few dear ones make it."""
    spec, scale = tiny_spec(), Scale.of(values)
    laws = [replace(law, values=scale) if law.values is ORDER else law for law in streams(spec)]
    plain = model_of(spec)
    model = EnsembleOutcomeModel(spec, laws, plain.evolutions, plain.inputs, plain.outcome, plain.context)
    u = log_odds((np.arange(400_000) + 0.5) / 400_000)
    for centre, spread in ((0.0, 0.0), (1.0, 0.0), (-0.5, 0.4), (0.5, -0.5)):
        output = np.zeros((2, model.layout.size))
        output[:, model.layout.value[0] + 1], output[:, model.layout.value[1] + 1] = centre, spread
        drawn = scale.value(centre + np.exp(spread) * u).mean()
        np.testing.assert_allclose(model.worth_of(3, output), 0.5 * drawn, rtol=0.01)


def test_one_busy_window_does_not_cost_memory_for_all() -> None:
    """The log's busiest window, say of a test account, bounds the number of events; means stay as cheap as they are."""
    spec = tiny_spec()
    laws = [replace(law, most=5000) if law.values is ORDER else law for law in streams(spec)]
    plain, layout, rows = model_of(spec), Layout.of(laws), 2000
    bias = np.zeros((2, layout.size), np.float32)
    outcome = Networks(
        (plain.outcome.weights[0], np.zeros((2, 3, layout.size), np.float32)),
        (plain.outcome.biases[0], bias),
        np.zeros((2, layout.told + spec.attributes.size, layout.linked), np.float32),
    )
    model = EnsembleOutcomeModel(spec, laws, plain.evolutions, plain.inputs, outcome, plain.context)
    output = np.zeros((rows, layout.size))
    centre, spread = (np.linspace(low, high, rows) for low, high in ((-1.0, 9.0), (-1.5, 0.5)))
    output[:, layout.number[0] + 1], output[:, layout.number[1] + 1] = centre, spread
    tracemalloc.start()
    worth = model.worth_of(3, output)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    u, one = (np.arange(20_000) + 0.5) / 20_000, np.ones(20_000)
    each = model.worth_of(3, output[:1]) / number_of(u, centre[0] * one, np.exp(spread[0]) * one, 5000 * one).mean()
    for row in (0, 500, 1000, 1999):
        drawn = number_of(u, centre[row] * one, np.exp(spread[row]) * one, 5000 * one).mean()
        assert np.broadcast_to(worth, rows)[row] == pytest.approx(drawn * float(each[0]), rel=0.005)


def test_nobody_answers_what_has_not_gone_out() -> None:
    spec = tiny_spec()
    model, n, later = model_of(spec), 4000, spec.catalogue.row("push", "offer", "next_morning")
    latent, draws = begun(model, n)
    turn = turn_of(spec, n, later)
    answers = model.outcomes(latent, turn, draws)
    answers = answers.take((answers.kind == 1) & (answers.channel == 1) & (answers.content == 1))
    assert len(answers) > 0.7 * n
    assert (answers.occurred_at >= turn.send_at[0]).all()
    short = turn_of(spec, n, later, window=3600.0)
    opened = model.outcomes(latent, short, draws)
    assert (opened.kind == 1).sum() == pytest.approx(0.3 * n, rel=0.15)  # by themselves; none answers
    assert set(zip(opened.channel[opened.kind == 1], opened.content[opened.kind == 1], strict=True)) == {
        (0, 1),
        (1, -1),
    }


def test_a_late_answer_names_the_latest_contact_that_went_out() -> None:
    spec = tiny_spec()
    model, n = model_of(spec), 6000
    latent, draws = begun(model, n)
    later, tip = spec.catalogue.row("push", "offer", "next_morning"), spec.catalogue.row("push", "tip", "now")
    model.outcomes(latent, turn_of(spec, n, later, window=3600.0), draws)
    sent_at = turn_of(spec, 1, later).send_at[0]
    events = model.outcomes(latent, turn_of(spec, n, HOLD, last=tip, window=2 * DAY), draws)
    events = events.take((events.kind == 1) & (events.channel == 1) & (events.content >= 0))
    names_offer = events.content == 1
    assert 0.2 < names_offer.mean() < 0.8
    np.testing.assert_array_equal(names_offer, events.occurred_at >= sent_at)


def test_a_contact_is_remembered_as_long_as_it_waits() -> None:
    """Decided now for tomorrow morning, two decisions later still on its way, then named by late answers."""
    spec = tiny_spec()
    model, n, hour = model_of(spec), 6000, 3600.0
    latent, draws = begun(model, n)
    later, tip = spec.catalogue.row("push", "offer", "next_morning"), spec.catalogue.row("push", "tip", "now")
    model.outcomes(latent, turn_of(spec, n, later, window=hour), draws)
    for k in (1, 2):
        hold = turn_of(spec, n, HOLD, last=tip)
        model.outcomes(latent, replace(hold, now=hold.now + k * hour, until=hold.now + (k + 1) * hour), draws)
    sent_at = turn_of(spec, 1, later).send_at[0]
    hold = turn_of(spec, n, HOLD, last=tip, window=2 * DAY)
    events = model.outcomes(latent, replace(hold, now=hold.now + 3 * hour), draws)
    events = events.take((events.kind == 1) & (events.channel == 1) & (events.content >= 0))
    np.testing.assert_array_equal(events.content == 1, events.occurred_at >= sent_at)


def test_an_empty_window_holds_no_events() -> None:
    spec = tiny_spec()
    model = model_of(spec)
    latent, draws = begun(model, 50)
    assert len(model.outcomes(latent, turn_of(spec, 50, 1, window=0.0), draws)) == 0


def test_kinds_that_were_never_seen_are_impossible() -> None:
    assert model_of(tiny_spec()).impossible == ("unsubscribe", "churn")


def test_exogenous_context_is_replayed_and_endogenous_context_drawn() -> None:
    spec = tiny_spec()
    model, n = model_of(spec), 5
    latent, draws = begun(model, n)
    turn, replayed = turn_of(spec, n, HOLD), np.tile([1.0, 1.0, 77.0], (n, 1))
    model.outcomes(latent, turn, draws)
    np.testing.assert_array_equal(model.evolve(latent, turn, replayed, draws), np.tile([1.0, 1.0, 40.0], (n, 1)))


def test_endogenous_numbers_stay_within_the_log() -> None:
    spec = tiny_spec()
    model, n = model_of(spec), 3000
    assert model.context is not None
    model.context.biases[1][:] = [np.log(0.25), -50, np.log(0.75), 3.0, 1.0]
    latent, draws = begun(model, n)
    turn = turn_of(spec, n, HOLD)
    moved = model.evolve(latent, turn, turn.context, draws)[:, 2]
    assert (moved == 0).mean() == pytest.approx(0.25, abs=0.06)
    assert moved.min() == 0.0
    assert 99 < moved.max() <= 100
    centre = np.median(moved[moved > 0])
    assert centre == pytest.approx(100 * chance(np.log(0.405 / 0.595) + 3.0), abs=4)


def test_a_batch_equals_its_rows_stepped_alone() -> None:
    spec = tiny_spec()
    model, replay = model_of(spec), tiny_replay(spec)
    together = JourneyBatch(spec, model, replay, Draws.seeded(5, 6))
    alone = JourneyBatch(spec, model, replay, Draws.seeded(5 + 3, 1))
    together.reset()
    alone.reset()
    for _ in range(30):
        np.testing.assert_allclose(together.observation[3], alone.observation[0], rtol=1e-4)
        a, b = together.step(np.arange(6)), alone.step(np.array([3]))
        assert a.reward[3] == pytest.approx(b.reward[0])
        assert a.done[3] == b.done[0]
        together.reset(np.flatnonzero(a.done))
        alone.reset(np.flatnonzero(b.done))


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    spec = tiny_spec()
    model = model_of(spec)
    carryover = Carryover(np.array([1]), np.array([[-0.5, 0.0, 0.1, 0.2]], np.float32), np.array([7.0], np.float32))
    rng = np.random.default_rng(0)
    column = spec.encoder.size + np.arange(spec.attributes.size)
    query, key = rng.normal(size=(2, 3, 4 * 2)).astype(np.float32), rng.normal(size=(2, len(column), 2))
    effects = Effects(column, query, key.astype(np.float32))
    model.outcome = replace(model.outcome, carryover=carryover, effects=effects)
    model.save(tmp_path / "model.npz")
    again = EnsembleOutcomeModel.load(tmp_path / "model.npz", spec)
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]
    told = []
    for seen in (model, again):
        latent, draws = begun(seen, 100)
        events = seen.outcomes(latent, turn_of(spec, 100, 3), draws)
        context = seen.evolve(latent, turn_of(spec, 100, 3), np.zeros((100, 3)), draws)
        told.append((events.occurred_at.sum(), events.value.sum(), events.content.sum(), context.sum()))
    assert told[0] == told[1]
    assert again.outcome.carryover is not None
    np.testing.assert_array_equal(again.outcome.carryover.effect, carryover.effect)
    np.testing.assert_array_equal(again.outcome.carryover.column, carryover.column)
    np.testing.assert_array_equal(again.outcome.carryover.most, carryover.most)
    assert again.outcome.effects is not None
    for part in ("column", "query", "key"):
        np.testing.assert_array_equal(getattr(again.outcome.effects, part), getattr(effects, part))


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    spec, path = tiny_spec(), tmp_path / "model.npz"
    with pytest.raises(TrainingError, match="cannot be read"):
        EnsembleOutcomeModel.load(path, spec)
    model_of(spec).save(path)
    other = Spec.parse(TEXT.replace("[events.open]", "[events.opened]"))
    with pytest.raises(TrainingError, match="other event kinds"):
        EnsembleOutcomeModel.load(path, other)
    with np.load(path) as saved:
        arrays = {name: saved[name] for name in saved.files}
    header = arrays["header"].tobytes().replace(b'"format": 5', b'"format": 4')
    np.savez(path, **(arrays | {"header": np.frombuffer(header, np.uint8)}))
    with pytest.raises(TrainingError, match=r"found format 4, expected 5.*train again"):
        EnsembleOutcomeModel.load(path, spec)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(TrainingError, match="corrupt"):
        EnsembleOutcomeModel.load(path, spec)
    path.write_bytes(b"not a model")
    with pytest.raises(TrainingError, match="corrupt"):
        EnsembleOutcomeModel.load(path, spec)
    with pytest.raises(TrainingError, match="cannot be written"):
        model_of(spec).save(tmp_path / "nowhere" / "model.npz")
