"""Who chooses: probabilities over the catalogue, and the exact draw from them.

The one file that uses onnxruntime.
"""

import copy
import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from engine.errors import BundleError
from engine.records import Bools, Floats, Floats32, Ints

_FLOAT, _BOOL = "tensor(float)", "tensor(bool)"
_POLICY_INPUTS = {"observation": _FLOAT, "keys": _FLOAT, "mask": _BOOL}
_ACTIONS_INPUTS = {"attributes": _FLOAT}


class Policy(Protocol):
    """Anything that chooses. `version` names exactly this policy; it is logged and seeds the draw."""

    @property
    def version(self) -> str: ...

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        """P(action), [B, n], for observations [B, d]; 0 where the mask [B, n] is False, rows sum to 1."""
        ...


class OnnxPolicy:
    """Two ONNX graphs: `actions.onnx` makes the catalogue's keys once, `policy.onnx` chooses among them.

    actions.onnx: `attributes` float32 [n, k] → `keys` float32 [n, e].
    policy.onnx: `observation` float32 [B, d], `keys` float32 [n, e], `mask` bool [B, n]
    → `probabilities` float32 [B, n].

    On one machine the probabilities of a row are the same to the last bit whatever batch it travels in,
    so a decision that was taken in a batch replays alone. (Another processor may differ in the last bits.)
    Safe to call from many threads. Raises BundleError for graphs that are corrupt or of another shape.
    """

    version: str
    size: int
    """d, the length of an observation."""

    def __init__(self, policy_onnx: bytes, actions_onnx: bytes, attributes: Floats32, version: str) -> None:
        self._graphs = policy_onnx, actions_onnx
        self._network = _session("policy.onnx", policy_onnx, _POLICY_INPUTS, "probabilities")
        self._tower = _session("actions.onnx", actions_onnx, _ACTIONS_INPUTS, "keys")
        self.size = _width(self._network)
        self.version = version
        self._attributes = attributes
        self._keys = self._encode(attributes)
        self._prove()

    @property
    def actions(self) -> int:
        """n, the length of the catalogue."""
        return len(self._keys)

    def with_catalogue(self, attributes: Floats32) -> Self:
        """The same network over other actions, attributes [n', k].

        The version gains a suffix that names the catalogue, because rows now mean other actions.
        """
        other = copy.copy(self)
        table = np.ascontiguousarray(attributes, np.float32)
        mark = hashlib.blake2b(table.tobytes(), digest_size=4).hexdigest()
        other.version = f"{self.version.partition('+')[0]}+{mark}"
        other._attributes, other._keys = table, self._encode(table)
        other._prove()
        return other

    def __copy__(self) -> Self:
        """With the same sessions."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __reduce__(self) -> tuple[type["OnnxPolicy"], tuple[bytes, bytes, Floats32, str]]:
        """For another process: sessions cannot be pickled, the graphs that they were made from can."""
        return type(self), (*self._graphs, self._attributes, self.version)

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        """P(action), float32 [B, n], after the mask [B, n].

        Raises ValueError for arrays of the wrong shape, and BundleError when the graph's answer is no
        distribution: a NaN, a negative number, weight on what the mask forbids, a row that does not sum to 1.
        """
        rows = len(observation)
        if observation.shape != (rows, self.size) or mask.shape != (rows, self.actions):
            raise ValueError(
                f"found observation {observation.shape} and mask {mask.shape}, "
                f"expected ({rows}, {self.size}) and ({rows}, {self.actions})"
            )
        if rows == 0:
            return np.zeros((0, self.actions), np.float32)
        return _distribution(self._run(observation, mask), mask)

    def _encode(self, attributes: Floats32) -> Floats32:
        feed = {"attributes": np.ascontiguousarray(attributes, np.float32)}
        keys = _call("actions.onnx", self._tower, "keys", feed)
        if keys.ndim != 2 or len(keys) != len(attributes) or not np.isfinite(keys).all():
            expected = f"[{len(attributes)}, e], all finite"
            raise BundleError(f"actions.onnx: output 'keys': found {_kind(keys)}, expected {expected}")
        return keys

    def _prove(self) -> None:
        """Choose once for nobody in particular: both graphs must fit each other and this catalogue."""
        everything = np.ones((3, self.actions), np.bool_)
        _distribution(self._run(np.zeros((3, self.size), np.float32), everything), everything)

    def _run(self, observation: Floats32, mask: Bools) -> Floats32:
        # A matrix product with a single row is computed by other code, which adds up in another order;
        # with two rows or more, each row's bits are the same in every batch.
        alone = len(observation) == 1
        if alone:
            observation, mask = np.repeat(observation, 2, axis=0), np.repeat(mask, 2, axis=0)
        feed = {
            "observation": np.ascontiguousarray(observation, np.float32),
            "keys": self._keys,
            "mask": np.ascontiguousarray(mask, np.bool_),
        }
        found = _call("policy.onnx", self._network, "probabilities", feed)
        return found[:1] if alone else found


def draw(probabilities: NDArray[np.floating[Any]], u: Floats, mask: Bools | None = None) -> tuple[Ints, Floats]:
    """Inverse CDF: action [B] and its propensity [B] at uniforms u [B].

    The probabilities [B, n] are made float64, zero where the mask [B, n] is False, and divided by their sum;
    the action is the first whose cumulated probability exceeds u. The propensity is the very number that was
    drawn from. An action without probability is never drawn, at no u. Raises ValueError for a row that is no
    distribution, or a u outside [0, 1].
    """
    weights = np.asarray(probabilities, np.float64)
    if mask is not None:
        weights = np.where(mask, weights, 0.0)
    if len(weights) == 0:
        return np.zeros(0, np.int64), np.zeros(0)
    cumulated = np.cumsum(weights, axis=1)
    total = cumulated[:, -1]
    good = (weights >= 0.0).all(axis=1) & (total > 0.0) & np.isfinite(total)
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(
            f"row {row}: found weights that sum to {total[row]}, expected none negative, their sum positive"
        )
    if not ((u >= 0.0) & (u <= 1.0)).all():
        raise ValueError("found a u outside [0, 1]")
    above = cumulated > (u * total)[:, None]
    # u × total may round up to total itself; then the last action that has any weight is meant.
    last = weights.shape[1] - 1 - np.argmax(weights[:, ::-1] > 0.0, axis=1)
    action = np.where(above[:, -1], np.argmax(above, axis=1), last).astype(np.int64)
    return action, weights[np.arange(len(action)), action] / total


def uniform(decision_id: str, version: str, salt: str) -> float:
    """The uniform in [0, 1) that decides a decision: 53 bits of blake2b over the three texts.

    The same decision under the same policy always draws the same; another policy or deployment draws afresh.
    """
    digest = hashlib.blake2b(framed(decision_id, version, salt), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def framed(*texts: str) -> bytes:
    """The texts as bytes, each after its length (`2:ab1:c`), so that no two different lists give the same bytes."""
    return "".join([f"{len(text)}:{text}" for text in texts]).encode("utf-8", "surrogatepass")


def _distribution(found: Floats32, mask: Bools) -> Floats32:
    """The graph's answer [B, n] when it is a distribution over the eligible actions; else BundleError."""
    if found.shape != mask.shape or found.dtype != np.float32:
        expected = f"float32 {list(mask.shape)}"
        raise BundleError(f"policy.onnx: output 'probabilities': found {_kind(found)}, expected {expected}")
    allowed = np.where(mask, found, np.float32(0.0))
    total = allowed.sum(axis=1)
    forbidden = np.where(mask, np.float32(0.0), found).max(axis=1)
    good = (np.abs(total - 1.0) <= 1e-3) & (found.min(axis=1) >= 0.0) & (forbidden <= 1e-6)
    if not good.all():
        row = int(np.argmin(good))
        raise BundleError(
            f"policy.onnx: probabilities of row {row}: found smallest {found[row].min()}, "
            f"at most {forbidden[row]} on forbidden actions and {total[row]} in sum on the "
            f"{int(mask[row].sum())} eligible ones; expected none negative, 0 and 1"
        )
    return allowed


def _session(file: str, graph: bytes, inputs: Mapping[str, str], output: str) -> ort.InferenceSession:
    """A session on one thread; BundleError unless the graph has these inputs and this output."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 4  # what goes wrong is raised, once, below
    try:
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no narrower base
        what = f"found {len(graph)} bytes that are no ONNX graph"
        raise BundleError(f"{file}: {what}: {_first_line(error)}") from error
    found = {i.name: f"{i.type} of rank {len(i.shape)}" for i in session.get_inputs()}
    expected = {name: f"{kind} of rank 2" for name, kind in inputs.items()}
    if found != expected:
        raise BundleError(f"{file}: inputs: found {_listed(found)}, expected {_listed(expected)}")
    outputs = [o.name for o in session.get_outputs()]
    if output not in outputs:
        raise BundleError(f"{file}: outputs: found {', '.join(outputs)}, expected {output}")
    return session


def _width(network: ort.InferenceSession) -> int:
    shape = next(i.shape for i in network.get_inputs() if i.name == "observation")
    if not isinstance(shape[1], int):
        raise BundleError(f"policy.onnx: input 'observation': found shape {shape}, expected a fixed second size")
    return shape[1]


def _call(file: str, session: ort.InferenceSession, output: str, feed: Mapping[str, NDArray[Any]]) -> Floats32:
    try:
        found: Floats32 = session.run([output], dict(feed))[0]
    except Exception as error:  # its errors share no narrower base
        shapes = {name: str(list(array.shape)) for name, array in feed.items()}
        raise BundleError(f"{file}: does not run on {_listed(shapes)}: {_first_line(error)}") from error
    return found


def _listed(table: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in sorted(table.items()))


def _kind(array: NDArray[Any]) -> str:
    bad = "" if np.isfinite(array).all() else " with NaN or infinite numbers"
    return f"{array.dtype} {list(array.shape)}{bad}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
