"""What every test shares: one thread per process, no calls home, the same examples on every run.

The environment is set before anything reads it. Tests start processes of their own (the service, the command
line); those inherit it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

for name, value in {
    "OMP_NUM_THREADS": "1",  # pytest-xdist already uses the cores
    "NEXTBEST_WORKERS": "1",
    "MPLBACKEND": "Agg",  # no test opens a window
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}.items():
    os.environ.setdefault(name, value)

# derandomize: a red test is red for everyone. No deadline: a busy machine is not a bug.
settings.register_profile("nextbest", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("nextbest")


ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the clone."""
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Tests write into their temporary folders; a new file at the top of the clone is a path that was forgotten."""
    before = _own()
    yield
    assert _own() <= before, f"tests left {_own() - before} behind"


def _own() -> set[str]:
    """What lies at the top of the clone and in mlruns/, without the caches of tools."""
    names = [path.relative_to(ROOT).as_posix() for path in [*ROOT.iterdir(), *(ROOT / "mlruns").iterdir()]]
    return {name for name in names if not name.startswith((".", "__pycache__", "runs"))}
