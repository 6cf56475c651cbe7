"""Mistakes of a user, made at the front door: one clear message, status 2, nothing half-written."""

import csv
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from engine.bundle import write_bundle
from engine.spec import Spec
from nextbest import main
from tests.engine.graphs import actions_onnx, policy_onnx

SPEC = """
name = "shop"

[journey]
discount_per_day = 0.99
horizon_days = 14
half_lives_days = [1.0, 7.0]

[context.visits]
type = "number"
minimum = 0

[events.order]
value = "EUR"

[channels.email]
consent = "opt_out"
cost = 0.01

[timings.now]
delay_hours = 0

[[contents]]
id = "tips"

[[contents]]
id = "discount"

[reward.events.order]
per_value = 0.3
"""
Row = dict[str, str]
Edit = Callable[[list[Row]], list[Row]]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with a spec and a small log in CSV, without a fault: every third decision holds."""
    decisions, events = [], []
    for customer in range(40):
        for day in range(1, 8):
            content = ("tips", "discount", "")[(customer * 7 + day * 3) % 3]
            decisions.append(
                {
                    "decision_id": f"d{customer}-{day}",
                    "customer_id": f"c{customer}",
                    "decided_at": f"2026-03-0{day}T09:00:00Z",
                    "channel": "email" if content else "",
                    "content": content,
                    "timing": "now" if content else "",
                    "propensity": "0.3333333",
                    "visits": str((customer + day) % 5),
                }
            )
            if (customer + day) % 4 == 0:
                at = f"2026-03-0{day}T15:00:00Z"
                events.append({"customer_id": f"c{customer}", "occurred_at": at, "kind": "order", "value": "20"})
    (tmp_path / "log").mkdir()
    _write(tmp_path / "log" / "decisions.csv", decisions)
    _write(tmp_path / "log" / "events.csv", events)
    (tmp_path / "nextbest.toml").write_text(SPEC)
    return tmp_path


@pytest.fixture
def bundle(shop: Path) -> Path:
    spec = Spec.read(shop / "nextbest.toml")
    graphs = policy_onnx(spec.encoder.size), actions_onnx(spec.attributes.size)
    return write_bundle(shop / "bundle", *graphs, spec, spec.attributes, {}).path


def _write(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def _edit(path: Path, edit: Edit) -> None:
    with path.open(newline="") as file:
        _write(path, edit(list(csv.DictReader(file))))


def _set(row: int, column: str, value: str) -> Edit:
    return lambda rows: [r | {column: value} if i == row else r for i, r in enumerate(rows)]


def _drop(column: str) -> Edit:
    return lambda rows: [{name: value for name, value in row.items() if name != column} for row in rows]


def _check(shop: Path) -> Result:
    return CliRunner().invoke(main, ["check", str(shop / "nextbest.toml"), "--log", str(shop / "log")])


def _listing(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _message(shown: Result) -> str:
    """What stderr says, on one line; the assertions that hold for every mistake."""
    assert shown.exception is None or isinstance(shown.exception, SystemExit), shown.exception
    assert shown.exit_code == 2, shown.output
    assert shown.stderr.startswith("Error: ") or "\nError: " in shown.stderr
    assert "Traceback" not in shown.output
    return " ".join(shown.stderr.split())


def test_the_log_without_a_fault_passes(shop: Path) -> None:
    shown = _check(shop)
    assert shown.exit_code == 0, shown.output


LOG_MISTAKES: dict[str, tuple[str, Edit, str]] = {
    "missing column": ("decisions", _drop("decided_at"), "decisions.*decided_at"),
    "missing feature": ("decisions", _drop("visits"), "decisions.*visits"),
    "propensity above one": ("decisions", _set(3, "propensity", "1.5"), "propensity.*1.5"),
    "propensity zero": ("decisions", _set(3, "propensity", "0"), "propensity.*0"),
    "time without zone": ("decisions", _set(5, "decided_at", "2026-03-06T09:00:00"), "decided_at.*zone"),
    "event time without zone": ("events", _set(2, "occurred_at", "2026-03-06T09:00:00"), "occurred_at.*zone"),
    "unknown channel": ("decisions", _set(0, "channel", "emial"), "emial.*email"),
    "unknown content": ("decisions", _set(0, "content", "tipps"), "tipps.*tips"),
    "half an action": ("decisions", _set(0, "timing", ""), "timing"),
    "a feature that is NaN": ("decisions", _set(7, "visits", "nan"), "visits"),
    "a feature that is empty": ("decisions", _set(7, "visits", ""), "visits"),
    "a feature below its minimum": ("decisions", _set(7, "visits", "-1"), "visits.*-1"),
    "an id used twice": ("decisions", lambda rows: [*rows, rows[0] | {"visits": "4"}], "decision_id.*d0-1"),
}


@pytest.mark.parametrize("mistake", LOG_MISTAKES)
def test_a_mistake_in_the_log_is_named(shop: Path, mistake: str) -> None:
    table, edit, expected = LOG_MISTAKES[mistake]
    _edit(shop / "log" / f"{table}.csv", edit)
    before = _listing(shop)
    shown = _check(shop)
    _message(shown)
    assert re.search(expected, " ".join(shown.output.split())), shown.output
    assert _listing(shop) == before


def test_an_empty_log_is_named(shop: Path) -> None:
    path = shop / "log" / "decisions.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    assert "decisions" in _message(_check(shop))


def test_a_log_that_is_not_there_is_named(shop: Path) -> None:
    shown = CliRunner().invoke(main, ["check", str(shop / "nextbest.toml"), "--log", str(shop / "lgo")])
    assert "lgo" in _message(shown)


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ("discount_per_day", "discount_per_dya", "discount_per_dya.*discount_per_day"),
        ('consent = "opt_out"', 'consent = "optout"', "consent.*optout.*opt_out"),
        ("discount_per_day = 0.99", "discount_per_day = 1.5", "discount_per_day.*1.5"),
        ("[reward.events.order]", "[reward.events.oder]", "oder.*order"),
        ('name = "shop"', "name = shop", "nextbest.toml"),
    ],
    ids=["misspelt key", "wrong word", "number out of range", "unknown event", "not TOML"],
)
def test_a_mistake_in_the_spec_is_named(shop: Path, right: str, wrong: str, expected: str) -> None:
    path = shop / "nextbest.toml"
    assert right in SPEC
    path.write_text(SPEC.replace(right, wrong))
    message = _message(_check(shop))
    assert "nextbest.toml" in message
    assert re.search(expected, message)


def test_a_spec_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "nextbest.toml" in _message(CliRunner().invoke(main, ["check", str(tmp_path / "nextbest.toml")]))


def test_training_refuses_a_bad_log_before_it_writes(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _edit(shop / "log" / "decisions.csv", _set(3, "propensity", "1.5"))
    monkeypatch.chdir(shop)
    before = _listing(shop)
    shown = CliRunner().invoke(main, ["train", "nextbest.toml", "--log", "log"])
    _message(shown)
    assert "propensity" in shown.output
    assert _listing(shop) == before


@pytest.mark.parametrize("verb", [["simulate", "--out", "new"], ["train", "nextbest.toml", "--log", "log"]])
@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_a_seed_that_is_none_is_refused(
    shop: Path, monkeypatch: pytest.MonkeyPatch, verb: list[str], seed: str
) -> None:
    monkeypatch.chdir(shop)
    before = _listing(shop)
    message = _message(CliRunner().invoke(main, [*verb, "--seed", seed]))
    assert f"'--seed': {seed} is not in the range 0<=x<=4294967295" in message
    assert _listing(shop) == before


@pytest.mark.parametrize("arguments", [["evaluate"], ["promote"], ["export", "shop@champion", "--out", "bundle"]])
def test_nothing_trained_yet_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert "found no" in _message(CliRunner().invoke(main, arguments))
    assert not (tmp_path / "bundle").exists()


def test_a_simulation_does_not_write_over_other_things(shop: Path) -> None:
    before = _listing(shop)
    assert "log" in _message(CliRunner().invoke(main, ["simulate", "--out", str(shop / "log"), "--customers", "3"]))
    assert _listing(shop) == before


def test_an_unknown_world_is_named(tmp_path: Path) -> None:
    out = tmp_path / "log"
    assert "retail" in _message(CliRunner().invoke(main, ["simulate", "--world", "retial", "--out", str(out)]))
    assert not out.exists()


def _serve(bundle: Path, store: Path, port: int = 0) -> tuple[int, str]:
    """Status and stderr of a service that is expected not to start."""
    command = [sys.executable, "-m", "nextbest", "serve", str(bundle), "--store", str(store), "--port", str(port)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return shown.returncode, shown.stderr


def test_a_corrupt_bundle_does_not_start(bundle: Path, tmp_path: Path) -> None:
    (bundle / "policy.onnx").write_bytes(b"not a graph")
    status, message = _serve(bundle, tmp_path / "store.db")
    assert status == 2
    assert "policy.onnx" in message
    assert not (tmp_path / "store.db").exists()


def test_a_bundle_that_is_not_there_does_not_start(tmp_path: Path) -> None:
    status, message = _serve(tmp_path / "bundle", tmp_path / "store.db")
    assert status == 2
    assert "bundle" in message
    assert not (tmp_path / "store.db").exists()


def test_a_port_in_use_is_named(bundle: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, message = _serve(bundle, tmp_path / "store.db", port)
    assert status == 2
    assert str(port) in message
    assert not (tmp_path / "store.db").exists()


def test_a_store_that_cannot_be_written_is_named(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    status, message = _serve(bundle, tmp_path / "file" / "store.db")
    assert status == 2
    assert "store.db" in message


@contextmanager
def _service(bundle: Path, store: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "nextbest", "serve", str(bundle), "--store", str(store), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.stdout.read()
        assert process.wait(30) == 0, "SIGTERM drains and ends well"


def test_requests_that_are_wrong_are_named_field_by_field(bundle: Path, tmp_path: Path) -> None:
    with _service(bundle, tmp_path / "store.db") as target:

        def ask(*arguments: str) -> Result:
            return CliRunner().invoke(main, [*arguments, "--target", target])

        assert ask("decide", "c1", "--context", '{"visits": 2}').exit_code == 0
        assert ask("track", "c1", "order", "--value", "20").exit_code == 0
        assert "context.visits" in _message(ask("decide", "c1", "--context", '{"visits": NaN}'))
        assert "context.visist" in _message(ask("decide", "c1", "--context", '{"visits": 2, "visist": 2}'))
        assert "context" in _message(ask("decide", "c1", "--context", "visits=2"))
        assert "time_zone" in _message(ask("decide", "c1", "--context", '{"visits": 2}', "--time-zone", "Europe/Berln"))
        assert "kind" in _message(ask("track", "c1", "oder"))
        assert "zone" in _message(ask("track", "c1", "order", "--value", "20", "--at", "2026-03-01T09:00:00"))


def test_a_service_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{free.getsockname()[1]}"
    for verb in (["track", "c1", "order"], ["decide", "c1"]):
        message = _message(CliRunner().invoke(main, [*verb, "--target", target]))
        assert f"Error: cannot reach a service at {target}" in message
        assert "is `nextbest serve` running there?" in message
        assert "UNAVAILABLE" not in message
