"""The wheel: what is in it, that it works where the clone is not, and that what it needs is pinned."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOMS = ("engine", "envs", "serving", "training")


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a release is, with the hatchling that is installed (no network)."""
    out = tmp_path_factory.mktemp("dist")
    _run([sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(out), str(root)])
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    _run([*pip, "--target", str(target), str(wheel)])
    return target


def _run(command: list[str], **environment: str) -> str:
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_rooms_and_nothing_else(root: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {*ROOMS, "frontdoor.py", "nextbest.py"}
    assert not [name for name in names if "__pycache__" in name or "/test" in name]
    in_the_clone = {
        path.relative_to(root).as_posix()
        for room in ROOMS
        for path in (root / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert in_the_clone <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wire_contract_travels_with_the_wheel(root: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    protos = [path.relative_to(root / "protos").as_posix() for path in (root / "protos").rglob("*.proto")]
    assert protos
    assert {f"serving/protos/{name}" for name in protos} <= names


def test_the_command_works_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    shown = _run([sys.executable, str(installed / "bin" / "nextbest"), "--help"], PYTHONPATH=str(installed))
    assert "simulate" in shown


@pytest.mark.parametrize("module", ["engine.decider", "envs.simulate", "serving.server", "training.train"])
def test_each_package_imports_from_the_wheel(installed: Path, tmp_path: Path, module: str) -> None:
    code = f"import {module} as m; print(m.__file__)"
    place = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(place.stdout.strip()).is_relative_to(installed)


def test_everything_that_is_needed_is_pinned(root: Path) -> None:
    """constraints.txt names one exact version for each dependency, and pyproject.toml allows it."""
    lines = (root / "constraints.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(len(p.specifier) == 1 and str(p.specifier).startswith("==") for p in pinned)
    versions = {canonicalize_name(p.name): str(p.specifier).removeprefix("==") for p in pinned}
    assert len(versions) == len(pinned), "a package is pinned twice"
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(text for extra in project["optional-dependencies"].values() for text in extra),
    ]
    for needed in map(Requirement, wanted):
        assert needed.specifier.contains(versions[canonicalize_name(needed.name)]), needed
