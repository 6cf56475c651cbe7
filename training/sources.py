"""Where a log lies: a folder of Parquet, CSV or JSON-lines files, or a database that Ibis can connect to.

Text files are read as text only, so that no reader's guess at types or time zones comes between the file and
the checks.
"""

import csv
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from engine.errors import LogError, nearest

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
        if not self._is_url and not self._folder.is_dir():
            expected = "expected a folder with decisions and events, or a database URL such as sqlite://log.db"
            raise LogError(f"{self.name}: found no such folder; {expected}")
        self._connection = _connect(_found(str(place), self.name) if self._is_url else "duckdb://", self.name)

    def close(self) -> None:
        self._connection.disconnect()

    def read(self, name: str, wanted: Iterable[str]) -> RawTable | None:
        """The table's wanted columns, rows in the order they lie in; None where there is no such table.
        Raises LogError.
        """
        if self._is_url:
            where = f"{self.name}: table {name}"
            table = _attempt(where, lambda: self._table(name))
            return None if table is None else self._fetch(where, lambda: table, wanted)
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

    def _table(self, name: str) -> Any:
        """A database's table, None where there is none. Not by listing the tables: Ibis 12 cannot with DuckDB 2."""
        from ibis.common.exceptions import TableNotFound

        try:
            return self._connection.table(name)
        except TableNotFound:
            return None

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

    backend = url.partition("://")[0].replace("postgresql", "postgres")
    known = sorted(entry.name for entry in entry_points(group="ibis.backends"))
    if backend not in (*known, "file"):
        raise LogError(f"{name}: found no database of the kind {backend!r}{nearest(backend, known)}")
    try:
        connection = _attempt(name, lambda: ibis.connect(url))
    except LogError as error:
        if isinstance(error.__cause__, ImportError):
            remedy = f"pip install 'ibis-framework[{backend}]'"  # its extras are called like its backends
            raise LogError(f"{name}: reading {backend} needs packages that are not installed: {remedy}") from error
        raise
    if connection.name == "duckdb":
        connection.raw_sql("SET TimeZone = 'UTC'")  # the session's zone must never colour an instant
    return connection


def _found(url: str, name: str) -> str:
    """The URL as Ibis reads it: of a file database two slashes and a path, a third slash begins an absolute one.

    SQLAlchemy writes a relative path after three slashes; so is the URL meant where only such a file exists. Raises
    LogError where none does: connecting would make it.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in ("sqlite", "duckdb"):
        return url
    path, mark, query = rest.partition("?")
    candidates = [Path(path)] + ([Path(path.lstrip("/"))] if path.startswith("/") else [])
    for candidate in candidates:
        if candidate.is_file():
            return f"{scheme}://{candidate.absolute()}{mark}{query}"
    places = " and no ".join(str(c) for c in candidates)
    raise LogError(f"{name}: found no file {places}, expected a database with tables decisions and events")


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
