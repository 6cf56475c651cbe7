"""How much of the machine is used: one thread for many small jobs, as networks and trees this small gain nothing from
more and lose much beside others; and several processes, where jobs know nothing of each other (side_by_side.py).
"""

import os

import sklearn.ensemble  # noqa: F401, its OpenMP must be loaded to be told
import torch
from joblib import cpu_count
from threadpoolctl import threadpool_limits

from engine.errors import TrainingError

WORKERS = "NEXTBEST_WORKERS"
"""Environment variable: processes at a time, 1 = none but this one."""


def workers() -> int:
    """Processes at a time: what WORKERS says, else the processors that this process may use. Raises TrainingError for
    anything but a whole number from 1 on.
    """
    told = os.environ.get(WORKERS, "")
    if not told:
        return int(cpu_count())
    if not told.isdecimal() or int(told) < 1:
        raise TrainingError(f"{WORKERS}: found {told!r}, expected a whole number of processes, 1 or more")
    return int(told)


def one_thread() -> None:
    """For the rest of the process: torch and scikit-learn's trees use one thread. BLAS is left alone, as its products
    can be large. With two threads on two cores of which one was busy, boosted trees took twenty times as long: each of
    their thousands of short loops waited for the other thread.

    Raises TrainingError as `workers` does: verbs begin with this, and a wrong number is told before work starts.
    """
    workers()
    torch.set_num_threads(1)
    threadpool_limits(limits=1, user_api="openmp")
