"""Independent long jobs, each in a process of its own, as many at a time as there are processors.

Networks and trees this small gain nothing from a second thread (training/threads.py), but a training asks for several
of them that know nothing of each other. What comes out is the same as one after the other, bit by bit.
"""

import os
import pickle
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pickle import PicklingError
from typing import Generic, TypeVar

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from threadpoolctl import threadpool_limits

from engine.clock import adopt_zones, known_zones
from engine.errors import TrainingError
from engine.records import Floats
from training.clone import Progress
from training.threads import WORKERS, one_thread, workers

LOOK_EVERY = 0.5
"""Seconds between two looks at how far the jobs are."""

T = TypeVar("T")

Job = Callable[[Progress], T]
"""What is done; it can be pickled, and tells its progress to what it is called with."""


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """A job's name, what it returned, and how many seconds it took."""

    name: str
    result: T
    seconds: float


def side_by_side(
    jobs: Mapping[str, Job[T]], progress: Progress | None = None, apart: bool = True
) -> Iterator[Finished[T]]:
    """Each job, by its name, as soon as it is finished. One alone, with one worker, not `apart`, or where a process may
    have no children: one after the other in this process. It takes seconds to start another.

    progress: told of all jobs together. Raises what a job raises; the others are stopped then, as they are when nobody
    asks for the rest. Raises TrainingError where a process cannot be given its job, or ends without an answer.
    """
    progress, many = progress or _silent, min(workers(), len(jobs))
    with parallel_config(backend="loky"):
        many = int(effective_n_jobs(many)) if apart and many > 1 else 1
    if many <= 1:
        for place, (name, job) in enumerate(jobs.items()):
            yield _done(name, job, _part(progress, place, len(jobs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "shares")
        shares = np.memmap(file, np.float64, "w+", shape=(len(jobs),))
        seats = (_Seat(os.getpid(), place, file, known_zones()) for place in range(len(jobs)))
        calls = (delayed(_apart)(name, job, seat) for (name, job), seat in zip(jobs.items(), seats, strict=True))
        # copy-on-write: large arrays are written once, for all processes, and torch takes none that cannot be written
        run = Parallel(
            many, "loky", return_as="generator_unordered", mmap_mode="c", pre_dispatch="n_jobs", batch_size=1
        )
        with _watched(shares, progress), _ended(run(calls)) as results:
            for one in results:  # noqa: UP028, so that who stops asking is no news to joblib
                yield one


def _done(name: str, job: Job[T], progress: Progress) -> Finished[T]:
    began = time.perf_counter()
    with threadpool_limits(1):
        result = job(progress)
    return Finished(name, result, time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class _Seat:
    """What a job needs to know of the process that asked: which it is, the job's place, the file of everybody's
    progress, and the ids of time zones.
    """

    asked_by: int
    place: int
    file: str
    zones: tuple[str, ...]


def _apart(name: str, job: Job[T], seat: _Seat) -> Finished[T]:
    """In a process of its own. Ctrl-C reaches all of a terminal's processes; the one that asked ends the others. Raises
    TrainingError in the place of an error that cannot leave the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(seat.asked_by)
    one_thread()
    adopt_zones(seat.zones)
    shares = np.memmap(seat.file, np.float64, "r+")

    def tell(done: int, total: int) -> None:
        shares[seat.place] = done / max(total, 1)

    try:
        return _done(name, job, tell)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # whatever an error's own code does
            raise TrainingError(f"{name}: {type(error).__name__}: {error}") from None
        raise


@cache
def _end_with(process: int) -> None:
    """This process ends soon after its parent did: nobody waits for what it makes. Once for each."""

    def watch() -> None:
        while os.getppid() == process:
            time.sleep(LOOK_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _ended(results: Generator[Finished[T], None, None]) -> Iterator[Iterator[Finished[T]]]:
    """Ends what still runs, and says what is wrong with processes, not with jobs."""
    try:
        yield results
    except (PicklingError, BrokenExecutor) as error:
        advice = f"a full disk (JOBLIB_TEMP_FOLDER names another) or too little memory; {WORKERS}=1 needs neither"
        raise TrainingError(f"a process beside this one failed: {error}; perhaps {advice}") from None
    finally:
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            results.close()


@contextmanager
def _watched(shares: Floats, progress: Progress) -> Iterator[None]:
    """Tells how far all jobs are, until they are done."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_EVERY):
            progress(round(1000 * float(shares.mean())), 1000)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _part(progress: Progress, place: int, many: int) -> Progress:
    """Progress of one job among `many`."""
    return lambda done, total: progress(round(1000 * (place + done / max(total, 1))), 1000 * many)


def _silent(done: int, total: int) -> None:
    """Nobody watches."""
