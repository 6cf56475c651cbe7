from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from engine.bundle import Bundle
from engine.errors import BundleError, TrainingError
from engine.policy import OnnxPolicy
from engine.records import Floats32
from tests.training.small_log import SPEC
from training import export
from training.network import Shape, TwoTower, constant, hold, uniform

ATTRIBUTES = SPEC.attributes.encode(SPEC.catalogue)
SIZE = SPEC.encoder.size


def network(seed: int = 0) -> TwoTower:
    torch.manual_seed(seed)
    made = TwoTower(Shape(SIZE, SPEC.attributes.size, embedding=8, hidden=16), temperature=0.7, epsilon=0.05)
    observation = np.random.default_rng(seed).normal(1.0, 2.0, (100, SIZE)).astype(np.float32)
    return made.fit_normaliser(observation, ATTRIBUTES)


def policy_of(made: TwoTower, attributes: Floats32 = ATTRIBUTES) -> OnnxPolicy:
    return OnnxPolicy(export.policy_onnx(made), export.actions_onnx(made), attributes, "v")


@pytest.mark.parametrize(
    "made",
    [
        network(),
        uniform(Shape(SIZE, SPEC.attributes.size)),
        hold(ATTRIBUTES, SIZE),
        constant(2, ATTRIBUTES, SIZE),
    ],
    ids=["network", "uniform", "hold", "constant"],
)
def test_every_candidate_is_the_same_in_onnx(made: TwoTower) -> None:
    assert export.parity(made, policy_of(made), ATTRIBUTES) < 1e-6


def test_parity_sees_a_graph_that_is_not_this_network() -> None:
    assert export.parity(network(0), policy_of(network(1)), ATTRIBUTES) > 1e-2


def test_the_graph_takes_any_batch_and_any_catalogue() -> None:
    policy, rng = policy_of(network()), np.random.default_rng(0)
    more = np.concatenate([ATTRIBUTES, rng.random((40, SPEC.attributes.size)).astype(np.float32)])
    other = policy.with_catalogue(more)
    for rows in (1, 2, 33):
        observation = rng.normal(size=(rows, SIZE)).astype(np.float32)
        mask = rng.random((rows, len(more))) < 0.3
        mask[:, 0] = True
        found = other.probabilities(observation, mask)
        assert found.shape == (rows, len(more))
        assert np.allclose(found.sum(1), 1.0, atol=1e-5)
        assert (found[~mask] == 0).all()


def test_only_hold_left_and_nothing_left() -> None:
    session = onnxruntime.InferenceSession(export.policy_onnx(network()))
    keys = np.zeros((4, 8), np.float32)
    mask = np.array([[True, False, False, False], [False] * 4])
    (found,) = session.run(None, {"observation": np.zeros((2, SIZE), np.float32), "keys": keys, "mask": mask})
    assert found.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]


def test_a_bundle_loads_as_it_was_written_and_its_card_tells(tmp_path: Path) -> None:
    made = network()
    made.forget(SPEC.attributes.identity, 1.0, torch.Generator().manual_seed(0))
    written = export.export_bundle(made, SPEC, {"name": "test"}, tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle")
    assert loaded.version == written.version
    assert loaded.card["name"] == "test"
    assert loaded.card["parity"] < 1e-6
    assert loaded.card["exploration"] == 0.05
    assert loaded.card["versions"]["torch"] == torch.__version__
    # What was hidden in training is known again in what is served.
    assert export.parity(network(), loaded.policy, ATTRIBUTES) < 1e-6


def test_a_corrupt_graph_is_caught_at_load(tmp_path: Path) -> None:
    export.export_bundle(network(), SPEC, {}, tmp_path / "bundle")
    file = tmp_path / "bundle" / "policy.onnx"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(BundleError, match=r"policy\.onnx"):
        Bundle.load(tmp_path / "bundle")


def test_a_difference_between_torch_and_onnx_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = network(1)
    monkeypatch.setattr(export, "policy_onnx", lambda made, real=export.policy_onnx: real(other))
    with pytest.raises(TrainingError, match="differ from the trained ones by"):
        export.export_bundle(network(0), SPEC, {}, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_layer_is_named() -> None:
    made = network()
    made.query_tower.append(nn.Sigmoid())
    with pytest.raises(TrainingError, match=r"layer query\.5: found Sigmoid"):
        export.policy_onnx(made)
