import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import envs  # noqa: F401  registers the environments
from engine.errors import CatalogueError, TrainingError
from envs.journey_env import JourneyEnv
from tests.envs.tiny import CAP, START, TinyWorld, tiny_replay, tiny_spec


def env_of(rules: str = "", churn: float = 0.05, illegal: Any = "replace", **replay: int) -> JourneyEnv:
    spec = tiny_spec(rules)
    return JourneyEnv(spec, TinyWorld(spec, churn), tiny_replay(spec, **replay), illegal=illegal)


@pytest.mark.parametrize("rules", ["", CAP])
def test_gymnasium_and_sb3_find_nothing_to_complain_about(rules: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env_of(rules), skip_render_check=True)
        sb3_check_env(env_of(rules))
        spec = tiny_spec(rules)
        made = gymnasium.make("nextbest/Journey-v0", spec=spec, model=TinyWorld(spec), replay=tiny_replay(spec))
        check_env(made.unwrapped)
        made.reset(seed=1)
        made.step(made.action_space.sample())


def test_the_docstring_has_the_headings() -> None:
    text = JourneyEnv.__doc__ or ""
    wanted = (
        "Description, Observation Space, Action Space, Rewards, Starting State, Episode End, Information, Arguments"
    )
    for heading in wanted.split(", "):
        assert f"## {heading}\n" in text


def test_terminated_and_truncated_are_two_things() -> None:
    env = env_of(churn=1.0)
    env.reset(seed=0)
    assert env.step(np.int64(0))[2:4] == (True, False)
    env = env_of(churn=0.0, longest=3, shortest=3)
    env.reset(seed=0)
    assert [env.step(np.int64(0))[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]
    with pytest.raises(TrainingError, match="over"):
        env.step(np.int64(0))


def test_the_seed_decides_and_episodes_differ() -> None:
    def play(seed: int) -> list[tuple[int, float]]:
        env = env_of()
        env.reset(seed=seed)
        told: list[tuple[int, float]] = []
        for _ in range(30):
            _, reward, terminated, truncated, info = env.step(np.int64(3))
            told.append((info["journey"], reward))
            if terminated or truncated:
                env.reset()
        return told

    assert play(5) == play(5)
    assert play(5) != play(6)
    assert len({journey for journey, _ in play(5)}) > 2


def test_options_choose_the_journey() -> None:
    env = env_of()
    assert env.reset(seed=1, options={"journey": "c3"})[1]["journey"] == 3
    info = env.reset(options={"journey": 5})[1]
    assert info["customer_id"] == "c5"
    assert info["index"] == 0
    assert START <= info["now"] < START + 3600
    for wrong in ("nobody", 7, -1, 1.5):
        with pytest.raises(TrainingError, match=r"options\.journey"):
            env.reset(options={"journey": wrong})


def test_a_forbidden_action_is_replaced_or_refused() -> None:
    for illegal in ("replace", "raise"):
        env = env_of(CAP, churn=0.0, illegal=illegal, longest=4, shortest=4)
        env.reset(seed=0)
        for _ in range(2):
            assert env.step(np.int64(1))[4]["replaced"] is False
        assert not env.action_masks()[1]
        if illegal == "replace":
            info = env.step(np.int64(1))[4]
            assert (info["action"], info["replaced"]) == (0, True)
        else:
            with pytest.raises(TrainingError, match="cap:weekly"):
                env.step(np.int64(1))


def test_an_action_that_does_not_exist_is_refused() -> None:
    env = env_of()
    env.reset(seed=0)
    for row in (-1, 9):
        with pytest.raises(CatalogueError, match=f"found row {row}, expected 0 to 8"):
            env.step(np.int64(row))


def test_the_info_tells_what_happened() -> None:
    env = env_of(churn=1.0)
    info: dict[str, Any] = env.reset(seed=0)[1]
    start, end = info["now"], info["until"]
    events = env.step(np.int64(0))[4]["events"]
    assert events[-1][0] == "churn"
    assert all(start < at <= end for _, at, _ in events)
