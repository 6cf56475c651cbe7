"""The policy's graphs and the draw, against the definition of both."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BundleError
from engine.policy import OnnxPolicy, draw, framed, uniform
from engine.records import Bools, Floats32
from tests.engine.graphs import actions_onnx, constant_onnx, policy_onnx

D, K, N = 6, 5, 9


def attributes(n: int = N, seed: int = 3) -> Floats32:
    return np.random.default_rng(seed).normal(size=(n, K)).astype(np.float32)


def policy(**changes: float) -> OnnxPolicy:
    return OnnxPolicy(policy_onnx(D, **changes), actions_onnx(K), attributes(), "abc")  # type: ignore[arg-type]


def some(rows: int, n: int = N, seed: int = 0) -> tuple[Floats32, Bools]:
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, n)) < 0.6
    mask[:, 0] = True
    return rng.normal(size=(rows, D)).astype(np.float32), mask


def test_probabilities_are_the_masked_softmax_of_query_times_keys() -> None:
    import onnx
    from onnx import numpy_helper

    floor = 0.05
    observation, mask = some(20)
    weights = {
        w.name: numpy_helper.to_array(w) for w in onnx.load_from_string(policy_onnx(D, floor=floor)).graph.initializer
    }
    keys = attributes() @ numpy_helper.to_array(onnx.load_from_string(actions_onnx(K)).graph.initializer[0])
    found = policy(floor=floor).probabilities(observation, mask)
    for i in range(20):
        query = np.tanh(observation[i] @ weights["weights"])
        scores = [np.exp(float(query @ keys[a])) if mask[i, a] else 0.0 for a in range(N)]
        for a in range(N):
            even = floor / mask[i].sum() if mask[i, a] else 0.0
            assert found[i, a] == pytest.approx((1 - floor) * scores[a] / sum(scores) + even, abs=1e-6)
    assert found.dtype == np.float32
    assert (found[~mask] == 0).all()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 17, 64])
def test_a_row_has_the_same_bits_in_every_batch(size: int) -> None:
    network = OnnxPolicy(policy_onnx(37, width=16), actions_onnx(K, width=16), attributes(53), "v")
    rng = np.random.default_rng(1)
    observation = rng.normal(size=(64, 37)).astype(np.float32)
    mask = rng.random((64, 53)) < 0.7
    mask[:, 0] = True
    whole = network.probabilities(observation, mask)
    for start in range(64 - size + 1):
        part = slice(start, start + size)
        assert np.array_equal(network.probabilities(observation[part], mask[part]), whole[part])


def test_no_customers_no_probabilities() -> None:
    assert policy().probabilities(np.zeros((0, D), np.float32), np.zeros((0, N), bool)).shape == (0, N)


def test_another_catalogue_needs_no_other_policy() -> None:
    one = policy()
    more = one.with_catalogue(attributes(14, seed=8))
    fresh = OnnxPolicy(policy_onnx(D), actions_onnx(K), attributes(14, seed=8), "abc")
    observation, mask = some(7, 14)
    assert np.array_equal(more.probabilities(observation, mask), fresh.probabilities(observation, mask))
    assert (one.actions, more.actions) == (N, 14)
    assert one.version == "abc"
    assert more.version.startswith("abc+")
    assert one.with_catalogue(attributes(14, seed=9)).version != more.version
    assert more.with_catalogue(attributes(14, seed=8)).version == more.version


@pytest.mark.parametrize(
    ("policy_bytes", "actions_bytes", "message"),
    [
        (b"not a graph", actions_onnx(K), r"policy.onnx: found 11 bytes that are no ONNX graph"),
        (b"", actions_onnx(K), r"policy.onnx: found 0 bytes that are no ONNX graph"),
        (policy_onnx(D)[:200], actions_onnx(K), r"policy.onnx: found 200 bytes that are no ONNX graph"),
        (policy_onnx(D), b"\x00" * 40, r"actions.onnx: found 40 bytes that are no ONNX graph"),
        (actions_onnx(K), actions_onnx(K), r"policy.onnx: inputs: found attributes .*expected keys .*, mask .*, obs"),
        (policy_onnx(D), policy_onnx(D), r"actions.onnx: inputs: found keys .*expected attributes tensor\(float\)"),
        (policy_onnx(D), actions_onnx(K + 1), r"actions.onnx: does not run on attributes \[9, 5\]"),
        (policy_onnx(D, width=7), actions_onnx(K), r"policy.onnx: does not run on keys \[9, 8\]"),
        (constant_onnx(D, 8, np.nan), actions_onnx(K), r"policy.onnx: probabilities of row 0: found smallest nan"),
        (constant_onnx(D, 8, 0.5), actions_onnx(K), r"row 0: .* 4.5 in sum on the 9 eligible ones; expected"),
        (constant_onnx(D, 8, -1.0), actions_onnx(K), r"row 0: found smallest -1.0"),
    ],
)
def test_a_bad_graph_gives_one_clear_message(policy_bytes: bytes, actions_bytes: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        OnnxPolicy(policy_bytes, actions_bytes, attributes(), "v")
    assert "\n" not in str(caught.value)


def test_weight_on_a_forbidden_action_is_an_error() -> None:
    leaky = policy(mask_value=0.0)
    observation, mask = some(4)
    with pytest.raises(BundleError, match="on forbidden actions"):
        leaky.probabilities(observation, mask)


def test_a_nan_in_the_observation_is_an_error_and_names_the_row() -> None:
    observation, mask = some(5)
    observation[3, 2] = np.nan
    with pytest.raises(BundleError, match="row 3"):
        policy().probabilities(observation, mask)


def test_arrays_of_another_shape_are_an_error() -> None:
    observation, mask = some(5)
    with pytest.raises(ValueError, match=r"expected \(5, 6\) and \(5, 9\)"):
        policy().probabilities(observation[:, :4], mask)
    with pytest.raises(ValueError, match=r"expected \(5, 6\) and \(5, 9\)"):
        policy().probabilities(observation, mask[:, :8])


# The draw


def slow_draw(weights: list[float], u: float) -> tuple[int, float]:
    """Walk along the cumulated weights."""
    total = sum(weights)
    gone = 0.0
    for action, weight in enumerate(weights):
        gone += weight
        if gone > u * total:
            return action, weight / total
    last = max(a for a, w in enumerate(weights) if w > 0)
    return last, weights[last] / total


ALMOST_ONE = 1.0 - 2.0**-53
rows = st.lists(st.floats(0, 1e6, allow_subnormal=False) | st.just(0.0), min_size=1, max_size=12).filter(
    lambda w: sum(w) > 0
)


@given(rows, st.floats(0, 1) | st.sampled_from([0.0, ALMOST_ONE, 1.0]), st.randoms())
@settings(max_examples=150)
def test_draw_is_the_inverse_cdf(weights: list[float], u: float, random: object) -> None:
    action, propensity = draw(np.array([weights]), np.array([u]))
    assert (action[0], propensity[0]) == slow_draw(weights, u)
    assert weights[action[0]] > 0


@given(rows, st.floats(0, 1), st.data())
@settings(max_examples=80)
def test_draw_never_takes_what_is_masked(weights: list[float], u: float, data: st.DataObject) -> None:
    mask = data.draw(st.lists(st.booleans(), min_size=len(weights), max_size=len(weights)))
    left = [w if m else 0.0 for w, m in zip(weights, mask, strict=True)]
    if sum(left) == 0:
        with pytest.raises(ValueError, match="row 0"):
            draw(np.array([weights]), np.array([u]), np.array([mask]))
        return
    action, propensity = draw(np.array([weights]), np.array([u]), np.array([mask]))
    assert mask[action[0]]
    assert (action[0], propensity[0]) == slow_draw(left, u)


def test_draw_at_the_ends_of_the_unit_interval() -> None:
    weights = np.array([[0.0, 0.3, 0.0, 0.7, 0.0]], np.float32)
    assert draw(weights, np.array([0.0]))[0][0] == 1
    for u in (ALMOST_ONE, 1.0):
        assert draw(weights, np.array([u]))[0][0] == 3


def test_draw_survives_sums_that_round() -> None:
    # 0.1 added ten times is not 1; the last action must still be reachable and nothing after it.
    weights = np.concatenate([np.full((1, 10), 0.1), np.zeros((1, 3))], axis=1)
    assert draw(weights, np.array([ALMOST_ONE]))[0][0] == 9
    tiny = np.array([[1.0, 1e-30, 0.0]])
    action, propensity = draw(tiny, np.array([ALMOST_ONE]))
    assert (action[0], propensity[0]) == (0, 1.0)


def test_draw_frequencies_are_the_propensities() -> None:
    weights = np.array([[0.05, 0.0, 0.5, 0.45]])
    u = np.random.default_rng(0).random(200_000)
    action, propensity = draw(np.repeat(weights, len(u), axis=0), u)
    shares = np.bincount(action, minlength=4) / len(u)
    assert shares == pytest.approx(weights[0], abs=5e-3)
    assert (propensity == weights[0][action]).all()


@pytest.mark.parametrize("bad", [[0.0, 0.0], [np.nan, 1.0], [-0.1, 1.1], [np.inf, 1.0]])
def test_draw_refuses_what_is_no_distribution(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="row 1"):
        draw(np.array([[0.5, 0.5], bad]), np.array([0.5, 0.5]))


@pytest.mark.parametrize("u", [-0.1, 1.1, np.nan])
def test_draw_refuses_a_u_outside_the_unit_interval(u: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        draw(np.array([[0.5, 0.5]]), np.array([u]))


def test_draw_of_nobody() -> None:
    action, propensity = draw(np.zeros((0, 3)), np.zeros(0))
    assert len(action) == len(propensity) == 0


# The uniform


def test_uniform_is_53_bits_of_blake2b_over_framed_texts() -> None:
    number = int.from_bytes(hashlib.blake2b("2:r13:väl0:".encode(), digest_size=8).digest(), "big")
    assert uniform("r1", "väl", "") == (number // 2**11) / 2**53


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_framing_is_unambiguous(one: list[str], other: list[str]) -> None:
    assert (framed(*one) == framed(*other)) == (one == other)


def test_uniform_moves_with_each_of_its_arguments() -> None:
    found = {uniform(*t) for t in [("a", "b", "c"), ("x", "b", "c"), ("a", "x", "c"), ("a", "b", "x"), ("ab", "", "c")]}
    assert len(found) == 5
    assert uniform("\ud800", "v", "s") < 1.0  # a lone surrogate, as JSON may hold, is a name like any other


def test_uniform_is_uniform() -> None:
    found = np.array([uniform(f"request-{i}", "v", "s") for i in range(20_000)])
    assert found.min() >= 0.0
    assert found.max() < 1.0
    shares = np.histogram(found, bins=20, range=(0, 1))[0] / len(found)
    assert shares == pytest.approx(0.05, abs=0.006)
    assert np.corrcoef(found[:-1], found[1:])[0, 1] == pytest.approx(0.0, abs=0.03)
