"""The tables of the SQLite store. `decisions`, `events` and `customers` are the log as `training` reads it.

Times are ISO-8601 text in UTC with microseconds and Z, so that they sort as they are. `eligible` is a JSON list of
"channel/content/timing" texts. Each context feature is a column of `decisions`; each channel's consent, as far
as it was known before the first event, is one of `customers`.
"""

import secrets
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from engine.errors import StoreError
from engine.spec import Spec

APPLICATION = 0x4E784273
"""SQLite's application_id of a NextBest store ("NxBs")."""

VERSION = 1
"""Of the tables below; SQLite's user_version."""

DECISION = {
    "decision_id": "TEXT PRIMARY KEY",
    "request_id": "TEXT NOT NULL UNIQUE",
    "customer_id": "TEXT NOT NULL",
    "decided_at": "TEXT NOT NULL",
    "channel": "TEXT",
    "content": "TEXT",
    "timing": "TEXT",
    "send_at": "TEXT",
    "moment": "TEXT",
    "propensity": "REAL NOT NULL",
    "policy": "TEXT NOT NULL",
    "eligible": "TEXT NOT NULL",
    "time_zone": "TEXT NOT NULL",
    "degraded": "BOOLEAN NOT NULL",
}

EVENT = {
    "event_id": "TEXT PRIMARY KEY",
    "customer_id": "TEXT NOT NULL",
    "occurred_at": "TEXT NOT NULL",
    "kind": "TEXT NOT NULL",
    "value": "REAL",
    "decision_id": "TEXT",
    "channel": "TEXT",
    "content": "TEXT",
    "properties": "TEXT",
}

CUSTOMER = {"customer_id": "TEXT PRIMARY KEY", "time_zone": "TEXT"}

JOURNEY = {
    "customer_id": "TEXT PRIMARY KEY",
    "state": "BLOB NOT NULL",
    "fold": "TEXT NOT NULL",
    "decided_at": "TEXT",
}

_TABLES = {"decisions": DECISION, "events": EVENT, "customers": CUSTOMER, "journeys": JOURNEY}
_TYPES = {"number": "REAL", "flag": "BOOLEAN", "category": "TEXT"}


def check(connection: sqlite3.Connection, path: Path, use_case: str) -> None:
    """Raises StoreError unless the database is sound, and empty or a store of this use case (the spec's name).

    Changes nothing. A store that was made before stores knew their use case is one of any.
    """
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise StoreError(f"{path}: the store is corrupt: {damage}")
    if _is_empty(connection):
        return
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION:
        raise StoreError(f"{path}: is an SQLite database, but not a NextBest store")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise StoreError(f"{path}: the store has schema {version}, expected {VERSION}")
    owner = connection.execute("SELECT value FROM meta WHERE key = 'use_case'").fetchone()
    if owner is not None and owner[0] != use_case:
        raise StoreError(
            f"{path}: found the store of {owner[0]!r}, expected one of {use_case!r}, as the spec of the bundle is "
            "named; every use case needs a store of its own: give --store another file"
        )


def lay_out(connection: sqlite3.Connection, path: Path, spec: Spec, salt: str) -> str:
    """Makes the tables or adds columns that the spec has gained, notes whose store it is, and returns the salt that
    holds.

    To be called within a transaction, after `check`. Raises StoreError for another salt.
    """
    if _is_empty(connection):
        _create(connection, salt or secrets.token_hex(16))
    found: str = connection.execute("SELECT value FROM meta WHERE key = 'salt'").fetchone()[0]
    if salt not in ("", found):
        raise StoreError(
            f"{path}: the store was made with another salt than the one given; its logged draws could not be replayed"
        )
    if connection.execute("INSERT OR IGNORE INTO meta VALUES ('use_case', ?)", (spec.name,)).rowcount:
        # A store from before that entry, which kept customers only when they had a time zone.
        connection.execute("INSERT OR IGNORE INTO customers(customer_id) SELECT DISTINCT customer_id FROM decisions")
    features = {f.name: _TYPES[f.type] for f in spec.context.features}
    _grow(connection, path, "decisions", features, DECISION)
    consents = {f"consent_{c.name}": "BOOLEAN" for c in spec.catalogue.channels}
    _grow(connection, path, "customers", consents, CUSTOMER)
    return found


def _is_empty(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None


def _create(connection: sqlite3.Connection, salt: str) -> None:
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
    connection.execute("INSERT INTO meta VALUES ('salt', ?)", (salt,))
    for table, columns in _TABLES.items():
        connection.execute(f"CREATE TABLE {table} ({', '.join(f'{c} {t}' for c, t in columns.items())})")
    connection.execute("CREATE INDEX decisions_of_customer ON decisions(customer_id, decided_at)")
    connection.execute("CREATE INDEX events_of_customer ON events(customer_id, occurred_at)")


def _grow(
    connection: sqlite3.Connection,
    path: Path,
    table: str,
    wanted: Mapping[str, str],
    fixed: Mapping[str, str],
) -> None:
    """SQLite's column names know no upper and lower case."""
    present = {row[1].lower(): row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    for name, kind in wanted.items():
        if name.lower() in fixed:
            raise StoreError(f"{path}: context feature {name!r} has the name of a column of the log; rename it")
        taken = present.get(name.lower())
        if taken not in (None, name):
            raise StoreError(f"{path}: {name!r} and {taken!r} differ in upper and lower case only; rename one")
        if taken is None:
            connection.execute(f'ALTER TABLE {table} ADD COLUMN "{name}" {kind}')
            present[name.lower()] = name
