"""A bundle is whole or it is not: what was written comes back, every harm is named."""

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import bundle as room
from engine.bundle import Bundle, write_bundle
from engine.errors import BundleError
from engine.spec import Spec
from tests.engine.graphs import actions_onnx, constant_onnx, policy_onnx
from tests.engine.small import SPEC
from tests.engine.test_spec import CSV, HEAD

CARD = {"algorithm": "test", "value": 1.5, "names": ["ä", "b"]}
FILES = {"policy.onnx", "actions.onnx", "spec.toml", "attributes.json", "card.json", "bundle.json"}


def graphs(spec: Spec, seed: int = 0) -> tuple[bytes, bytes]:
    return policy_onnx(spec.encoder.size, seed=seed), actions_onnx(spec.attributes.size)


def write(folder: Path, spec: Spec = SPEC, card: dict[str, Any] = CARD, seed: int = 0) -> Bundle:
    return write_bundle(folder, *graphs(spec, seed), spec, spec.attributes, card)


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    written = write(tmp_path / "bundle")
    read = Bundle.load(tmp_path / "bundle")
    assert {p.name for p in (tmp_path / "bundle").iterdir()} == FILES
    for found in (written, read):
        assert found.path == tmp_path / "bundle"
        assert found.spec.digest == SPEC.digest
        assert found.attributes == SPEC.attributes
        assert found.card == CARD
        assert found.version == written.version == found.policy.version
    rng = np.random.default_rng(0)
    observation = rng.normal(size=(5, SPEC.encoder.size)).astype(np.float32)
    mask = np.ones((5, len(SPEC.catalogue)), bool)
    assert np.array_equal(read.policy.probabilities(observation, mask), written.policy.probabilities(observation, mask))
    assert list(tmp_path.iterdir()) == [tmp_path / "bundle"]


@pytest.mark.parametrize(
    ("certificate", "caution"),
    [
        ({}, ""),
        ({"passed": True, "failed": []}, ""),
        ({"passed": False, "failed": ["value:x"]}, "Uncertified: the environment of its training failed value:x."),
        (
            {"passed": False, "failed": ["a", "b", "c", "d", "e"]},
            "Uncertified: the environment of its training failed a, b, c and 2 more.",
        ),
    ],
)
def test_a_bundle_says_when_its_environment_was_not_certified(
    tmp_path: Path, certificate: dict[str, Any], caution: str
) -> None:
    assert write(tmp_path / "bundle").caution == ""
    card = {**CARD, "certificate": certificate}
    assert write(tmp_path / "bundle", card=card).caution == caution


def test_a_bundle_stands_alone(tmp_path: Path) -> None:
    """It can be moved, and the contents file that its spec names may be gone."""
    (tmp_path / "contents.csv").write_text(CSV)
    (tmp_path / "nextbest.toml").write_text(HEAD.replace("contents.csv", "../elsewhere/contents.csv"))
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "contents.csv", tmp_path / "elsewhere")
    (tmp_path / "here").mkdir()
    shutil.move(tmp_path / "nextbest.toml", tmp_path / "here")
    spec = Spec.read(tmp_path / "here" / "nextbest.toml")
    write(tmp_path / "bundle", spec)
    shutil.rmtree(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "here")
    shutil.move(tmp_path / "bundle", tmp_path / "moved")
    found = Bundle.load(tmp_path / "moved")
    assert found.spec.catalogue.actions == spec.catalogue.actions
    assert found.spec.digest == spec.digest


def test_the_version_is_that_of_the_contents(tmp_path: Path) -> None:
    version = write(tmp_path / "a").version
    assert len(version) == 12
    assert write(tmp_path / "b").version == version
    assert write(tmp_path / "c", seed=1).version != version
    assert write(tmp_path / "d", card={**CARD, "value": 2.5}).version != version
    assert write(tmp_path / "e", Spec.parse(SPEC.text + "\n")).version != version


def test_a_bundle_replaces_a_bundle(tmp_path: Path) -> None:
    old, new = write(tmp_path / "bundle"), write(tmp_path / "bundle", seed=1)
    assert old.version != new.version == Bundle.load(tmp_path / "bundle").version
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    write(tmp_path / "deep" / "down" / "bundle")
    assert {p.name for p in tmp_path.iterdir()} == {"bundle", "empty", "deep"}


def test_other_things_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="other things"):
        write(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="cannot be written"):
        write(tmp_path / "file")
    with pytest.raises(BundleError, match="cannot be written"):
        write(tmp_path / "file" / "bundle")
    assert {p.name for p in tmp_path.iterdir()} == {"thesis.txt", "file"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy_onnx": b"rubbish"}, "policy.onnx: found 7 bytes that are no ONNX graph"),
        ({"actions_onnx": b""}, "actions.onnx: found 0 bytes that are no ONNX graph"),
        ({"policy_onnx": policy_onnx(7)}, "policy.onnx: input 'observation': found size 7, expected"),
        ({"actions_onnx": actions_onnx(3)}, "actions.onnx: does not run on attributes"),
        ({"policy_onnx": constant_onnx(SPEC.encoder.size, 8, 0.5)}, "policy.onnx: probabilities of row 0"),
        ({"card": {"value": float("nan")}}, "card.json: cannot be written as JSON"),
        ({"card": {"value": object()}}, "card.json: cannot be written as JSON"),
    ],
)
def test_what_would_not_load_is_not_written(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    policy, actions = graphs(SPEC)
    parts = {"policy_onnx": policy, "actions_onnx": actions, "card": CARD, **change}
    with pytest.raises(BundleError) as caught:
        write_bundle(tmp_path / "bundle", spec=SPEC, attributes=SPEC.attributes, **parts)
    assert str(caught.value).startswith(f"{tmp_path / 'bundle'}: ")
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write(tmp_path / "bundle")
    calls = iter(range(100))

    def full(handle: int) -> None:
        if next(calls) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError, match="cannot be written: No space left on device"):
        write(tmp_path / "bundle", seed=1)
    assert Bundle.load(tmp_path / "bundle").version == old.version
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_when_the_last_step_fails_the_old_bundle_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write(tmp_path / "bundle")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(BundleError, match="Input/output error"):
        write(tmp_path / "bundle", seed=1)
    assert Bundle.load(tmp_path / "bundle").version == old.version
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


# What can happen to a bundle


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def flip(name: str) -> Callable[[Path], object]:
    def harm(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(bytes(content))

    return harm


def cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:20])


def manifest(**changes: Any) -> Callable[[Path], object]:
    def harm(folder: Path) -> None:
        found = json.loads((folder / "bundle.json").read_text())
        (folder / "bundle.json").write_text(json.dumps({**found, **changes}))

    return harm


def unlist(name: str) -> Callable[[Path], object]:
    def harm(folder: Path) -> None:
        files = json.loads((folder / "bundle.json").read_text())["files"]
        manifest(files={k: v for k, v in files.items() if k != name})(folder)

    return harm


HARMS: list[tuple[Callable[[Path], object], str]] = [
    *((remove(n), f"{n}: cannot be read: No such file") for n in sorted(FILES)),
    *((flip(n), f"{n}: found sha256 ") for n in sorted(FILES - {"bundle.json"})),
    *((cut(n), f"{n}: found sha256 ") for n in sorted(FILES - {"bundle.json"})),
    *((unlist(n), "bundle.json: files: found [") for n in sorted(FILES - {"bundle.json"})),
    (cut("bundle.json"), "bundle.json: is not JSON"),
    (lambda f: (f / "bundle.json").write_text("[1]"), "bundle.json: found [1], expected a JSON object"),
    (manifest(format="nextbest.bundle.9"), "format: found 'nextbest.bundle.9', expected 'nextbest.bundle.1'"),
    (manifest(version="0123456789ab"), "bundle.json: version: found '0123456789ab', expected "),
    (manifest(files=None), "bundle.json: files: found None"),
    (
        lambda f: manifest(files={**json.loads((f / "bundle.json").read_text())["files"], "../x": "0"})(f),
        "found '../x', expected a name without a folder",
    ),
    (shutil.rmtree, "found no folder, expected a bundle"),
]


@pytest.mark.parametrize(("harm", "message"), HARMS, ids=[f"{i}-{m[:30]}" for i, (_, m) in enumerate(HARMS)])
def test_every_harm_is_named(tmp_path: Path, harm: Callable[[Path], object], message: str) -> None:
    write(tmp_path / "bundle")
    harm(tmp_path / "bundle")
    with pytest.raises(BundleError) as caught:
        Bundle.load(tmp_path / "bundle")
    assert str(caught.value).startswith(f"{tmp_path / 'bundle'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_the_manifest_does_not_name_are_not_read(tmp_path: Path) -> None:
    version = write(tmp_path / "bundle").version
    (tmp_path / "bundle" / ".DS_Store").write_bytes(b"x")
    assert Bundle.load(tmp_path / "bundle").version == version


def resealed(folder: Path, name: str, content: bytes) -> None:
    """As if someone had exported a bundle with this file in it: all digests are right."""
    files = {n: (folder / n).read_bytes() for n in FILES - {"bundle.json"}} | {name: content}
    (folder / name).write_bytes(content)
    digests = {n: sha256(c).hexdigest() for n, c in files.items()}
    manifest(files=digests, version=room._version(files))(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("spec.toml", b"name = 3", "spec.toml: name: found 3, expected a text"),
        ("spec.toml", b"\xff", "spec.toml: found a byte 255 at 0 that is no UTF-8 text"),
        ("attributes.json", b"{}", "attributes.json: found KeyError('channels')"),
        ("attributes.json", b"[", "attributes.json: found JSONDecodeError"),
        ("card.json", b"3", "card.json: found 3, expected a JSON object"),
        ("policy.onnx", b"", "policy.onnx: found 0 bytes"),
    ],
)
def test_a_well_sealed_bundle_of_nonsense(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    write(tmp_path / "bundle")
    resealed(tmp_path / "bundle", name, content)
    with pytest.raises(BundleError) as caught:
        Bundle.load(tmp_path / "bundle")
    assert str(caught.value).startswith(f"{tmp_path / 'bundle'}: ")
    assert message in str(caught.value)
