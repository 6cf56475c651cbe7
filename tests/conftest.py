"""What every test shares: one thread per process, no calls home, the same examples on every run.

The environment is set before anything reads it. Tests start processes of their own (the service, the command
line); those inherit it.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

for name, value in {
    "OMP_NUM_THREADS": "1",  # pytest-xdist already uses the cores
    "MPLBACKEND": "Agg",  # no test opens a window
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}.items():
    os.environ.setdefault(name, value)

# derandomize: a red test is red for everyone. No deadline: a busy machine is not a bug.
settings.register_profile("nextbest", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("nextbest")


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the clone."""
    return Path(__file__).resolve().parent.parent
