"""How long it takes from a log to a learned environment, and how much memory: the retail world, 28 days.

`CUSTOMERS` says for how many; 40000 are about a million decisions. The lean log has `ROWS` decisions with one feature,
two contents and one kind of event. Seconds of the clock, of the processor, and the most memory that the process has
held so far, so every line includes those above it; run one by itself for that (`-k lean`, `-k environment`).
"""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from engine.spec import Spec
from envs.simulate import run
from envs.worlds import world
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.logs import read_log

CUSTOMERS = int(os.environ.get("CUSTOMERS", "4000"))
ROWS, DECISIONS = int(os.environ.get("ROWS", "200000")), 20
LEAN = Spec.parse("""
name = "lean"
[journey]
half_lives_days = [7.0]
[context.x]
type = "number"
[events.buy]
[channels.app]
consent = "none"
[[contents]]
id = "a"
[[contents]]
id = "b"
[reward.events.buy]
each = 10
""")


@contextmanager
def _measured(what: str) -> Iterator[None]:
    began, worked = perf_counter(), process_time()
    yield
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    spent = f"{perf_counter() - began:7.1f} s {process_time() - worked:7.1f} s"
    print(f"  {what:<20} {spent} {held / 1e9:6.2f} GB")


def test_from_log_to_environment(tmp_path: Path) -> None:
    with _measured("simulate"):
        run("retail", tmp_path / "log", CUSTOMERS, 28, seed=1)
    _fit(world("retail").spec, tmp_path / "log")


def test_from_a_long_lean_log(tmp_path: Path) -> None:
    with _measured("write the log"):
        _write_lean(tmp_path, ROWS // DECISIONS)
    _fit(LEAN, tmp_path)


def _fit(spec: Spec, folder: Path) -> None:
    with _measured("read_log"):
        log = read_log(spec, folder)
    with _measured("Journeys.of"):
        journeys = Journeys.of(spec, log)
    del log
    with _measured("split"):
        train, valid, _ = journeys.split(0)
    print(f"  {len(journeys):,} decisions, {len(train):,} of them to fit; threads: {torch.get_num_threads()}")
    with _measured("fit_outcome_model"):
        model = fit_outcome_model(spec, train, valid)
    assert model.members


def _write_lean(folder: Path, customers: int) -> None:
    """Daily decisions, a third each; orders hang on the feature and on one of the contents."""
    rng, n = np.random.default_rng(0), customers * DECISIONS
    who, step = np.repeat(np.arange(customers), DECISIONS), np.tile(np.arange(DECISIONS), customers)
    at = (1_767_225_600 + step * 86_400) * 1_000_000
    action, x = rng.integers(0, 3, n), rng.normal(size=n)
    names = pa.array([f"c{i}" for i in range(customers)])
    decisions = {
        "decision_id": pa.array(np.arange(n)).cast(pa.string()),
        "customer_id": names.take(pa.array(who)),
        "decided_at": pa.array(at).cast(pa.timestamp("us", "UTC")),
        "content": pa.array(["a", "b"]).take(pa.array(action - 1, mask=action == 0)),
        "propensity": np.full(n, 1 / 3),
        "x": x,
    }
    pq.write_table(pa.table(decisions), folder / "decisions.parquet")
    bought = np.flatnonzero(rng.random(n) < 1 / (1 + np.exp(4 - 0.5 * x - 0.8 * (action == 1))))
    events = {
        "customer_id": names.take(pa.array(who[bought])),
        "occurred_at": pa.array(at[bought] + 3_600_000_000).cast(pa.timestamp("us", "UTC")),
        "kind": np.full(len(bought), "buy", object),
    }
    pq.write_table(pa.table(events), folder / "events.parquet")
