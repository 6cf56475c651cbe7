"""Where a log lies: a folder of Parquet, CSV or JSON-lines files, or a database that Ibis can connect to.

Text files are read as text only, so that no reader's guess at types or time zones comes between the file and
the checks.
"""

import csv
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from engine.errors import LogError

SUFFIXES = ("parquet", "csv", "jsonl")
LIST_COLUMNS = ("eligible",)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RawTable:
    """One table as it lies there: the wanted columns it has, and the names of all its columns. `where` begins
    messages.
    """

    where: str
    table: pa.Table
    names: tuple[str, ...]


class Source:
    """A place with the tables decisions, events and perhaps customers."""

    def __init__(self, place: str | Path) -> None:
        """Raises LogError when there is no such folder or database."""
        self._is_url = "://" in str(place)
        self.name = _without_password(str(place))
        self._folder = Path(place)
        if self._is_url:
            _check_database_file(str(place), self.name)
        elif not self._folder.is_dir():
            expected = "expected a folder with decisions and events, or a database URL such as sqlite:///log.db"
            raise LogError(f"{self.name}: found no such folder; {expected}")
        self._connection = _connect(str(place) if self._is_url else "duckdb://", self.name)

    def close(self) -> None:
        self._connection.disconnect()

    def read(self, name: str, wanted: Iterable[str]) -> RawTable | None:
        """The table's wanted columns, rows in the order they lie in; None where there is no such table.
        Raises LogError.
        """
        if self._is_url:
            where = f"{self.name}: table {name}"
            if name not in _attempt(self.name, self._connection.list_tables):
                return None
            return self._fetch(where, lambda: self._connection.table(name), wanted)
        found = [p for s in SUFFIXES if (p := self._folder / f"{name}.{s}").exists()]
        if len(found) > 1:
            raise LogError(f"{self.name}: found {' and '.join(p.name for p in found)}, expected one of them")
        if not found:
            return None
        path, wanted = found[0], list(wanted)
        readers: dict[str, Callable[[], Any]] = {
            ".parquet": lambda: self._connection.read_parquet(_parts(path, "parquet")),
            ".csv": lambda: self._csv(path),
            ".jsonl": lambda: self._json(path, wanted),
        }
        return self._fetch(str(path), readers[path.suffix], wanted)

    def missing(self, name: str) -> LogError:
        places = f"a table {name}" if self._is_url else " or ".join(f"{name}.{s}" for s in SUFFIXES)
        return LogError(f"{self.name}: found no {name}, expected {places}")

    def _fetch(self, where: str, open_table: Callable[[], Any], wanted: Iterable[str]) -> RawTable:
        def fetch() -> RawTable:
            table = open_table()
            if table is None:  # JSON lines without any of the wanted keys
                return RawTable(where, pa.table({}), ())
            names = tuple(table.columns)
            picked = [c for c in dict.fromkeys(wanted) if c in names]
            return RawTable(where, table.select(picked).to_pyarrow() if picked else pa.table({}), names)

        return _attempt(where, fetch)

    def _csv(self, path: Path) -> Any:
        """Every column as text; the delimiter is the one that the header line uses most."""
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline()
        delimiter = max(",;\t", key=line.count)
        header = next(csv.reader([line], delimiter=delimiter), [])
        if not header:
            raise LogError(f"{path}: the file is empty, expected a line with the names of the columns")
        columns = dict.fromkeys(header, "VARCHAR")
        if len(columns) < len(header):
            raise LogError(f"{path}: row 0 (header): found a column name twice, expected names that differ")
        form = {"header": True, "auto_detect": False, "delim": delimiter, "quote": '"', "escape": '"'}
        return self._connection.read_csv(str(path), columns=columns, **form)

    def _json(self, path: Path, wanted: list[str]) -> Any:
        """The wanted keys as text. A key that no line holds is not a column; keys that are not wanted are not
        seen.
        """
        columns = {c: "VARCHAR[]" if c in LIST_COLUMNS else "VARCHAR" for c in wanted}
        table = self._connection.read_json(str(path), columns=columns, format="newline_delimited")
        held = table.aggregate([table[c].count().name(c) for c in wanted]).to_pyarrow().to_pylist()[0]
        there = [c for c in wanted if held[c]]
        return table.select(there) if there else None


def _parts(path: Path, suffix: str) -> str:
    """A file, or the folder of part files that Spark and others write under a file's name."""
    return str(path / f"**/*.{suffix}") if path.is_dir() else str(path)


def _connect(url: str, name: str) -> Any:
    import ibis

    connection = _attempt(name, lambda: ibis.connect(url))
    if connection.name == "duckdb":
        connection.raw_sql("SET TimeZone = 'UTC'")  # the session's zone must never colour an instant
    return connection


def _check_database_file(url: str, name: str) -> None:
    """A file database that does not exist would be created by connecting to it."""
    scheme, _, rest = url.partition("://")
    path = Path(rest.partition("?")[0])
    if scheme in ("sqlite", "duckdb") and not path.is_file():
        raise LogError(f"{name}: found no file {path}, expected a database with tables decisions and events")


def _attempt(where: str, read: Callable[[], T]) -> T:
    """Run a reader; whatever a file format or a database driver raises becomes a LogError with its first line."""
    try:
        return read()
    except LogError:
        raise
    except Exception as error:  # every driver has its own tree of errors
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise LogError(f"{where}: cannot be read: {_without_password(reason)}") from error


def _without_password(text: str) -> str:
    return re.sub(r"//[^@/]*@", "//", text)
