"""Jobs in processes of their own: what comes back, what is told meanwhile, and what is left when it goes wrong."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.clock import zone_id, zone_name
from engine.errors import TrainingError
from training.clone import Progress
from training.side_by_side import Job, side_by_side
from training.threads import WORKERS, workers

ROOT = Path(__file__).resolve().parents[2]


def double(values: NDArray[np.float64], wait: float, progress: Progress) -> tuple[int, float]:
    """The process that did it, and twice the sum."""
    progress(1, 2)
    time.sleep(wait)
    values *= 2.0
    progress(2, 2)
    return os.getpid(), float(values.sum())


def names(zones: tuple[int, ...], progress: Progress) -> list[str]:
    return [zone_name(zone) for zone in zones]


def fail(progress: Progress) -> tuple[int, float]:
    raise TrainingError("found nothing to learn from")


def spin(file: Path, progress: Progress) -> tuple[int, float]:
    """Works for minutes, and tells nothing."""
    file.with_suffix(".new").write_text(str(os.getpid()))
    file.with_suffix(".new").rename(file)
    time.sleep(600)
    return os.getpid(), 0.0


def write_late(file: Path, progress: Progress) -> tuple[int, float]:
    time.sleep(60)
    file.write_text("done")
    return 0, 0.0


@pytest.mark.parametrize("many", [1, 2])
def test_jobs_do_what_they_would_do_alone(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large array is shared by all processes, and what one changes in it no other sees."""
    monkeypatch.setenv(WORKERS, str(many))
    shared, told = np.ones(400_000), list[tuple[int, int]]()
    jobs = {
        "slow": partial(double, shared if many > 1 else shared.copy(), 1.2),
        "fast": partial(double, shared if many > 1 else shared.copy(), 0.0),
    }
    found = {one.name: one for one in side_by_side(jobs, lambda done, total: told.append((done, total)))}
    assert {name: one.result[1] for name, one in found.items()} == {"slow": 800_000.0, "fast": 800_000.0}
    assert shared.sum() == 400_000.0
    assert (found["slow"].result[0] == os.getpid()) == (many == 1)
    assert found["slow"].seconds > 1.0 > found["fast"].seconds
    assert told == sorted(told)
    assert len(told) > 1
    assert 0 < told[-1][0] <= told[-1][1]


def test_time_zones_keep_their_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids are given as names come up, and journeys hold them."""
    monkeypatch.setenv(WORKERS, "2")
    known = ["Pacific/Apia", "Europe/Vienna", "Asia/Kathmandu"]
    zones = tuple(zone_id(name) for name in known)
    jobs = {"one": partial(names, zones), "two": partial(names, zones)}
    assert [one.result for one in side_by_side(jobs, _quiet)] == [known, known]


def test_whoever_is_finished_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKERS, "2")
    jobs = {"slow": partial(double, np.ones(3), 2.0), "fast": partial(double, np.ones(3), 0.0)}
    assert [one.name for one in side_by_side(jobs, _quiet)] == ["fast", "slow"]


@pytest.mark.parametrize("many", [1, 2])
def test_an_error_of_a_job_is_raised_and_the_others_end(
    many: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORKERS, str(many))
    began, late = time.monotonic(), tmp_path / "late"
    jobs: dict[str, Job[tuple[int, float]]] = {"bad": fail, "long": partial(write_late, late)}
    with pytest.raises(TrainingError, match="nothing to learn from"):
        list(side_by_side(jobs, _quiet))
    assert time.monotonic() - began < 50
    assert not late.exists()


def test_who_stops_asking_stops_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKERS, "2")
    began, late = time.monotonic(), tmp_path / "late"
    results = side_by_side({"fast": partial(double, np.ones(3), 0.0), "long": partial(write_late, late)}, _quiet)
    assert next(results).name == "fast"
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 50
    assert not late.exists()


ASKS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests may have it ignored
from functools import partial
from pathlib import Path
from training.side_by_side import side_by_side
from tests.training.test_side_by_side import spin
jobs = {str(n): partial(spin, Path(f"{n}.pid")) for n in range(5)}
list(side_by_side(jobs, print))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nobody_works_on_for_who_is_gone(how: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C reaches all processes of a terminal; a kill only one. More jobs wait than there are workers."""
    environment = {**os.environ, WORKERS: "2", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ASKS]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as asks:
        wait_for(lambda: all((tmp_path / f"{n}.pid").exists() for n in (0, 1)))
        working = [int((tmp_path / f"{n}.pid").read_text()) for n in (0, 1)]
        assert asks.pid not in working
        try:
            if how == signal.SIGINT:
                os.killpg(asks.pid, how)
            else:
                asks.send_signal(how)
            wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in working))
            _, told = asks.communicate(timeout=60)
        finally:
            asks.kill()
    if how == signal.SIGINT:
        assert told.count(b"Traceback") == 1  # its own: nobody catches KeyboardInterrupt here
        assert b"KeyboardInterrupt" in told.splitlines()[-1]


def wait_for(what: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_nobody_is_asked_for_nothing() -> None:
    assert list(side_by_side({}, _quiet)) == []


@pytest.mark.parametrize("told", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_of_workers_is_named(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKERS, told)
    with pytest.raises(TrainingError, match=f"{WORKERS}: found '{told}', expected a whole number of processes"):
        workers()


def test_without_a_word_all_processors_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKERS, raising=False)
    assert workers() == joblib.cpu_count()


def stubborn(progress: Progress) -> tuple[int, float]:
    raise StubbornError(1, "two")


def lost(progress: Progress) -> tuple[int, float]:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0, 0.0


class StubbornError(Exception):
    """Cannot be made from its own arguments again, as a pickle would."""

    def __init__(self, one: int, two: str) -> None:
        super().__init__(f"found {one}, expected {two}")


def test_an_error_that_cannot_be_pickled_is_told_by_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKERS, "2")
    jobs: dict[str, Job[tuple[int, float]]] = {"bad": stubborn, "fast": partial(double, np.ones(3), 0.0)}
    with pytest.raises(TrainingError, match="bad: StubbornError: found 1, expected two"):
        list(side_by_side(jobs, _quiet))


def test_a_process_that_was_killed_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKERS, "2")
    jobs: dict[str, Job[tuple[int, float]]] = {"bad": lost, "long": partial(double, np.ones(3), 5.0)}
    with pytest.raises(TrainingError, match=f"JOBLIB_TEMP_FOLDER.*too little memory; {WORKERS}=1"):
        list(side_by_side(jobs, _quiet))


def test_where_no_process_may_have_children_jobs_run_one_after_the_other(tmp_path: Path) -> None:
    environment = {**os.environ, WORKERS: "2", "PYTHONPATH": str(ROOT), "JOBLIB_MULTIPROCESSING": "0"}
    asks = "from tests.training.test_side_by_side import *; from tests.training.test_side_by_side import _quiet\n"
    asks += "jobs = {n: partial(double, np.ones(3), 0.0) for n in 'ab'}\n"
    asks += "print([(one.name, one.result == (os.getpid(), 6.0)) for one in side_by_side(jobs, _quiet)])"
    done = subprocess.run([sys.executable, "-c", asks], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[('a', True), ('b', True)]"


def _quiet(done: int, total: int) -> None:
    """Nobody watches."""
