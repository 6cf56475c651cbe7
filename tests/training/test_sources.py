"""Where a log lies: the URLs of databases, and what is said of those that cannot be read."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from engine.errors import LogError
from tests.training.small_log import SPEC, tiny_log
from training.logs import read_log


@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
def test_the_path_of_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, relative: bool) -> None:
    """From here after two slashes, absolute after three; three slashes also as SQLAlchemy means them."""
    monkeypatch.chdir(tmp_path)
    for name, frame in tiny_log().items():
        for column in {"decided_at", "occurred_at"} & set(frame):
            frame[column] = frame[column].map(pd.Timestamp.isoformat)
        if scheme == "sqlite":
            with closing(sqlite3.connect("log.db")) as database:
                frame.to_sql(name, database, index=False)
        else:
            with duckdb.connect("log.db") as database:
                database.register("frame", frame)
                database.execute(f"CREATE TABLE {name} AS SELECT * FROM frame")
    paths = ["log.db", "/log.db"] if relative else [f"{tmp_path}/log.db", f"/{tmp_path}/log.db"]
    for path in paths:
        assert len(read_log(SPEC, f"{scheme}://{path}").decisions) == len(tiny_log()["decisions"])
    with pytest.raises(LogError, match=r"found no file /nowhere\.db and no nowhere\.db, expected a database"):
        read_log(SPEC, f"{scheme}:///nowhere.db")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.db"]


@pytest.mark.parametrize("url", ["postgres://me:secret@host/db", "postgresql://host/db"])
def test_a_backend_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(LogError, match=r"needs packages .*: pip install 'ibis-framework\[postgres\]'$") as error:
        read_log(SPEC, url)
    assert "secret" not in str(error.value)


def test_an_unknown_kind_of_database_is_named() -> None:
    with pytest.raises(LogError, match="no database of the kind 'postgers'; did you mean 'postgres'"):
        read_log(SPEC, "postgers://host/db")
