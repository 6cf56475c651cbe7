"""The service as a process: what it has acknowledged survives a kill, SIGTERM drains, mistakes end with one message."""

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import nan
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engine.bundle import Bundle, write_bundle
from engine.errors import NextBestError, ServiceError
from engine.records import Event, Request
from serving.answers import Decided
from serving.calls import Receipt
from serving.client import Client
from serving.server import run
from serving.sqlite import SqliteStore
from tests.serving.test_customers import folded, same

ROOT = Path(__file__).parents[2]


def command(bundle: Path, store: Path, port: int = 0) -> list[str]:
    return [sys.executable, "-m", "nextbest", "serve", str(bundle), "--store", str(store), "--port", str(port)]


@contextmanager
def running(bundle: Path, store: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The process and where it listens; killed at the end if it still runs."""
    process = subprocess.Popen(command(bundle, store), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"listening on (\S+)", process.stdout.readline())
        assert found, "the first line says where it listens"
        yield process, found.group(1)
    finally:
        process.kill()
        process.communicate()


def request(i: int) -> Request:
    return Request(f"r{i}", f"c{i % 7}", {"loyalty": "regular"}, "Europe/Berlin")


def test_an_uncertified_bundle_is_served_with_a_warning(tmp_path: Path, bundle: Bundle) -> None:
    uncertified = write_bundle(
        tmp_path / "bundle",
        (bundle.path / "policy.onnx").read_bytes(),
        (bundle.path / "actions.onnx").read_bytes(),
        bundle.spec,
        bundle.attributes,
        {"certificate": {"passed": False, "failed": ["two_sample"]}},
    )
    with running(uncertified.path, tmp_path / "s.db") as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        out = process.stdout.read()  # not communicate: the first readline may have buffered the lines after it
        process.wait(20)
    assert "Uncertified: the environment of its training failed two_sample." in out


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, bundle: Bundle) -> None:
    decided: dict[int, Decided] = {}
    receipts: list[Receipt] = []

    def work(client: Client, start: int) -> None:
        for i in range(start, 100_000, 4):
            decided[i] = client.decide(request(i))
            receipts.append(client.track(Event(f"c{i % 7}", nan, "order", float(i), event_id=f"e{i}")))
            if i > 150:
                process.send_signal(signal.SIGKILL)

    with running(bundle.path, tmp_path / "s.db") as (process, target), Client(target) as client:
        with ThreadPoolExecutor(4) as pool:
            outcomes = [pool.submit(work, client, start) for start in range(4)]
        assert all(isinstance(o.exception(), ServiceError) for o in outcomes), "they worked until the kill"
        assert process.wait(10) == -signal.SIGKILL
    assert len(decided) > 100
    with running(bundle.path, tmp_path / "s.db") as (_, target), Client(target) as client:
        for i, answer in decided.items():
            again = client.decide(request(i))
            assert again.repeated
            assert (again.decision_id, again.action, again.send_at, again.propensity, again.decided_at) == (
                *(answer.decision_id, answer.action, answer.send_at, answer.propensity, answer.decided_at),
            )
        events = [Event(f"c{int(r.event_id[1:]) % 7}", nan, "order", 0.0, event_id=r.event_id) for r in receipts]
        assert all(r.duplicate for r in client.track_batch(events))
    store = SqliteStore(tmp_path / "s.db", bundle.spec, "")
    for name, snapshot in store.snapshots([f"c{i}" for i in range(7)]).items():
        assert same(bundle.spec.fold.from_bytes(snapshot.state), folded(store, bundle, name))
        contacts = [d for d in store.history(name).decisions if not d[1].is_hold]
        assert len(contacts) <= 3, "no cap was broken on the way"
    store.close()


def test_sigterm_drains(tmp_path: Path, bundle: Bundle) -> None:
    acknowledged: list[str] = []

    def work(client: Client, start: int) -> None:
        for i in range(start, 100_000, 4):
            acknowledged.append(client.decide(request(i)).decision_id)
            if len(acknowledged) == 100:
                process.send_signal(signal.SIGTERM)

    with running(bundle.path, tmp_path / "s.db") as (process, target), Client(target) as client:
        with grpc.insecure_channel(target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            watched = health.Watch(health_pb2.HealthCheckRequest(service="nextbest.v1.DecisionService"))
            assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
            with ThreadPoolExecutor(4) as pool:
                outcomes = [pool.submit(work, client, start) for start in range(4)]
            assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watched.cancel()
        assert all(isinstance(o.exception(), NextBestError) for o in outcomes)
        assert process.wait(20) == 0
        assert process.stdout is not None
        assert process.stdout.read().splitlines()[-2:] == ["draining", "stopped"]
    assert [p.name for p in tmp_path.iterdir()] == ["s.db"], "the store is closed: no WAL, no lock"
    store = SqliteStore(tmp_path / "s.db", bundle.spec, "")
    assert len(store.decisions(acknowledged)) == len(acknowledged) >= 100
    store.close()


def refused(bundle: Path, store: Path, port: int = 0) -> str:
    """The one line with which a service that cannot start ends."""
    ended = subprocess.run(
        command(bundle, store, port), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    assert "listening" not in ended.stdout
    return lines[0]


def test_what_keeps_a_service_from_starting(tmp_path: Path, bundle: Bundle) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in refused(
            bundle.path, tmp_path / "s.db", port
        )
    assert not list(tmp_path.iterdir())
    (tmp_path / "store.db").write_bytes(b"no database" * 1000)
    assert "not a database" in refused(bundle.path, tmp_path / "store.db")
    assert "the store cannot be written" in refused(bundle.path, tmp_path / "nowhere" / "s.db")
    corrupt = tmp_path / "corrupt"
    shutil.copytree(bundle.path, corrupt)
    (corrupt / "policy.onnx").write_bytes((corrupt / "policy.onnx").read_bytes()[:-7])
    assert "policy.onnx" in refused(corrupt, tmp_path / "s.db")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corrupt", "store.db"]


@pytest.mark.parametrize("name", ["policy.onnx", "spec.toml", "bundle.json"])
def test_a_bundle_that_lacks_a_file(tmp_path: Path, bundle: Bundle, name: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle.path, broken)
    (broken / name).unlink()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(NextBestError, match=re.escape(name)):
        run(broken, tmp_path / "s.db", port=0)
    assert not (tmp_path / "s.db").exists()
    assert signal.getsignal(signal.SIGTERM) is before
