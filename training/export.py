"""From a trained network to the bundle that is served: two ONNX graphs, a card, and the proof of parity with torch.

The graphs are written layer by layer (a tower is linear layers and ReLU) instead of traced by torch, whose exporter was
measured at 2.4 s a graph and warns on its own account; this takes milliseconds. The
parity check on random input is what makes either way trustworthy.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from torch import nn

from engine.bundle import Bundle, write_bundle
from engine.errors import TrainingError
from engine.policy import OnnxPolicy
from engine.records import Bools, Floats32
from engine.spec import Spec
from training.network import CLIP, MASKED, UNSEEN, TwoTower

PARITY = 1e-4
"""Largest difference between a probability from torch and from onnxruntime that is still float32 arithmetic: a sharp
policy has logits of a few hundred, of which float32 keeps five digits behind the point. A wrong graph is far off.
"""

OPSET, IR = 18, 9
"""Old enough for any onnxruntime of the last years."""


class _Graph:
    """An ONNX graph that grows node by node; values are named after the operation that made them."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: NDArray[Any], name: str) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def number(self, value: float, name: str) -> str:
        return self.constant(np.array(value, np.float32), name)

    def add(self, operation: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [output], **attributes))
        return output

    def tower(self, value: str, tower: nn.Sequential, name: str) -> str:
        for i, layer in enumerate(tower):
            if isinstance(layer, nn.Linear):
                weight = self.constant(layer.weight.detach().numpy(), f"{name}.{i}.weight")
                bias = self.constant(layer.bias.detach().numpy(), f"{name}.{i}.bias")
                value = self.add("Gemm", value, weight, bias, transB=1)
            elif isinstance(layer, nn.ReLU):
                value = self.add("Relu", value)
            else:
                raise TrainingError(f"layer {name}.{i}: found {type(layer).__name__}, can export Linear and ReLU")
        return value

    def bytes(self, name: str, inputs: list[onnx.ValueInfoProto], output: onnx.ValueInfoProto) -> bytes:
        graph = helper.make_graph(self.nodes, name, inputs, [output], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        model.producer_name = "nextbest"
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))


def actions_onnx(network: TwoTower) -> bytes:
    """`attributes` float32 [n, k] → `keys` float32 [n, e]."""
    graph = _Graph()
    scaled = graph.add("Div", "attributes", graph.constant(network.scale.numpy(), "scale"))
    keys = graph.tower(scaled, network.key_tower, "key")
    graph.add("Identity", keys, output="keys")
    attributes = _array("attributes", ["actions", network.shape.attributes])
    return graph.bytes("actions", [attributes], _array("keys", ["actions", network.shape.embedding]))


def policy_onnx(network: TwoTower) -> bytes:
    """`observation` float32 [B, d], `keys` float32 [n, e], `mask` bool [B, n] → `probabilities` float32 [B, n].

    The same formula as `TwoTower.probabilities`: normaliser, query, dot product, mask, temperature, exploration floor.
    """
    graph, shape = _Graph(), network.shape
    centred = graph.add("Sub", "observation", graph.constant(network.mean.numpy(), "mean"))
    scaled = graph.add("Div", centred, graph.constant(network.std.numpy(), "std"))
    clipped = graph.add("Clip", scaled, graph.number(-CLIP, "lowest"), graph.number(CLIP, "highest"))
    query = graph.tower(clipped, network.query_tower, "query")
    scaled_keys = graph.add("Div", "keys", graph.number(shape.embedding**0.5 * network.temperature, "temperature"))
    scores = graph.add("MatMul", query, graph.add("Transpose", scaled_keys, perm=[1, 0]))
    soft = graph.add("Softmax", graph.add("Where", "mask", scores, graph.number(MASKED, "masked")), axis=1)
    eligible = graph.add("Cast", "mask", to=TensorProto.FLOAT)
    count = graph.add("ReduceSum", eligible, graph.constant(np.array([1], np.int64), "axis"), keepdims=1)
    floor = graph.add("Div", eligible, graph.add("Max", count, graph.number(1.0, "one")))
    mixed = graph.add(
        "Add",
        graph.add("Mul", soft, graph.number(1.0 - network.epsilon, "exploit")),
        graph.add("Mul", floor, graph.number(network.epsilon, "explore")),
    )
    graph.add("Mul", mixed, eligible, output="probabilities")
    inputs = [
        _array("observation", ["batch", shape.observation]),
        _array("keys", ["actions", shape.embedding]),
        _array("mask", ["batch", "actions"], TensorProto.BOOL),
    ]
    return graph.bytes("policy", inputs, _array("probabilities", ["batch", "actions"]))


def parity(network: TwoTower, policy: OnnxPolicy, attributes: Floats32, seed: int = 0, rows: int = 256) -> float:
    """Largest |torch − ONNX| over the probabilities of random observations and masks, hold-only masks among them."""
    rng = np.random.default_rng(seed)
    mean, std = network.mean.numpy(), np.where(network.std < UNSEEN, network.std, 1.0)
    # Three deviations wide, so that the cut at ±5 is met too.
    observation = (mean + 3.0 * std * rng.standard_normal((rows, network.shape.observation))).astype(np.float32)
    mask: Bools = rng.random((rows, len(attributes))) < rng.random((rows, 1))
    mask[:, 0] = True
    mask[: rows // 8, 1:] = False
    with torch.no_grad():
        expected = network(torch.from_numpy(observation), torch.from_numpy(attributes), torch.from_numpy(mask)).numpy()
    return float(np.abs(expected - policy.probabilities(observation, mask)).max())


def export_bundle(network: TwoTower, spec: Spec, card: Mapping[str, Any], folder: Path) -> Bundle:
    """Write a network as the bundle `folder`; the card gains parity, temperature, exploration and versions.

    Raises TrainingError, before anything is written, when ONNX and torch differ by more than PARITY.
    """
    network = network.eval()
    network.remember()
    attributes = spec.attributes.encode(spec.catalogue)
    policy_graph, actions_graph = policy_onnx(network), actions_onnx(network)
    difference = parity(network, OnnxPolicy(policy_graph, actions_graph, attributes, "parity"), attributes)
    if not difference <= PARITY:
        what = f"{card.get('name', 'policy')}: the exported probabilities differ from the trained ones by"
        raise TrainingError(f"{what} {difference:.2g}, expected at most {PARITY:g}; nothing was written")
    full = dict(card) | {
        "parity": difference,
        "temperature": network.temperature,
        "exploration": network.epsilon,
        "versions": {"torch": torch.__version__, "onnx": onnx.__version__, "numpy": np.__version__},
    }
    return write_bundle(folder, policy_graph, actions_graph, spec, spec.attributes, full)


def run(model: str, out: Path, store: Path = Path("mlruns")) -> None:
    """The `export` verb: copy the bundle of a registered model (`retail@champion`, `retail/3`) to the folder `out`."""
    from training.tracking import Tracking

    version, run_id, folder = Tracking(store).registered(model)
    bundle = Bundle.load(folder)
    if out.exists() and any(out.iterdir()):
        raise TrainingError(f"{out}: is not empty; choose another folder")
    # Written anew rather than copied, so that the folder is whole or not there.
    copy = write_bundle(
        out,
        (folder / "policy.onnx").read_bytes(),
        (folder / "actions.onnx").read_bytes(),
        bundle.spec,
        bundle.attributes,
        bundle.card,
    )
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]{model}[/] is version {version}, policy {copy.version} (run {run_id})")
    if copy.caution:
        console.print(f"[red]{copy.caution}[/]", highlight=False)
    serve = ["nextbest", "serve", str(out), "--store", str(out.parent / f"{bundle.spec.name}.db")]
    console.print(f"bundle: {out}\nnext:   {shlex.join(serve)}", markup=False)


def _array(name: str, shape: list[str | int], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)
