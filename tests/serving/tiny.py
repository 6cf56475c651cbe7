"""A small company: its spec, and a bundle whose two ONNX graphs are written by hand."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.bundle import Bundle, write_bundle
from engine.encoding import AttributeSchema
from engine.spec import Spec

SPEC = """
name = "tiny"

[journey]
moments = ["daily", "cart_abandoned"]

[context.loyalty]
type = "category"
categories = ["new", "regular"]
evolves = "static"

[context.stock]
type = "number"
minimum = 0.0
optional = true

[context.on_site]
type = "flag"
optional = true

[events.page_view]
value = "seconds"
[events.click]
response = true
[events.order]
value = "euros"
[events.subscribe]
consent = "granted"
[events.unsubscribe]
consent = "withdrawn"

[channels.email]
consent = "opt_out"
cost = 0.01
[channels.sms]
consent = "opt_in"
cost = 0.05
[channels.push]
consent = "none"

[timings.now]
delay_hours = 0
[timings.in_an_hour]
delay_hours = 1

[[contents]]
id = "reminder"
attributes = { kind = "reminder", discount = 0.0 }
[[contents]]
id = "coupon"
cost = 1.0
attributes = { kind = "discount", discount = 0.1 }

[[guardrails.caps]]
name = "all_per_week"
limit = 3
window_days = 7.0
[[guardrails.caps]]
name = "email_per_day"
limit = 1
window_days = 1.0
channels = ["email"]
[[guardrails.eligibility]]
name = "coupon_for_regulars"
contents = ["coupon"]
require = [{ feature = "loyalty", is = ["regular"] }]

[reward.events.order]
per_value = 0.3
"""

KEY = 4


def tiny_bundle(folder: Path, text: str = SPEC, seed: int = 0) -> Bundle:
    """A real bundle: random towers, masked softmax, one tenth of exploration."""
    spec = Spec.parse(text)
    schema = AttributeSchema.of(spec.catalogue)
    rng = np.random.default_rng(seed)
    policy, actions = _policy(spec.encoder.size, rng), _actions(schema.size, rng)
    return write_bundle(folder, policy, actions, spec, schema, {"made_by": "tests"})


def broken_policy(size: int) -> bytes:
    """A graph that is a distribution for observations of zeros, and NaN for real ones."""
    rng = np.random.default_rng(0)
    return _policy(size, rng, poison=True)


def _actions(size: int, rng: np.random.Generator) -> bytes:
    weights = numpy_helper.from_array(rng.normal(0, 0.5, (size, KEY)).astype(np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["attributes", "weights"], ["keys"])],
        "actions",
        [helper.make_tensor_value_info("attributes", TensorProto.FLOAT, ["n", size])],
        [helper.make_tensor_value_info("keys", TensorProto.FLOAT, ["n", KEY])],
        [weights],
    )
    return _model(graph)


def _policy(size: int, rng: np.random.Generator, poison: bool = False) -> bytes:
    def constant(name: str, value: object) -> onnx.TensorProto:
        return numpy_helper.from_array(np.asarray(value, np.float32), name)

    node = helper.make_node
    nodes = [
        node("Tanh", ["observation"], ["bounded"]),
        node("MatMul", ["bounded", "weights"], ["query"]),
        node("Transpose", ["keys"], ["columns"], perm=[1, 0]),
        node("MatMul", ["query", "columns"], ["logits"]),
        node("Where", ["mask", "logits", "forbidden"], ["masked"]),
        node("Softmax", ["masked"], ["chosen"], axis=1),
        node("Cast", ["mask"], ["eligible"], to=TensorProto.FLOAT),
        node("ReduceSum", ["eligible", "axis"], ["count"], keepdims=1),
        node("Div", ["eligible", "count"], ["uniform"]),
        node("Mul", ["chosen", "most"], ["exploited"]),
        node("Mul", ["uniform", "rest"], ["explored"]),
        node("Add", ["exploited", "explored"], ["probabilities"]),
    ]
    if poison:
        nodes[0] = node("Div", ["observation", "nothing"], ["infinite"])
        nodes.insert(1, node("Mul", ["infinite", "nothing"], ["bounded"]))
        nodes.insert(0, node("Identity", ["zero"], ["nothing"]))
    graph = helper.make_graph(
        nodes,
        "policy",
        [
            helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["B", size]),
            helper.make_tensor_value_info("keys", TensorProto.FLOAT, ["n", KEY]),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, ["B", "n"]),
        ],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["B", "n"])],
        [
            constant("weights", rng.normal(0, 0.5, (size, KEY))),
            constant("forbidden", -1e9),
            constant("most", 0.9),
            constant("rest", 0.1),
            constant("zero", 0.0),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    return _model(graph)


def _model(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
