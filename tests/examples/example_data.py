"""Where the data sets lie that tests may use but that are not part of the repository."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
"""The folder of the clone."""


def data_folder(name: str) -> Path:
    """The folder of a data set. Skips where it is not."""
    folder = place(name)
    if not folder.is_dir():
        pytest.skip(f"no data set {name}: set NEXTBEST_DATA to the folder that holds it")
    return folder


def place(name: str) -> Path:
    """Where the folder of a data set should be: in $NEXTBEST_DATA, else in shared/data next to the clone."""
    base = os.environ.get("NEXTBEST_DATA")
    return (Path(base) if base else ROOT.parent / "shared" / "data") / name
