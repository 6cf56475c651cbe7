"""What every converter ends with: the tables of a log and its spec in one folder."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from engine.errors import LogError


def write_log(
    out: Path, spec: Path, decisions: pd.DataFrame, events: pd.DataFrame, customers: pd.DataFrame | None = None
) -> Path:
    """decisions, events and customers as Parquet in `out`, next to a copy of the spec. Returns `out`."""
    out.mkdir(parents=True, exist_ok=True)
    decisions.to_parquet(out / "decisions.parquet", index=False)
    events.to_parquet(out / "events.parquet", index=False)
    if customers is not None:
        customers.to_parquet(out / "customers.parquet", index=False)
    shutil.copyfile(spec, out / "nextbest.toml")
    return out


def package_folder(package: str, install: str) -> Path:
    """Where an installed package keeps its files, found without importing it. Raises LogError when it is missing."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise LogError(f"the data of {package} are not installed; {install}")
    return Path(found.submodule_search_locations[0])


def existing(path: Path, source: str) -> Path:
    """The path itself. Raises LogError when there is no such file."""
    if not path.is_file():
        raise LogError(f"{path}: found no such file; {source}")
    return path
