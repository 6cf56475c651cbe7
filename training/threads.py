"""One thread for many small jobs: networks and trees this small gain nothing from more, and lose much beside others."""

import sklearn.ensemble  # noqa: F401, its OpenMP must be loaded to be told
import torch
from threadpoolctl import threadpool_limits


def one_thread() -> None:
    """For the rest of the process: torch and scikit-learn's trees use one thread. BLAS is left alone, as its products
    can be large. With two threads on two cores of which one was busy, boosted trees took twenty times as long: each of
    their thousands of short loops waited for the other thread.
    """
    torch.set_num_threads(1)
    threadpool_limits(limits=1, user_api="openmp")
