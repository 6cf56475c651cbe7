"""Every world in Gymnasium and Stable-Baselines3, and through the verb `simulate`."""

import json
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import nextbest
from engine.bundle import write_bundle
from engine.errors import BundleError
from envs.journey_env import JourneyEnv
from envs.simulate import run
from envs.small.world import START
from envs.worlds import NAMES, world
from tests.engine.graphs import actions_onnx, policy_onnx
from tests.envs.small_worlds import SMALL, small

HEADINGS = "Description, Action Space, Observation Space, Rewards, Starting State, Episode End, Arguments"
"""As Gymnasium's own environments have them."""

IDS = {
    "retail": "nextbest/Retail-v0",
    "fatigue": "nextbest/Fatigue-v0",
    "null": "nextbest/Null-v0",
    "confounded": "nextbest/Confounded-v0",
    "delayed": "nextbest/Delayed-v0",
    "rare": "nextbest/Rare-v0",
    "drift": "nextbest/Drift-v0",
    "new_content": "nextbest/NewContent-v0",
}


def made(name: str, seed: int = 0, start: float | None = None) -> JourneyEnv:
    env = gymnasium.make(IDS[name], customers=5, days=4, seed=seed, start=start).unwrapped
    assert isinstance(env, JourneyEnv)
    return env


@pytest.mark.parametrize("name", NAMES)
def test_gymnasium_and_sb3_find_nothing_to_complain_about(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(made(name), skip_render_check=True)
        sb3_check_env(made(name))


def test_every_world_has_an_id_and_no_other() -> None:
    registered = {spec for spec in gymnasium.registry if spec.startswith("nextbest/")}
    assert registered == {*IDS.values(), "nextbest/Journey-v0"}
    assert tuple(IDS) == NAMES == nextbest.WORLDS


@pytest.mark.parametrize("name", SMALL)
def test_the_docstring_has_gymnasiums_headings_and_says_the_size(name: str) -> None:
    text = type(small(name)).__doc__ or ""
    for heading in HEADINGS.split(", "):
        assert f"## {heading}\n" in text, heading
    assert f"Discrete({len(small(name).spec.catalogue)})" in text
    assert IDS[name] in text


def test_the_arguments_are_those_of_the_replay() -> None:
    env = made("new_content", seed=3, start=START)
    info = env.reset(seed=1)[1]
    assert info["customer_id"].startswith("c3-")
    assert info["now"] == START
    assert env.action_masks().sum() == 5
    later = made("new_content", seed=3, start=START + 30 * 86_400.0)
    later.reset(seed=1)
    assert later.action_masks().all()
    ended = [later.step(np.int64(1))[2:4] for _ in range(4)]
    assert ended == [(False, False)] * 3 + [(False, True)]


@pytest.mark.parametrize("name", SMALL)
def test_the_verbs_write_a_log_that_passes(name: str, tmp_path: Path) -> None:
    place, log = small(name), tmp_path / "log"
    words = ["simulate", "--world", name, "--customers", "60", "--seed", "4", "--out", str(log)]
    said = CliRunner().invoke(nextbest.main, words)
    assert said.exit_code == 0, said.output
    assert json.loads((log / "world.json").read_text())["world"] == name
    assert pq.read_table(log / "decisions.parquet").num_rows == 60 * 28
    checked = CliRunner().invoke(nextbest.main, ["check", str(log / "nextbest.toml"), "--log", str(log)])
    assert checked.exit_code == 0, checked.output
    assert "passed" in checked.output
    graphs = policy_onnx(place.spec.encoder.size), actions_onnx(place.spec.attributes.size)
    bundle = write_bundle(tmp_path / "bundle", *graphs, place.spec, place.spec.attributes, {})
    again = CliRunner().invoke(nextbest.main, [*words, "--policy", str(tmp_path / "bundle")])
    assert again.exit_code == 0, again.output
    policies = pq.read_table(log / "decisions.parquet")["policy"].unique().to_pylist()
    assert policies == [bundle.version]


def test_a_bundle_of_another_world_is_refused(tmp_path: Path) -> None:
    spec = small("rare").spec
    graphs = policy_onnx(spec.encoder.size), actions_onnx(spec.attributes.size)
    write_bundle(tmp_path / "bundle", *graphs, spec, spec.attributes, {})
    with pytest.raises(BundleError, match="another spec than that of world 'fatigue'"):
        run("fatigue", tmp_path / "log", 5, 3, 1, tmp_path / "bundle")
    assert not (tmp_path / "log").exists()


def test_help_lists_the_worlds() -> None:
    shown = " ".join(CliRunner().invoke(nextbest.main, ["simulate", "--help"]).output.split())
    assert ", ".join(NAMES) in shown
    assert [world(name).name for name in NAMES] == list(NAMES)
