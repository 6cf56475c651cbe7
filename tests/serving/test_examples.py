"""The example clients, each in a process of its own, against the real server."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.bundle import Bundle
from serving.server import Server

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "examples" / "clients"
GOOD = json.dumps({"loyalty": "regular", "stock": 3, "on_site": True})
BAD = json.dumps({"loyalty": "gold", "stock": -3})
ANSWER = re.compile(r"^decided: (hold|\w+/\w+/\w+ at 20\S+Z) \(probability 0\.\d{3}\)$")


@pytest.fixture
def served(tmp_path: Path, bundle: Bundle) -> Iterator[Server]:
    """On the real clock, as the clients are."""
    with Server(bundle, tmp_path / "s.db") as server:
        yield server


def ended(command: list[str], folder: Path = ROOT, **environment: str) -> "subprocess.CompletedProcess[str]":
    whole = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, env=whole, capture_output=True, text=True, timeout=120, check=False)


def told(output: str) -> None:
    lines = output.splitlines()
    assert ANSWER.match(lines[0]), output
    assert len([line for line in lines if line.startswith("not ")]) == 3
    assert lines[-1].startswith("tracked: ")


def test_the_python_client(served: Server) -> None:
    command = [sys.executable, str(CLIENTS / "python" / "journey.py"), served.target]
    good = ended([*command, "anna", GOOD, "--time-zone", "Europe/Berlin"], PYTHONPATH=str(ROOT))
    assert good.returncode == 0, good.stderr
    told(good.stdout)
    bad = ended([*command, "anna", BAD], PYTHONPATH=str(ROOT))
    assert (bad.returncode, bad.stderr) == (2, "")
    assert [line.split(":")[0] for line in bad.stdout.splitlines()] == ["context.loyalty", "context.stock"]


def test_the_node_client(served: Server, tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node.js on this machine")
    folder = tmp_path / "node"
    shutil.copytree(CLIENTS / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    installed = ended([npm, "ci", "--no-audit", "--no-fund", "--prefer-offline"], folder)
    if installed.returncode:
        pytest.skip(f"npm cannot install @grpc/grpc-js here: {installed.stderr.strip()[-200:]}")
    command = [node, "journey.js", served.target, "anna"]
    good = ended([*command, GOOD], folder, NEXTBEST_PROTOS=str(ROOT / "protos"))
    assert good.returncode == 0, good.stderr
    told(good.stdout)
    bad = ended([*command, BAD], folder, NEXTBEST_PROTOS=str(ROOT / "protos"))
    assert bad.returncode == 2
    assert bad.stderr.startswith("INVALID_ARGUMENT: context.loyalty: found 'gold'")
    assert "context.stock" in bad.stderr
