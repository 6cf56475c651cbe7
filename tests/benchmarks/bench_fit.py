"""How long it takes from a log to a learned environment, and how much memory: the retail world, 28 days.

`CUSTOMERS` says for how many; 40000 are about a million decisions. Seconds of the clock, of the processor, and the most
memory that the process has held so far, so every line includes those above it; run it by itself for that. Simulating
and writing the log are only in the first line.
"""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time

import torch

from envs.simulate import run
from envs.worlds import world
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.logs import read_log

CUSTOMERS = int(os.environ.get("CUSTOMERS", "4000"))


@contextmanager
def _measured(what: str) -> Iterator[None]:
    began, worked = perf_counter(), process_time()
    yield
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    spent = f"{perf_counter() - began:7.1f} s {process_time() - worked:7.1f} s"
    print(f"  {what:<20} {spent} {held / 1e9:6.2f} GB")


def test_from_log_to_environment(tmp_path: Path) -> None:
    spec = world("retail").spec
    with _measured("simulate"):
        run("retail", tmp_path / "log", CUSTOMERS, 28, seed=1)
    with _measured("read_log"):
        log = read_log(spec, tmp_path / "log")
    with _measured("Journeys.of"):
        journeys = Journeys.of(spec, log)
    del log
    with _measured("split"):
        train, valid, _ = journeys.split(0)
    print(f"  {len(journeys):,} decisions, {len(train):,} of them to fit; threads: {torch.get_num_threads()}")
    with _measured("fit_outcome_model"):
        model = fit_outcome_model(spec, train, valid)
    assert model.members
