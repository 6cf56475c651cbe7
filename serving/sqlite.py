"""The embedded store: one SQLite file in WAL mode. `training` reads it as it is, through Ibis (`sqlite://path`)."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.clock import format_instant, parse_instant
from engine.encoding import ContextFeature
from engine.errors import StoreError
from engine.records import Action, Event, Value
from engine.spec import Spec
from serving.schema import CUSTOMER, DECISION, EVENT, check, lay_out
from serving.single import SingleOwner
from serving.store import Changes, Contact, Customer, History, LoggedDecision, Snapshot

CHECKPOINT = 4096
"""Pages of 4 KiB in the WAL before they move into the file; rarer than SQLite's 1000, as each time costs an fsync."""


class SqliteStore:
    """A `Store` in one file, owned by one process at a time; others may read it while it is served.

    A commit is on the disk when it returns (WAL, synchronous=FULL): one fsync for a whole batch of decisions.
    Not safe for use from several threads at once.
    """

    def __init__(self, path: Path, spec: Spec, salt: str) -> None:
        """Opens the store, or makes it with this salt. Columns of new context features and channels are added.

        Raises StoreError when the file cannot be written, is corrupt, is something else, has another owner, belongs
        to another use case (spec name), or was made with another salt ("" = take the store's).
        """
        self._path = path
        self._features = spec.context.features
        self._channels = tuple(c.name for c in spec.catalogue.channels)
        self._owner = SingleOwner(path)
        try:
            with self._reported("cannot be opened"):
                self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._prepare(spec, salt)
        except BaseException:
            self.close()
            raise

    @property
    def salt(self) -> str:
        return self._salt

    def decisions(self, decision_ids: Sequence[str]) -> dict[str, LoggedDecision]:
        return {d.decision_id: d for d in self._decisions("decision_id", decision_ids)}

    def requested(self, request_ids: Sequence[str]) -> dict[str, LoggedDecision]:
        return {d.request_id: d for d in self._decisions("request_id", request_ids)}

    def contacts(self, decision_ids: Sequence[str]) -> dict[str, Contact]:
        columns = "decision_id, customer_id, channel, content, timing"
        rows = self._found(f"SELECT {columns} FROM decisions WHERE decision_id", decision_ids)
        return {row["decision_id"]: Contact(row["customer_id"], _action(row)) for row in rows}

    def events(self, event_ids: Sequence[str]) -> dict[str, str]:
        rows = self._found("SELECT event_id, customer_id FROM events WHERE event_id", event_ids)
        return {row["event_id"]: row["customer_id"] for row in rows}

    def customers(self, customer_ids: Sequence[str]) -> dict[str, Customer]:
        rows = self._found("SELECT * FROM customers WHERE customer_id", customer_ids)
        return {row["customer_id"]: self._customer(row) for row in rows}

    def snapshots(self, customer_ids: Sequence[str]) -> dict[str, Snapshot]:
        rows = self._found("SELECT * FROM journeys WHERE customer_id", customer_ids)
        return {
            row["customer_id"]: Snapshot(
                row["customer_id"], row["state"], row["fold"], _optional_instant(row["decided_at"])
            )
            for row in rows
        }

    def history(self, customer_id: str) -> History:
        contacts = "SELECT decided_at, channel, content, timing, send_at FROM decisions WHERE customer_id"
        return History(
            events=tuple(_event(row) for row in self._found("SELECT * FROM events WHERE customer_id", [customer_id])),
            decisions=tuple(
                (_instant(row["decided_at"]), _action(row), _optional_instant(row["send_at"]))
                for row in self._found(contacts, [customer_id])
            ),
        )

    def commit(self, changes: Changes) -> None:
        with self._transaction() as connection:
            connection.executemany(self._insert_decision, [self._decision_row(d) for d in changes.decisions])
            connection.executemany(_insert("events", EVENT), [_event_row(e) for e in changes.events])
            connection.executemany(self._upsert_customer, [self._customer_row(c) for c in changes.customers])
            connection.executemany(
                "INSERT OR REPLACE INTO journeys(customer_id, state, fold, decided_at) VALUES (?, ?, ?, ?)",
                [(s.customer_id, s.state, s.fold, _optional_text(s.decided_at)) for s in changes.snapshots],
            )

    def close(self) -> None:
        connection = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()
        self._owner.release()

    def _prepare(self, spec: Spec, salt: str) -> None:
        with self._reported("cannot be read"):
            self._connection.row_factory = sqlite3.Row
            check(self._connection, self._path, spec.name)
        with self._reported("cannot be written"):
            mode = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise StoreError(f"{self._path}: this file system does not support SQLite's WAL mode")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT}")
        with self._transaction() as connection:
            self._salt = lay_out(connection, self._path, spec, salt)
        decision = [*DECISION, *(f.name for f in self._features)]
        self._insert_decision = _insert("decisions", decision)
        self._upsert_customer = _upsert([*CUSTOMER, *(f"consent_{c}" for c in self._channels)])

    def _decisions(self, key: str, values: Sequence[str]) -> list[LoggedDecision]:
        rows = self._found(f"SELECT * FROM decisions WHERE {key}", values)
        return [_decision(row, self._features) for row in rows]

    def _decision_row(self, d: LoggedDecision) -> list[Any]:
        send_at = _optional_text(d.send_at)
        fixed: list[Any] = [d.decision_id, d.request_id, d.customer_id, format_instant(d.decided_at)]
        fixed += [d.action.channel, d.action.content, d.action.timing, send_at, d.moment, d.propensity, d.policy]
        fixed += [_eligible_text(d.eligible), d.time_zone, d.degraded]
        return fixed + [d.context.get(f.name) for f in self._features]

    def _customer(self, row: sqlite3.Row) -> Customer:
        found = {c: row[f"consent_{c}"] for c in self._channels}
        consents = {channel: bool(given) for channel, given in found.items() if given is not None}
        return Customer(row["customer_id"], row["time_zone"], consents)

    def _customer_row(self, customer: Customer) -> list[Any]:
        return [customer.customer_id, customer.time_zone, *(customer.consents.get(c) for c in self._channels)]

    def _found(self, select: str, values: Sequence[str]) -> list[sqlite3.Row]:
        """Rows whose key, named at the end of `select`, is one of `values`; however many, it is one statement."""
        if not values:
            return []
        with self._reported("cannot be read"):
            query = f"{select} IN (SELECT value FROM json_each(?))"
            return self._connection.execute(query, (json.dumps(values),)).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reported("cannot be written"):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self._path}: the store {what}: {error}") from error


def _decision(row: sqlite3.Row, features: Sequence[ContextFeature]) -> LoggedDecision:
    return LoggedDecision(
        decision_id=row["decision_id"],
        request_id=row["request_id"],
        customer_id=row["customer_id"],
        decided_at=_instant(row["decided_at"]),
        action=_action(row),
        send_at=_optional_instant(row["send_at"]),
        moment=row["moment"],
        propensity=row["propensity"],
        policy=row["policy"],
        eligible=tuple(json.loads(row["eligible"])),
        context={f.name: _value(f, row[f.name]) for f in features},
        time_zone=row["time_zone"],
        degraded=bool(row["degraded"]),
    )


def _value(feature: ContextFeature, found: Any) -> Value:
    return bool(found) if feature.type == "flag" and found is not None else found


def _action(row: sqlite3.Row) -> Action:
    return Action(row["channel"], row["content"], row["timing"])


def _event(row: sqlite3.Row) -> Event:
    return Event(
        customer_id=row["customer_id"],
        occurred_at=_instant(row["occurred_at"]),
        kind=row["kind"],
        value=row["value"],
        decision_id=row["decision_id"],
        event_id=row["event_id"],
        channel=row["channel"],
        content=row["content"],
        properties=json.loads(row["properties"] or "{}"),
    )


def _event_row(e: Event) -> list[Any]:
    properties = json.dumps(dict(e.properties)) if e.properties else None
    occurred_at = format_instant(e.occurred_at)
    return [e.event_id, e.customer_id, occurred_at, e.kind, e.value, e.decision_id, e.channel, e.content, properties]


def _insert(table: str, columns: Iterable[str]) -> str:
    names = [f'"{c}"' for c in columns]
    return f"INSERT INTO {table}({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


def _upsert(columns: Sequence[str]) -> str:
    """What is not known now does not overwrite what was known."""
    kept = ", ".join(f'"{c}" = coalesce(excluded."{c}", "{c}")' for c in columns[1:])
    return f"{_insert('customers', columns)} ON CONFLICT(customer_id) DO UPDATE SET {kept}"


@lru_cache(maxsize=4096)
def _eligible_text(eligible: tuple[str, ...]) -> str:
    """The same few sets come up again and again; writing them anew would cost more than the decision."""
    return json.dumps(eligible, separators=(",", ":"))


def _instant(text: str) -> float:
    return parse_instant(text, "store")


def _optional_instant(text: str | None) -> float | None:
    return None if text is None else _instant(text)


def _optional_text(at: float | None) -> str | None:
    return None if at is None else format_instant(at)
