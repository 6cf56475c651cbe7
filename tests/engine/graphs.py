"""Tiny real ONNX graphs that keep the policy contract: two towers, mask, softmax, exploration floor."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL


def policy_onnx(size: int, width: int = 8, seed: int = 0, floor: float = 0.05, mask_value: float = -1e9) -> bytes:
    """softmax over the eligible of tanh(observation W) · keys, mixed with `floor` of uniform over the eligible."""
    weights = np.random.default_rng(seed).normal(size=(size, width)) / np.sqrt(max(size, 1))
    nodes = [
        helper.make_node("MatMul", ["observation", "weights"], ["hidden"]),
        helper.make_node("Tanh", ["hidden"], ["query"]),
        helper.make_node("Transpose", ["keys"], ["columns"], perm=[1, 0]),
        helper.make_node("MatMul", ["query", "columns"], ["logits"]),
        helper.make_node("Where", ["mask", "logits", "minus"], ["allowed"]),
        helper.make_node("Softmax", ["allowed"], ["soft"], axis=-1),
        helper.make_node("Cast", ["mask"], ["one"], to=FLOAT),
        helper.make_node("ReduceSum", ["one", "axis"], ["count"], keepdims=1),
        helper.make_node("Div", ["one", "count"], ["even"]),
        helper.make_node("Mul", ["soft", "keep"], ["kept"]),
        helper.make_node("Mul", ["even", "floor"], ["explored"]),
        helper.make_node("Add", ["kept", "explored"], ["probabilities"]),
    ]
    constants = [
        numpy_helper.from_array(weights.astype(np.float32), "weights"),
        numpy_helper.from_array(np.array(mask_value, np.float32), "minus"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array(1.0 - floor, np.float32), "keep"),
        numpy_helper.from_array(np.array(floor, np.float32), "floor"),
    ]
    inputs = [_port("observation", FLOAT, "B", size), _port("keys", FLOAT, "n", width), _port("mask", BOOL, "B", "n")]
    return graph(nodes, inputs, [_port("probabilities", FLOAT, "B", "n")], constants)


def actions_onnx(attributes: int, width: int = 8, seed: int = 1) -> bytes:
    """keys = attributes W."""
    weights = np.random.default_rng(seed).normal(size=(attributes, width))
    nodes = [helper.make_node("MatMul", ["attributes", "weights"], ["keys"])]
    constants = [numpy_helper.from_array(weights.astype(np.float32), "weights")]
    return graph(nodes, [_port("attributes", FLOAT, "n", attributes)], [_port("keys", FLOAT, "n", width)], constants)


def constant_onnx(size: int, width: int, value: float) -> bytes:
    """A broken policy: every probability is `value`, whatever it sees."""
    nodes = [
        helper.make_node("Cast", ["mask"], ["one"], to=FLOAT),
        helper.make_node("Mul", ["one", "zero"], ["none"]),
        helper.make_node("Add", ["none", "value"], ["probabilities"]),
        helper.make_node("Identity", ["observation"], ["unused_observation"]),
        helper.make_node("Identity", ["keys"], ["unused_keys"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(0.0, np.float32), "zero"),
        numpy_helper.from_array(np.array(value, np.float32), "value"),
    ]
    inputs = [_port("observation", FLOAT, "B", size), _port("keys", FLOAT, "n", width), _port("mask", BOOL, "B", "n")]
    outputs = [
        _port("probabilities", FLOAT, "B", "n"),
        _port("unused_observation", FLOAT, "B", size),
        _port("unused_keys", FLOAT, "n", width),
    ]
    return graph(nodes, inputs, outputs, constants)


def graph(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> bytes:
    made = helper.make_graph(nodes, "test", inputs, outputs, constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _port(name: str, kind: int, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))
