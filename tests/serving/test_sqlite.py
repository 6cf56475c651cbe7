"""The store: a log that training can read, whole or not at all, with one owner."""

import json
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from engine.bundle import Bundle
from engine.errors import StoreError
from engine.records import Action, Event
from engine.spec import Spec
from serving.sqlite import SqliteStore
from serving.store import Changes, Contact, Customer, LoggedDecision, Snapshot
from tests.serving.conftest import NOON
from tests.serving.tiny import SPEC

DECISION = LoggedDecision(
    decision_id="d1",
    request_id="r1",
    customer_id="c1",
    decided_at=NOON + 0.123456,
    action=Action("email", "reminder", "now"),
    send_at=NOON + 0.123456,
    moment="daily",
    propensity=0.25,
    policy="abc",
    eligible=("hold", "email/reminder/now"),
    context={"loyalty": "new", "stock": None, "on_site": True},
    time_zone="Europe/Berlin",
    degraded=False,
)
HOLD = replace(DECISION, decision_id="d2", request_id="r2", action=Action(), send_at=None, moment=None, degraded=True)
EVENT = Event("c1", NOON + 1.5, "order", 9.5, "d1", "e1", "email", "reminder", {"till": "7"})
BARE = Event("c2", NOON, "click", event_id="e2")


def filled(path: Path, spec: Spec) -> SqliteStore:
    store = SqliteStore(path, spec, "")
    customers = [Customer("c1", "Europe/Berlin", {"sms": True, "email": False})]
    snapshots = [Snapshot("c1", b"state", "fold", NOON), Snapshot("c2", b"other", "fold", None)]
    store.commit(Changes([DECISION, HOLD], [EVENT, BARE], customers, snapshots))
    return store


def test_what_was_committed_is_found_after_reopening(tmp_path: Path, bundle: Bundle) -> None:
    first = filled(tmp_path / "s.db", bundle.spec)
    salt = first.salt
    first.close()
    store = SqliteStore(tmp_path / "s.db", bundle.spec, "")
    assert store.salt == salt
    assert store.decisions(["d1", "d2", "?"]) == {"d1": DECISION, "d2": HOLD}
    assert store.requested(["r2"]) == {"r2": HOLD}
    assert store.contacts(["d1", "d2"]) == {"d1": Contact("c1", DECISION.action), "d2": Contact("c1", Action())}
    assert store.events(["e1", "e2", "?"]) == {"e1": "c1", "e2": "c2"}
    assert store.customers(["c1", "c2"]) == {"c1": Customer("c1", "Europe/Berlin", {"sms": True, "email": False})}
    assert store.snapshots(["c1", "c2"])["c1"] == Snapshot("c1", b"state", "fold", NOON)
    assert store.history("c2").events == (BARE,)
    assert store.history("c1").events == (EVENT,)
    assert store.history("c1").decisions == (
        (DECISION.decided_at, DECISION.action, DECISION.send_at),
        (HOLD.decided_at, HOLD.action, None),
    )
    assert store.decisions([]) == {}
    store.close()


def test_the_log_is_as_documented(tmp_path: Path, bundle: Bundle) -> None:
    filled(tmp_path / "s.db", bundle.spec).close()
    connection = sqlite3.connect(tmp_path / "s.db")
    connection.row_factory = sqlite3.Row
    d1, d2 = connection.execute("SELECT * FROM decisions ORDER BY decision_id").fetchall()
    assert d1["decided_at"] == "2026-03-02T12:00:00.123456Z"
    assert json.loads(d1["eligible"]) == ["hold", "email/reminder/now"]
    assert (d1["loyalty"], d1["stock"], d1["on_site"]) == ("new", None, 1)
    assert (d2["channel"], d2["content"], d2["timing"], d2["send_at"]) == (None, None, None, None)
    events = connection.execute("SELECT * FROM events ORDER BY event_id").fetchall()
    assert (events[0]["occurred_at"], events[0]["value"]) == ("2026-03-02T12:00:01.500000Z", 9.5)
    assert json.loads(events[0]["properties"]) == {"till": "7"}
    assert events[1]["properties"] is None
    customer = connection.execute("SELECT * FROM customers").fetchone()
    assert (customer["time_zone"], customer["consent_sms"], customer["consent_email"]) == ("Europe/Berlin", 1, 0)
    assert customer["consent_push"] is None
    connection.close()


# ibis reads SQLite through what pandas 3.1 has deprecated.
@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
def test_training_reads_the_store_while_it_is_served(tmp_path: Path, bundle: Bundle) -> None:
    from training.logs import read_log

    store = filled(tmp_path / "s.db", bundle.spec)
    log = read_log(bundle.spec, f"sqlite:///{tmp_path / 's.db'}")
    d1, d2 = sorted(log.decisions.to_pylist(), key=lambda row: row["decision_id"])
    assert d1["decided_at"].timestamp() == DECISION.decided_at
    assert (d1["eligible"], d1["on_site"], d1["stock"]) == (["hold", "email/reminder/now"], True, None)
    assert (d1["time_zone"], d1["propensity"], d1["policy"]) == ("Europe/Berlin", 0.25, "abc")
    assert (d2["channel"], d2["content"], d2["timing"]) == (None, None, None)
    assert {row["event_id"]: row["value"] for row in log.events.to_pylist()} == {"e1": 9.5, "e2": None}
    assert log.customers is not None
    assert log.customers.to_pylist()[0]["consent_sms"] is True
    store.commit(Changes([], [replace(BARE, event_id="e3")], [], []))
    store.close()


def test_a_transaction_is_whole_or_not_at_all(tmp_path: Path, bundle: Bundle) -> None:
    store = filled(tmp_path / "s.db", bundle.spec)
    new = replace(DECISION, decision_id="d3", request_id="r3")
    with pytest.raises(StoreError, match=r"s\.db: the store cannot be written"):
        store.commit(Changes([new], [EVENT], [Customer("c9", "UTC")], []))  # this event is known
    assert store.requested(["r3"]) == {}
    assert store.customers(["c9"]) == {}
    store.commit(Changes([new], [], [], []))
    assert store.requested(["r3"]) == {"r3": new}
    store.close()


def test_what_is_unknown_does_not_overwrite_what_is_known(tmp_path: Path, bundle: Bundle) -> None:
    store = filled(tmp_path / "s.db", bundle.spec)
    store.commit(Changes([], [], [Customer("c1", "Asia/Tokyo")], []))
    assert store.customers(["c1"])["c1"] == Customer("c1", "Asia/Tokyo", {"sms": True, "email": False})
    store.close()


def test_a_new_feature_and_a_new_channel_become_columns(tmp_path: Path, bundle: Bundle) -> None:
    filled(tmp_path / "s.db", bundle.spec).close()
    text = SPEC.replace('[channels.push]\nconsent = "none"', '[channels.push]\nconsent = "none"\n[channels.ads]')
    grown = Spec.parse(text.replace("[context.stock]", '[context.age]\ntype = "number"\n[context.stock]'))
    store = SqliteStore(tmp_path / "s.db", grown, "")
    assert store.decisions(["d1"])["d1"].context == {**DECISION.context, "age": None}
    new = replace(DECISION, decision_id="d3", request_id="r3", context={**DECISION.context, "age": 31.0})
    store.commit(Changes([new], [], [Customer("c1", None, {"ads": False})], []))
    assert store.decisions(["d3"])["d3"] == new
    assert store.customers(["c1"])["c1"].consents == {"sms": True, "email": False, "ads": False}
    store.close()


@pytest.mark.parametrize(("name", "message"), [("channel", "has the name of a column"), ("Loyalty", "upper and lower")])
def test_a_feature_whose_name_is_taken_is_refused(tmp_path: Path, name: str, message: str) -> None:
    spec = Spec.parse(SPEC.replace("[context.stock]", f'[context.{name}]\ntype = "number"\n[context.stock]'))
    with pytest.raises(StoreError, match=message):
        SqliteStore(tmp_path / "s.db", spec, "")
    assert sqlite3.connect(tmp_path / "s.db").execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_the_salt_is_kept(tmp_path: Path, bundle: Bundle) -> None:
    path = tmp_path / "s.db"
    SqliteStore(path, bundle.spec, "pepper").close()
    for given in ("", "pepper"):
        store = SqliteStore(path, bundle.spec, given)
        assert store.salt == "pepper"
        store.close()
    with pytest.raises(StoreError, match="another salt"):
        SqliteStore(path, bundle.spec, "sugar")
    salts = set()
    for other in ("a.db", "b.db"):
        store = SqliteStore(tmp_path / other, bundle.spec, "")
        salts.add(store.salt)
        store.close()
    assert len(salts) == 2


def test_a_store_belongs_to_one_use_case(tmp_path: Path, bundle: Bundle) -> None:
    """As named in its spec; another spec of that name may use it, a spec of another name leaves it untouched."""
    path = tmp_path / "s.db"
    filled(path, bundle.spec).close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"s\.db: found the store of 'tiny', expected one of 'other'.*another file"):
        SqliteStore(path, Spec.parse(SPEC.replace('name = "tiny"', 'name = "other"')), "")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.db"]
    SqliteStore(path, Spec.parse(SPEC + "\n[reward.events.click]\neach = 0.1\n"), "").close()


def test_an_older_store_is_of_the_use_case_that_opens_it_first(tmp_path: Path, bundle: Bundle) -> None:
    path = tmp_path / "s.db"
    filled(path, bundle.spec).close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("DELETE FROM meta WHERE key = 'use_case'")
        connection.execute("UPDATE decisions SET customer_id = 'c7' WHERE decision_id = 'd2'")
    connection.close()
    first = Spec.parse(SPEC.replace('name = "tiny"', 'name = "first"'))
    store = SqliteStore(path, first, "")
    # It kept only customers who had a time zone.
    assert store.customers(["c1", "c2", "c7"]).keys() == {"c1", "c7"}
    assert store.customers(["c1"])["c1"].time_zone == "Europe/Berlin"
    store.close()
    with pytest.raises(StoreError, match="the store of 'first', expected one of 'tiny'"):
        SqliteStore(path, bundle.spec, "")
    SqliteStore(path, first, "").close()


def test_a_store_has_one_owner(tmp_path: Path, bundle: Bundle) -> None:
    store = SqliteStore(tmp_path / "s.db", bundle.spec, "")
    with pytest.raises(StoreError, match="in use by another process"):
        SqliteStore(tmp_path / "s.db", bundle.spec, "")
    store.close()
    store.close()
    SqliteStore(tmp_path / "s.db", bundle.spec, "").close()
    assert [p.name for p in tmp_path.iterdir()] == ["s.db"]


def _garbage(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 500)


def _cut(path: Path) -> None:
    spec = Spec.parse(SPEC)
    filled(path, spec).close()
    path.write_bytes(path.read_bytes()[: 4096 * 3])


def _overwritten(path: Path) -> None:
    filled(path, Spec.parse(SPEC)).close()
    whole = bytearray(path.read_bytes())
    whole[4096 : 4096 * 6] = os.urandom(4096 * 5)
    path.write_bytes(whole)


def _other(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()


def _newer(path: Path) -> None:
    filled(path, Spec.parse(SPEC)).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_garbage, "not a database"),
        (_cut, "corrupt|malformed"),
        (_overwritten, "corrupt|malformed"),
        (_other, "not a NextBest store"),
        (_newer, "schema 99, expected 1"),
    ],
)
def test_a_file_that_is_no_sound_store_is_left_alone(
    tmp_path: Path, bundle: Bundle, damage: object, message: str
) -> None:
    path = tmp_path / "s.db"
    damage(path)  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(StoreError, match=message) as raised:
        SqliteStore(path, bundle.spec, "")
    assert str(path) in str(raised.value)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.db"]


def test_a_store_that_cannot_be_written(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing" / "s.db", tmp_path / "file" / "s.db", tmp_path):
        with pytest.raises(StoreError, match="the store cannot be"):
            SqliteStore(path, bundle.spec, "")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
