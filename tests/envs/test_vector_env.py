from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.monitor import Monitor

from engine.errors import TrainingError
from envs.journey_env import JourneyEnv
from envs.vector_env import VectorJourneyEnv
from tests.envs.tiny import CAP, TinyWorld, tiny_replay, tiny_spec

SPEC = tiny_spec(CAP)
REPLAY = tiny_replay(SPEC, journeys=9)


def vector_of(n: int = 4, seed: int = 0, churn: float = 0.05, scale: float = 1.0) -> VectorJourneyEnv:
    return VectorJourneyEnv(SPEC, TinyWorld(SPEC, churn), REPLAY, n, seed, scale)


@given(
    seed=st.integers(0, 2**32), row=st.integers(0, 6), choices=st.integers(0, 2**31), churn=st.sampled_from([0, 0.3])
)
@settings(max_examples=12, deadline=None)
def test_a_row_goes_through_what_the_single_environment_goes_through(
    seed: int, row: int, choices: int, churn: float
) -> None:
    together = vector_of(7, seed, churn)
    alone = JourneyEnv(SPEC, TinyWorld(SPEC, churn), REPLAY, illegal="raise")
    many: Any = together.reset()
    one, _ = alone.reset(seed=seed + row)
    rng = np.random.default_rng(choices)
    for _ in range(12):
        np.testing.assert_array_equal(many[row], one)
        masks = np.stack(together.env_method("action_masks"))
        np.testing.assert_array_equal(masks[row], alone.action_masks())
        action = (rng.random(masks.shape) * masks).argmax(axis=1)
        many, rewards, dones, infos = together.step(action)
        one, reward, terminated, truncated, _ = alone.step(action[row])
        assert rewards[row] == np.float32(reward)
        assert dones[row] == (terminated or truncated)
        if dones[row]:
            np.testing.assert_array_equal(infos[row]["terminal_observation"], one)
            assert infos[row]["TimeLimit.truncated"] == truncated
            one, _ = alone.reset()


def test_the_seed_method_starts_the_same_journeys_again() -> None:
    env = vector_of(seed=1)
    env.reset()
    env.seed(9)
    np.testing.assert_array_equal(env.reset(), vector_of(seed=9).reset())


def test_options_choose_journeys() -> None:
    env = vector_of()
    env.set_options([{"journey": "c8"}, {}, {"journey": 2}, {}])
    env.reset()
    assert list(env._batch.journey[[0, 2]]) == [8, 2]


def test_episodes_are_accounted_for() -> None:
    env, scaled = vector_of(6, churn=0.0), vector_of(6, churn=0.0, scale=0.25)
    env.reset()
    scaled.reset()
    sums, lengths, finished = np.zeros(6), np.zeros(6, int), 0
    for _ in range(14):
        start = env._batch.now.copy()
        _, rewards, dones, infos = env.step(np.zeros(6))
        np.testing.assert_allclose(scaled.step(np.zeros(6))[1], rewards / 4, rtol=1e-6)
        sums, lengths = sums + rewards, lengths + 1
        assert (start < env._batch.now).all() or dones.any()
        for row in np.flatnonzero(dones):
            told = infos[row]["episode"]
            assert told["r"] == pytest.approx(sums[row], rel=1e-5)
            assert told["l"] == lengths[row]
            assert told["discounted"] <= told["r"] + 1e-9
            sums[row], lengths[row], finished = 0.0, 0, finished + 1
        assert not any(infos[row] for row in np.flatnonzero(~dones))
    assert finished > 6


def test_the_discounted_return_is_the_sum_with_the_discount_per_day() -> None:
    env = vector_of(1, seed=4, churn=0.0)
    env.reset()
    expected, day = 0.0, 0
    while True:
        _, rewards, dones, infos = env.step(np.zeros(1))
        expected, day = expected + rewards[0] * 0.9**day, day + 1
        if dones[0]:
            break
    assert expected != 0.0
    assert infos[0]["episode"]["discounted"] == pytest.approx(expected, rel=1e-5)


def test_what_sb3_asks_for() -> None:
    env = vector_of(3)
    env.reset()
    assert is_masking_supported(env)
    assert get_action_masks(env).shape == (3, 9)
    assert env.env_is_wrapped(Monitor) == [True, True, True]
    assert env.get_attr("render_mode", [0, 2]) == [None, None]
    assert not env.has_attr("nothing")
    assert len(env.env_method("action_masks", indices=1)) == 1
    env.set_attr("reward_scale", 2.0)
    assert env.get_attr("reward_scale", 0) == [2.0]
    with pytest.raises(AttributeError, match="expected all"):
        env.set_attr("reward_scale", 2.0, [0])
    with pytest.raises(AttributeError, match="nonsense"):
        env.env_method("nonsense")


def test_a_forbidden_action_is_an_error() -> None:
    env = vector_of(3, churn=0.0)
    env.set_options({"journey": int(REPLAY.length.argmax())})
    env.reset()
    for _ in range(2):
        env.step(np.ones(3))
    with pytest.raises(TrainingError, match="cap:weekly"):
        env.step(np.ones(3))


def test_maskable_ppo_learns_in_it() -> None:
    torch.set_num_threads(1)
    env = vector_of(64, churn=0.0, scale=0.1)
    model = MaskablePPO("MlpPolicy", env, n_steps=16, batch_size=512, n_epochs=4, learning_rate=5e-3, seed=0, gamma=0.9)
    before: Any = evaluate_policy(model, env, 400, deterministic=False)[0]
    model.learn(6_144)
    assert len(model.ep_info_buffer or []) == 100
    after: Any = evaluate_policy(model, env, 400, deterministic=False)[0]
    assert after > before + 0.8
