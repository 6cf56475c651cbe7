"""How long the engine's array parts take in the retail world: for one customer, and for 1,024 at once."""

from collections.abc import Callable
from time import perf_counter

import numpy as np
import pytest

from engine.clock import zone_id
from engine.decider import Decider
from engine.policy import OnnxPolicy
from engine.records import EventColumns, Request
from envs.worlds import world
from tests.engine.graphs import actions_onnx, policy_onnx

NOON = 1_767_614_400.0  # 2026-01-05T12:00:00Z


def _best(work: Callable[[], object], times: int = 20) -> float:
    """The fastest of several runs, in milliseconds: what the machine's other work does not explain."""
    spent = []
    for _ in range(times):
        began = perf_counter()
        work()
        spent.append(perf_counter() - began)
    return 1000 * min(spent)


@pytest.mark.parametrize("customers", [1, 1024])
def test_milliseconds(customers: int) -> None:
    place = world("retail")
    spec, rng = place.spec, np.random.default_rng(0)
    fold, n, many = spec.fold, len(spec.catalogue), 3 * customers
    state, rows = fold.empty(customers), np.arange(customers)
    context = place.replay(customers, 2, 0).context[:, 0]
    now, zone = NOON + rng.uniform(0, 1e6, customers), np.full(customers, zone_id("Europe/Berlin"))
    events = EventColumns(
        rng.integers(0, customers, many),
        rng.integers(0, len(spec.kinds), many),
        NOON - rng.uniform(0, 1e6, many),
        rng.random(many),
        rng.integers(-1, len(spec.catalogue.channels), many),
        rng.integers(-1, len(spec.catalogue.contents), many),
    )
    contacts = rng.integers(0, n, customers)
    keys = spec.attributes.encode(spec.catalogue)
    graphs = policy_onnx(spec.encoder.size, 64), actions_onnx(spec.attributes.size, 64)
    decider = Decider(spec, OnnxPolicy(*graphs, keys, "bench"), "salt")
    asked = [Request(f"r{i}", f"c{i}", spec.context.mapping(context[i]), "Europe/Berlin") for i in rows]
    print(f"\n{customers} customers, {n} actions, {len(fold.counters)} counters, {spec.encoder.size} features")
    for name, work in {
        f"add_events ({many})": lambda: fold.add_events(state, events),
        "add_contacts": lambda: fold.add_contacts(state, rows, contacts, now, now),
        "mask": lambda: spec.guardrails.mask(state, context, now, zone),
        "observe": lambda: spec.encoder.observe(state, context, now, zone),
        "decide": lambda: decider.decide(asked, state, now),
    }.items():
        print(f"  {name:20} {_best(work):8.2f} ms")
    assert len(decider.decide(asked, state, now)) == customers
