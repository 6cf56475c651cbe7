"""What past contacts excite is found where it is, as large as it is, and not where it is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.records import Floats, Floats32
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from envs.excitation import Excitation, Traces, excited
from envs.laws import Layout, chance
from envs.networks import Networks
from envs.simulate import by_policy, simulate, write_log
from envs.worlds import world
from tests.envs.tiny import TinyWorld, tiny_replay, tiny_spec
from tests.training.played import play
from training.evidence import Evidence, evidence_of, streams_of, turns
from training.excited import beside, excitation_of, traces_of
from training.fit import fit_outcome_model, inputs_of
from training.journeys import Journeys
from training.likelihood import _excited_nll, outcome_loss
from training.logs import read_log
from training.members import OutcomeSettings
from training.regressions import polished
from training.rollout import constant_values

torch.set_num_threads(1)

SPEC = tiny_spec()
ORDER = SPEC.fold.kind_index("order")
SMALL = OutcomeSettings(members=2, hidden=16, least_steps=40)


@pytest.fixture(scope="module")
def log() -> Journeys:
    return play(SPEC, TinyWorld(SPEC), tiny_replay(SPEC, 1500, seed=0), 0)


def evidence(log: Journeys) -> tuple[Evidence, int]:
    """The log's evidence, and the stream of orders."""
    turn = turns(SPEC, log)
    streams = streams_of(SPEC, log, turn)
    place = next(s for s, law in enumerate(streams) if law.kind == ORDER and not law.answer)
    return evidence_of(SPEC, log, turn, inputs_of(SPEC, log), streams), place


def flat(found: Evidence, score: float) -> Networks:
    """One member to which everything has the same chance."""
    outputs = 200
    weights: Floats32 = np.zeros((1, found.inputs.shape[1], outputs), np.float32)
    links: Floats32 = np.zeros((1, found.told.shape[1], outputs), np.float32)
    return Networks((weights,), (np.full((1, outputs), score, np.float32),), links)


def drawn(found: Evidence, stream: int, chances: Floats, seed: int = 1) -> Evidence:
    """The evidence, had this stream happened with these chances."""
    counts = found.counts.copy()
    counts[:, stream] = np.random.default_rng(seed).random(len(counts)) < chances
    possible = found.possible.copy()
    possible[:, stream] = True
    return replace(found, counts=counts, possible=possible)


def test_a_rate_is_found_again(log: Journeys) -> None:
    """Orders excited by pushes alone, and by those of old customers more."""
    found, stream = evidence(log)
    streams = streams_of(SPEC, log, turns(SPEC, log))
    names = SPEC.encoder.names
    push, old = names.index("contact:push@1d"), log.observation[:, names.index("context:tier=old")]
    pushes = np.expm1(log.observation[:, push]).astype(np.float64)
    truth = pushes * (0.06 + 0.15 * old)
    made = drawn(found, stream, excited(np.full(len(truth), -3.5), truth))
    excitation = excitation_of(SPEC, log.observation, made, streams, flat(found, -3.0))
    assert excitation is not None
    seen = excitation.of(log.observation)[:, stream]
    assert np.corrcoef(seen, truth)[0, 1] > 0.95
    assert (seen @ truth) / (truth @ truth) == pytest.approx(1.0, abs=0.2)
    assert not any(excitation.rate[:, s].any() for s, law in enumerate(streams) if law.answer)


def test_luck_is_not_taken_for_excitation(log: Journeys) -> None:
    """Orders that come by themselves, with half of the odds that the background gives them; in ten logs."""
    found, stream = evidence(log)
    streams = streams_of(SPEC, log, turns(SPEC, log))
    alarms = 0
    for seed in range(10):
        made = drawn(found, stream, np.full(len(log), 0.05), seed)
        excitation = excitation_of(SPEC, log.observation, made, streams, flat(found, -2.2))
        alarms += excitation is not None and bool(excitation.rate[:, stream].any())
    assert alarms <= 1


def test_traces_tell_channel_content_pair_and_who() -> None:
    """In `delayed` the counts tell a guide by e-mail from one by push; no counter counts the former."""
    spec = world("delayed").spec
    traces = traces_of(spec)
    state = spec.fold.empty(1)
    for name, times in (("email/guide", 2), ("push/guide", 3), ("email/flash_sale", 1)):
        row = next(i for i, a in enumerate(spec.catalogue.actions) if str(a).startswith(name))
        for _ in range(times):
            spec.fold.add_contacts(state, *(np.array([x]) for x in (0, row, 0.0, 0.0)))
    zone = np.array([0])
    counts = [
        traces.of(spec.encoder.observe(state, np.array([[segment]]), np.zeros(1), zone))[0] for segment in (0.0, 1.0)
    ]
    third = len(traces) // 3
    assert (traces.trait[:third] == -1).all()
    everybody = counts[0][:third]
    assert {1, 2, 3, 5, 6} <= set(np.round(everybody[::2], 4))  # 2 of them only as a pair; at once no rise
    assert np.abs(everybody[1::2]).max() < 1e-4
    for segment, kinds in enumerate(([everybody, 0 * everybody], [0 * everybody, everybody])):
        np.testing.assert_allclose(counts[segment][third:], np.concatenate(kinds), atol=1e-6)


def test_counts_that_can_be_negative_excite_nothing() -> None:
    text = "[[contents]]\nid = 'dear'\nattributes = { discount = -0.1 }\n"
    spec = tiny_spec(text)
    names = {spec.encoder.names[i] for i in traces_of(spec).column}
    assert "content:dear@1d" in names
    assert not any(name.startswith("attribute:discount") for name in names)


@given(st.floats(-12.0, 12.0), st.floats(0.0, 4.0), st.booleans())
@settings(deadline=None)
def test_the_likelihood_is_that_of_the_chance(score: float, intensity: float, happened: bool) -> None:
    """Against numpy, and its slope in the score against a difference."""
    z = torch.tensor([score], dtype=torch.float64, requires_grad=True)
    e = torch.tensor([intensity], dtype=torch.float64)
    yes = torch.tensor([happened])
    loss = torch.nn.functional.binary_cross_entropy_with_logits(z, yes.double(), reduction="none")
    loss = loss + _excited_nll(z, e, yes)
    p = float(excited(np.array([score]), np.array([intensity]))[0])
    expected = -np.log(p) if happened else np.logaddexp(0.0, score) + intensity
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6, abs=1e-8)
    loss.backward()  # type: ignore[no-untyped-call]
    background = float(chance(np.array([score]))[0])
    slope = background * (1.0 if not happened else -(1.0 - p) / p)
    assert z.grad is not None
    assert float(z.grad) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_the_likelihood_is_finite_far_out() -> None:
    z = torch.tensor([-200.0, -200.0, 200.0, 200.0, 0.0], requires_grad=True)
    loss = _excited_nll(z, torch.tensor([0.0, 0.5, 0.5, 0.0, 0.0]), torch.tensor([True, True, True, False, True]))
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss).all()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    assert float(loss[4].detach()) == 0.0


def test_a_loss_without_excitation_is_the_loss(log: Journeys) -> None:
    """Zeros of an excitation that excites nothing cost nothing."""
    found, _ = evidence(log)
    streams = streams_of(SPEC, log, turns(SPEC, log))
    names = Traces(np.array([0]), np.ones((1, 1), np.float32), np.array([-1]))
    silent = Excitation(names, np.zeros((1, len(streams)), np.float32))
    paid, device, rows = SPEC.reward.each != 0, torch.device("cpu"), torch.arange(50)
    output = torch.randn(50, Layout.of(streams).size, generator=torch.Generator().manual_seed(0))
    plain, same, more = (
        outcome_loss(beside(found, e, log.observation), streams, paid, device)(output, rows)
        for e in (None, silent, replace(silent, rate=silent.rate + 0.1))
    )
    assert torch.equal(plain, same)
    assert not torch.allclose(plain, more)


def test_the_level_beside_an_excitation_is_the_logs(log: Journeys) -> None:
    """The closing regressions know of it: networks that say too much are brought down to what the log leaves them."""
    learned = fit_outcome_model(SPEC, log, log, SMALL)
    turn = turns(SPEC, log)
    found = evidence_of(SPEC, log, turn, learned.inputs, learned.streams)
    push = SPEC.encoder.names.index("contact:push@7d")
    stream = next(s for s, law in enumerate(learned.streams) if law.kind == ORDER)
    rate: Floats32 = np.zeros((1, len(learned.streams)), np.float32)
    rate[0, stream] = 0.02
    excitation = Excitation(Traces(np.array([push]), np.ones((1, 1), np.float32), np.array([-1])), rate)
    networks = replace(learned.outcome, excitation=excitation)
    networks = polished(networks, beside(found, excitation, turn.observation), learned.streams)
    assert networks.excitation is excitation
    model = EnsembleOutcomeModel(SPEC, learned.streams, learned.evolutions, learned.inputs, networks, learned.context)
    chances = model.probabilities(turn, found.told[:, : model.layout.told])[:, ORDER]
    assert chances.mean() == pytest.approx((log.counts[:, ORDER] > 0).mean(), rel=0.01)


def learned_values(name: str, customers: int, tmp_path: Path) -> tuple[Spec, Floats, bool]:
    """What the environment gives to constants, and whether anything is excited in it."""
    place = world(name)
    replay = place.replay(customers, 28, 0)
    log = simulate(place, replay, by_policy(place.logging_policy(), customers, 0), place.spec, 0)
    write_log(tmp_path / "log", place.spec, log, "log", {"world": place.name})
    journeys = Journeys.of(place.spec, read_log(place.spec, tmp_path / "log"))
    model = fit_outcome_model(place.spec, *journeys.split(0)[:2])
    worth = constant_values(place.spec, model, replay.some(1_000, 1), np.arange(len(place.spec.catalogue)), seed=1)
    return place.spec, worth, model.outcome.excitation is not None


def test_a_week_later_adds_up(tmp_path: Path) -> None:
    """In `delayed` a guide every day is worth 29 by e-mail and 26 by push, hold 10; networks alone said 10 to 17."""
    _, worth, any_excited = learned_values("delayed", 5_000, tmp_path)
    assert any_excited
    hold, _, email, push = worth
    assert email - hold > 10.0
    assert push - hold > 8.0


def test_where_nothing_comes_later_nothing_is_excited(tmp_path: Path) -> None:
    _, _, any_excited = learned_values("fatigue", 1_000, tmp_path)
    assert not any_excited
