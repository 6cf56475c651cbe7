import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import LogError
from engine.spec import Spec
from tests.training.small_log import SPEC, START, TEXT, Frames, random_log, tiny_log, write
from training.journeys import Journeys
from training.logs import Log, read_log, run
from training.tables import context_matrix, seconds

HOUR = pd.Timedelta(hours=1)


def log_of(frames: Frames, folder: Path, suffix: str = "parquet") -> Log:
    return read_log(SPEC, write(frames, folder, suffix))


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_every_kind_of_file_gives_the_same_log(suffix: str, tmp_path: Path) -> None:
    frames = random_log(1)
    frames["decisions"]["eligible"] = [["hold", "email/tips/now"], ["hold"]] * 30
    expected = log_of(frames, tmp_path / "parquet")
    if suffix == "csv":
        frames["decisions"]["eligible"] = frames["decisions"]["eligible"].map(";".join)
    found = log_of(frames, tmp_path / suffix, suffix)
    for name in ("decisions", "events", "customers"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.schema == theirs.schema
        assert ours.to_pylist() == theirs.to_pylist()


def test_a_database_gives_the_same_log(tmp_path: Path) -> None:
    frames = random_log(2)
    expected = log_of(frames, tmp_path / "parquet")
    with sqlite3.connect(tmp_path / "log.db") as database:
        for name, frame in frames.items():
            for column in ("decided_at", "occurred_at"):
                if column in frame:
                    frame = frame.assign(**{column: frame[column].map(pd.Timestamp.isoformat)})
            frame.to_sql(name, database, index=False)
    database.close()
    found = read_log(SPEC, f"sqlite://{tmp_path}/log.db")
    assert found.decisions.to_pylist() == expected.decisions.to_pylist()
    assert found.events.to_pylist() == expected.events.to_pylist()
    assert found.customers is not None
    assert expected.customers is not None
    assert found.customers.to_pylist() == expected.customers.to_pylist()


def test_part_files_in_a_folder_are_one_table(tmp_path: Path) -> None:
    frames = tiny_log()
    write({"events": frames["events"]}, tmp_path)
    (tmp_path / "decisions.parquet").mkdir()
    for i, part in enumerate((frames["decisions"].iloc[:2], frames["decisions"].iloc[2:])):
        part.to_parquet(tmp_path / "decisions.parquet" / f"part-{i}.parquet")
    assert read_log(SPEC, tmp_path).decisions["decision_id"].to_pylist() == ["d1", "d2", "d3", "d4"]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_instants_are_exact_in_every_unit_and_zone(unit: str, zone: str, tmp_path: Path) -> None:
    """Also in the hour that Berlin skips, and in the one that New York has twice."""
    exact = [pd.Timestamp(t) for t in ("2026-03-29T01:30:00Z", "2026-11-01T05:30:00Z", "2026-11-01T06:30:00.123456Z")]
    frames = tiny_log()
    decided = pa.Table.from_pandas(frames["decisions"].iloc[:3].drop(columns="decided_at"))
    times = pa.array([t.value // 1000 for t in exact], pa.timestamp("us", "UTC")).cast(
        pa.timestamp(unit, zone), safe=False
    )
    write({"events": frames["events"]}, tmp_path)
    pq.write_table(decided.append_column("decided_at", times), tmp_path / "decisions.parquet")
    found = seconds(read_log(SPEC, tmp_path).decisions["decided_at"])
    expected = np.array([t.timestamp() for t in exact])
    np.testing.assert_array_equal(
        found,
        expected if unit in ("us", "ns") else np.floor(expected * 1000) / 1000 if unit == "ms" else np.floor(expected),
    )


def test_texts_with_different_offsets_are_exact(tmp_path: Path) -> None:
    frames = tiny_log()
    frames["decisions"]["decided_at"] = [
        "2026-03-25T01:00:00+01:00",
        "2026-03-26 00:00:00.000001Z",
        "2026-03-27T18:00:00-06",
        "2026-03-25T00:00:00+0000",
    ]
    for suffix in ("parquet", "csv", "jsonl"):
        found = seconds(log_of(frames, tmp_path / suffix, suffix).decisions["decided_at"])
        day = START.timestamp()
        np.testing.assert_array_equal(found, [day, day + 86400 + 1e-6, day + 3 * 86400, day])


def test_large_whole_numbers_are_ids_to_the_last_digit(tmp_path: Path) -> None:
    frames = tiny_log()
    frames["decisions"]["decision_id"] = [2**53 + 1, 2**53 + 2, 2**62, 7]
    frames["events"]["decision_id"] = pd.array([None, 2**53 + 1, 2**53 + 2, None], "Int64")
    log = log_of(frames, tmp_path)
    assert log.decisions["decision_id"].to_pylist() == [str(2**53 + 1), str(2**53 + 2), str(2**62), "7"]
    assert log.events["channel"].to_pylist() == [None, "email", None, None]


def test_whole_numbers_that_became_floats_are_still_ids(tmp_path: Path) -> None:
    frames = tiny_log()
    frames["decisions"]["decision_id"] = [1, 2, 3, 4]
    frames["events"]["decision_id"] = [np.nan, 1.0, 1.0, np.nan]
    assert log_of(frames, tmp_path).events["decision_id"].to_pylist() == [None, "1", "1", None]


def test_flags_come_in_many_forms(tmp_path: Path) -> None:
    frames = tiny_log()
    for online in ([True, False, True, False], [1, 0, 1, 0], ["yes", "No", "TRUE", "f"], [1.0, 0.0, 1.0, 0.0]):
        frames["decisions"]["online"] = online
        for suffix in ("parquet", "csv"):
            assert log_of(frames, tmp_path, suffix).decisions["online"].to_pylist() == [True, False, True, False]
            (tmp_path / f"decisions.{suffix}").unlink()
            (tmp_path / f"events.{suffix}").unlink()


def test_context_columns_are_what_a_request_with_the_same_values_gives(tmp_path: Path) -> None:
    frames = random_log(3)
    log = log_of(frames, tmp_path)
    matrix = context_matrix(SPEC.context, log.decisions, log.customers)
    loyalty = dict(zip(frames["customers"]["customer_id"], frames["customers"]["loyalty"], strict=True))
    for row, decision in zip(matrix, frames["decisions"].itertuples(), strict=True):
        balance = None if np.isnan(decision.balance) else decision.balance
        context = {"loyalty": loyalty[decision.customer_id], "balance": balance, "online": bool(decision.online)}
        np.testing.assert_array_equal(row, SPEC.context.row(context))


def test_channel_and_timing_may_be_left_out_where_there_is_only_one(tmp_path: Path) -> None:
    spec = Spec.parse(
        """
        name = "one"
        [events.order]
        value = "EUR"
        [channels.email]
        [[contents]]
        id = "offer"
        [reward.events.order]
        per_value = 1.0
        """
    )
    frames = tiny_log()
    frames["decisions"] = frames["decisions"][["decision_id", "customer_id", "decided_at"]]
    frames["decisions"]["content"] = ["offer", None, "offer", None]
    frames["events"] = frames["events"][frames["events"]["kind"] == "order"]
    found = Journeys.of(spec, read_log(spec, write(frames, tmp_path)))
    np.testing.assert_array_equal(found.action, [1, 0, 1, 0])


def test_semicolons_may_part_a_csv(tmp_path: Path) -> None:
    frames = tiny_log()
    write(frames, tmp_path, "csv")
    for path in tmp_path.iterdir():
        path.write_text(path.read_text().replace(",", ";"))
    assert len(read_log(SPEC, tmp_path).decisions) == 4


Change = Callable[[Frames], None]


def _set(table: str, column: str, value: object, row: int | None = 1) -> Change:
    def change(frames: Frames) -> None:
        if row is None:
            frames[table][column] = value
        else:
            frames[table][column] = frames[table][column].astype(object) if column in frames[table] else None
            frames[table].at[row, column] = value

    return change


def _drop(table: str, column: str) -> Change:
    def change(frames: Frames) -> None:
        frames[table] = frames[table].drop(columns=column)

    return change


def _empty(frames: Frames) -> None:
    frames["decisions"] = frames["decisions"].iloc[:0]


def _naive(frames: Frames) -> None:
    frames["decisions"]["decided_at"] = frames["decisions"]["decided_at"].dt.tz_localize(None)


def _repeat_with_a_difference(frames: Frames) -> None:
    again = frames["decisions"].iloc[[0]].assign(propensity=0.75)
    frames["decisions"] = pd.concat([frames["decisions"], again])


def _customers(**columns: list[object]) -> Change:
    def change(frames: Frames) -> None:
        frames["customers"] = pd.DataFrame({"customer_id": ["a", "b"], **columns})

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("decisions", "decision_id"), "decisions.parquet: column decision_id: is missing"),
        (_drop("decisions", "timing"), "column timing: is missing.*more than one timing"),
        (_drop("decisions", "online"), "column online: is missing, expected the flag"),
        (_drop("decisions", "loyalty"), "column loyalty: is missing, expected the category"),
        (_drop("events", "kind"), "events.parquet: column kind: is missing"),
        (
            _set("decisions", "propensity", 1.5),
            r"row 2: column propensity: found 1.5, expected a probability in \(0, 1\]",
        ),
        (_set("decisions", "propensity", 0.0), "row 2: column propensity: found 0.0"),
        (_set("decisions", "propensity", float("inf")), "row 2: column propensity: found inf"),
        (_set("decisions", "propensity", "high", None), "row 1: column propensity: found 'high', expected a number"),
        (_naive, "decided_at: found timestamps without a time zone .*2026.*tz_localize"),
        (
            _set("decisions", "decided_at", "2026-03-25T09:00", None),
            "row 1: column decided_at: found '2026-03-25T09:00'.*zone",
        ),
        (_set("decisions", "decided_at", "2026-03-25", None), "row 1: column decided_at: found '2026-03-25'.*zone"),
        (
            _set("decisions", "decided_at", "2026-13-25T09:00Z", None),
            "row 1: column decided_at: found '2026-13-25T09:00Z'",
        ),
        (_set("decisions", "decided_at", 1_770_000_000, None), "column decided_at: found int64 .*1770000000.*zone"),
        (_set("decisions", "decided_at", None), "row 2: column decided_at: found None"),
        (_set("decisions", "customer_id", None), "row 2: column customer_id: found None, expected a text in every row"),
        (_set("decisions", "channel", "emial", 0), "row 1: column channel: found 'emial'.*did you mean 'email'"),
        (_set("decisions", "content", "ofer", 0), "row 1: column content: found 'ofer'.*did you mean 'offer'"),
        (_set("decisions", "timing", "noon", 0), "row 1: column timing: found 'noon'.*known: 'now', 'evening'"),
        (_set("decisions", "channel", "push", 0), "row 1: columns channel, content, timing: found push/offer/evening"),
        (_set("decisions", "channel", None, 0), "row 1: columns channel, content, timing: found None/offer/evening"),
        (_set("decisions", "online", None), "row 2: column online: found None, expected true or false"),
        (_set("decisions", "online", "maybe", None), "row 1: column online: found 'maybe', expected true or false"),
        (
            _set("decisions", "balance", -101.0, 2),
            "row 3: column balance: found -101.0, expected a number from -100 to inf",
        ),
        (_set("decisions", "loyalty", float("nan"), 3), "row 4: column loyalty: found None, expected a text"),
        (
            _set("decisions", "eligible", "hold;email/ofer/now", 2),
            "row 3: column eligible: found 'email/ofer/now'.*did you",
        ),
        (_set("decisions", "time_zone", "Berlin", 2), "row 3: column time_zone: found 'Berlin', expected an IANA name"),
        (_set("events", "kind", "oder"), "events.parquet: row 2: column kind: found 'oder'.*did you mean 'order'"),
        (_set("events", "channel", "fax"), "events.parquet: row 2: column channel: found 'fax'"),
        (_set("events", "value", float("inf")), "events.parquet: row 2: column value: found inf"),
        (_empty, "decisions.parquet: found no rows, expected at least one decision"),
        (_repeat_with_a_difference, "row 5: column decision_id: found 'd1', expected a decision_id of its own"),
        (
            _customers(consent_emial=[True, None]),
            "column consent_emial: .*no channel 'emial' is declared.*'email'",
        ),
        (_customers(consent_email=["x", None]), "customers.parquet: row 1: column consent_email: found 'x'"),
        (_customers(balance=[1.0, 2.0]), "column balance: found it in customers, but it is exogenous"),
    ],
)
def test_one_clear_message_for(change: Change, message: str, tmp_path: Path) -> None:
    frames = tiny_log()
    change(frames)
    with pytest.raises(LogError, match=message) as error:
        log_of(frames, tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_nan_in_a_feature_that_must_be_there(tmp_path: Path) -> None:
    spec = Spec.parse(TEXT.replace("optional = true", "optional = false"))
    frames = tiny_log()
    frames["decisions"]["balance"] = [1.0, 2.0, np.nan, np.nan]
    for suffix in ("parquet", "csv"):
        with pytest.raises(LogError, match=r"row 3: column balance: found (nan|None), expected .*\(2 such rows\)"):
            read_log(spec, write(frames, tmp_path / suffix, suffix))
    log = read_log(SPEC, tmp_path / "parquet")
    assert log.decisions["balance"].to_pylist() == [1.0, 2.0, None, None]


def test_a_static_feature_must_be_known_of_every_customer(tmp_path: Path) -> None:
    frames = tiny_log()
    frames["decisions"] = frames["decisions"].drop(columns="loyalty")
    frames["customers"] = pd.DataFrame({"customer_id": ["a"], "loyalty": ["new"]})
    with pytest.raises(LogError, match="row 4: column customer_id: found 'b', expected a customer with a loyalty"):
        log_of(frames, tmp_path)


def test_a_feature_must_not_be_called_like_a_column(tmp_path: Path) -> None:
    spec = Spec.parse(TEXT.replace("[context.online]", "[context.policy]"))
    with pytest.raises(LogError, match="context feature 'policy': a log has a column of this name"):
        read_log(spec, write(tiny_log(), tmp_path))


def test_what_can_be_lived_with_is_noted(tmp_path: Path) -> None:
    frames = tiny_log()
    frames["decisions"] = pd.concat([frames["decisions"], frames["decisions"].iloc[[0]]])
    frames["decisions"]["loyalty"] = ["new", "gold", "new", "loyal", "new"]
    frames["decisions"] = frames["decisions"].rename(columns={"propensity": "propensty"})
    frames["events"]["event_id"] = ["e1", "e2", "e2", None]
    frames["events"].loc[2] = frames["events"].loc[1]
    frames["events"].loc[3, "decision_id"] = "d9"
    log = log_of(frames, tmp_path)
    text = "\n".join(f"{f.level} {f.message}" for f in log.findings)
    assert re.search(r"warning .*decisions.parquet: 1 rows repeat another one; dropped", text)
    assert re.search(r"warning .*events.parquet: 1 rows repeat another one; dropped", text)
    assert re.search(r"warning .*loyalty: 1 rows hold categories that the spec does not declare \('gold'\)", text)
    assert re.search(r"warning .*column propensty is not read; did you mean propensity", text)
    assert re.search(r"warning .*1 of 2 events with a decision_id name one that is not in decisions", text)
    assert len(log.decisions) == 4
    assert len(log.events) == 3
    assert context_matrix(SPEC.context, log.decisions, None)[1, 0] == -1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("decisions.parquet", "not parquet", "decisions.parquet: cannot be read"),
        ("decisions.csv", "", "decisions.csv: the file is empty"),
        ("decisions.csv", "decision_id,decision_id\n1,2\n", "found a column name twice"),
        ("decisions.csv", "decision_id,customer_id\n1,2,3\n", "decisions.csv: cannot be read"),
        ("decisions.jsonl", "{oops\n", "decisions.jsonl: cannot be read"),
        ("decisions.jsonl", "", "decisions.jsonl: column decision_id: is missing"),
    ],
)
def test_a_broken_file(name: str, content: str, message: str, tmp_path: Path) -> None:
    write({"events": tiny_log()["events"]}, tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(LogError, match=message):
        read_log(SPEC, tmp_path)


def test_a_place_that_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="nowhere: found no such folder"):
        read_log(SPEC, tmp_path / "nowhere")
    with pytest.raises(LogError, match=r"found no decisions, expected decisions.parquet or decisions.csv"):
        read_log(SPEC, tmp_path)
    write({"decisions": tiny_log()["decisions"]}, tmp_path)
    with pytest.raises(LogError, match="found no events"):
        read_log(SPEC, tmp_path)
    write(tiny_log(), tmp_path, "csv")
    with pytest.raises(LogError, match=r"found decisions.parquet and decisions.csv, expected one of them"):
        read_log(SPEC, tmp_path)


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"found no file .*log.db"):
        read_log(SPEC, f"sqlite://{tmp_path}/log.db")
    assert not (tmp_path / "log.db").exists()
    sqlite3.connect(tmp_path / "log.db").close()
    (tmp_path / "log.db").touch()
    with pytest.raises(LogError, match="found no decisions, expected a table decisions"):
        read_log(SPEC, f"sqlite://{tmp_path}/log.db")


def test_a_password_is_not_shown() -> None:
    with pytest.raises(LogError) as error:
        read_log(SPEC, "nosuchbackend://me:secret@host/db")
    assert "secret" not in str(error.value)


def test_the_verb_prints_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nextbest.toml").write_text(TEXT)
    run(tmp_path / "nextbest.toml")
    assert "small has 3 context features, 4 event kinds, 7 actions" in " ".join(capsys.readouterr().out.split())
    frames = random_log(1, decisions=400, events=1000)
    frames["decisions"]["eligible"] = [["hold", "email/tips/now", "email/offer/evening", "push/tips/now"]] * 400
    frames["decisions"]["propensity"] = 0.25
    frames["events"] = frames["events"].drop(columns="decision_id")
    run(tmp_path / "nextbest.toml", str(write(frames, tmp_path / "good")))
    assert "passed" in capsys.readouterr().out
    frames["decisions"]["propensity"] = 0.15
    with pytest.raises(LogError, match="must be mended"):
        run(tmp_path / "nextbest.toml", str(write(frames, tmp_path / "bad")))
    assert "as often" in capsys.readouterr().out
