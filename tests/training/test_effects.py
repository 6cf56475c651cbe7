"""What an action's attributes do adds up, so that a content that no log has seen is worth what it is made of."""

from dataclasses import replace

import numpy as np
import torch

from engine.records import Floats
from envs.disagreement import member_worths
from envs.effects import Effects
from envs.networks import Networks
from envs.worlds import world
from tests.training.known_logs import logged
from training.clone import FitSettings, clone_behaviour
from training.evidence import turns
from training.fit import fit_outcome_model
from training.members import Members, OutcomeSettings, Sample, Start
from training.network import NetworkPolicy

torch.set_num_threads(1)


def test_effects_are_a_sum_over_the_attributes() -> None:
    """[B, S] by hand; and what two attributes do together is what each does."""
    rng = np.random.default_rng(0)
    members, hidden, streams, attributes, rank = 3, 4, 2, 5, 8
    query = rng.normal(size=(members, hidden, streams * rank)).astype(np.float32)
    key = rng.normal(size=(members, attributes, rank)).astype(np.float32)
    effects = Effects(np.arange(2, 2 + attributes), query, key)
    seen, inputs = rng.normal(size=(6, hidden)).astype(np.float32), rng.normal(size=(6, 9)).astype(np.float32)
    by_hand = np.einsum("bh,hse,ke,bk->bs", seen, query[1].reshape(hidden, streams, rank), key[1], inputs[:, 2:7])
    np.testing.assert_allclose(effects.of(1, seen, inputs), by_hand, rtol=1e-4)

    def worth(*present: int) -> Floats:
        told = np.zeros_like(inputs)
        told[:, [2 + k for k in present]] = 1.0
        return np.asarray(effects.of(1, seen, told), np.float64)

    np.testing.assert_allclose(worth(0, 3), worth(0) + worth(3), rtol=1e-4)


def test_what_is_trained_is_what_numpy_runs() -> None:
    rng = np.random.default_rng(1)
    inputs, told = rng.normal(size=(50, 9)).astype(np.float32), np.zeros((50, 0), np.float32)
    links = np.zeros((0, 1))
    start = Start(np.zeros(4), links, links > 0.0, np.arange(3), attributes=np.arange(4, 9), streams=2)

    def loss(output: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return (output - 1.0).square().sum(1)

    sample = Sample.of(inputs, told, loss, np.arange(50), torch.device("cpu"))
    members = Members(sample.inputs, start, OutcomeSettings(members=2, hidden=8))
    for _ in range(5):
        members.learn(sample, np.arange(100).reshape(2, 50) % 50, 1.0)
    found: Networks = members.networks(members.copy())
    assert found.effects is not None
    assert found.effects.streams == 2
    without = replace(found, effects=None)
    judged = members.judged(sample, np.arange(50))
    for m in range(2):
        output = found.run(inputs, np.full(50, m))
        np.testing.assert_allclose(np.square(output - 1.0).sum(axis=1), judged[m], rtol=1e-4)
        assert np.abs(output - without.run(inputs, np.full(50, m)))[:, :2].min() > 0.0
        np.testing.assert_array_equal(output[:, 2:], without.run(inputs, np.full(50, m))[:, 2:])


def test_an_attribute_that_no_decision_had_does_nothing() -> None:
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(50, 9)).astype(np.float32)
    inputs[:, 6] = 0.0
    links = np.zeros((0, 1))
    start = Start(np.zeros(4), links, links > 0.0, np.arange(3), attributes=np.arange(4, 9), streams=2)
    sample = Sample.of(
        inputs, inputs[:, :0], lambda output, rows: output.square().sum(1), np.arange(50), torch.device("cpu")
    )
    members = Members(sample.inputs, start, OutcomeSettings(members=2, hidden=8))
    members.learn(sample, np.arange(100).reshape(2, 50) % 50, 1.0)
    key = members.copy()[8]
    np.testing.assert_array_equal(key[:, 2], 0.0)
    assert np.abs(np.delete(key, 2, axis=1)).min() > 0.0


def test_a_content_that_no_log_has_seen_is_worth_what_it_is_made_of() -> None:
    """Video and sale each were sent, never together: both together are worth most; neither, with the other's topic,
    least. The log holds four contents, which explain it in any of many ways.
    """
    place = world("new_content")
    spec = place.spec
    train, valid = logged(place, 4_000)
    clone = clone_behaviour(spec, train, valid, FitSettings(seed=1, epochs=5))
    behaviour = NetworkPolicy(clone.network, spec.attributes.encode(spec.catalogue))
    model = fit_outcome_model(spec, train, valid, OutcomeSettings(seed=1, members=2), behaviour=behaviour)
    turn = turns(spec, valid)
    sport = valid.observation[:, spec.encoder.names.index("context:segment=sport")] > 0
    found = dict[tuple[str, str], float]()
    for row in range(1, len(spec.catalogue)):
        asked = replace(turn, action=np.full(len(valid), row), send_at=turn.now)
        worth = member_worths(model, asked).mean(axis=0)
        content = spec.catalogue.contents[spec.catalogue.content[row]].id
        found["sport", content], found["garden", content] = float(worth[sport].mean()), float(worth[~sport].mean())
    for segment in ("sport", "garden"):
        known = [found[segment, content] for content in ("sport_news", "sport_video", "garden_video", "garden_sale")]
        assert found[segment, f"{segment}_video_sale"] > 1.25 * max(known)
    assert found["sport", "garden_news"] < 0.6 * found["sport", "sport_news"]
