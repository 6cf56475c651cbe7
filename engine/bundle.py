"""What is served: one folder with the policy, its spec and its card. Its digest is the policy's version."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from engine.encoding import AttributeSchema
from engine.errors import BundleError, NextBestError
from engine.policy import OnnxPolicy
from engine.spec import Spec

MANIFEST = "bundle.json"
FORMAT = "nextbest.bundle.1"

_POLICY, _ACTIONS, _SPEC, _ATTRIBUTES, _CARD = (
    "policy.onnx",
    "actions.onnx",
    "spec.toml",
    "attributes.json",
    "card.json",
)
_REQUIRED = (_POLICY, _ACTIONS, _SPEC, _ATTRIBUTES, _CARD)
_CONTENTS = "contents.csv"
"""Only there when the spec names a contents_file; it holds that file's rows, whatever the file was."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A policy that is ready to choose, with the spec it was trained for.

    attributes: the columns under which the policy knows actions. card: how it came about (free JSON).
    version: 12 hex digits of the sha256 of all files; it changes when any byte of them does.
    """

    path: Path
    spec: Spec
    attributes: AttributeSchema
    card: Mapping[str, Any]
    version: str
    policy: OnnxPolicy

    @staticmethod
    def load(folder: Path) -> "Bundle":
        """The bundle in a folder, every file checked against the manifest's digests.

        Raises BundleError that names the file, what was found and what is expected.
        """
        folder = Path(folder)
        return _open(folder, _read(folder))

    @property
    def caution(self) -> str:
        """One line that everybody who shows or serves the bundle must say; empty when there is nothing to say.

        From `certificate` on the card: the environment that the training used did not pass it.
        """
        found = self.card.get("certificate")
        if not isinstance(found, dict) or found.get("passed", True):
            return ""
        failed = [str(name) for name in found.get("failed", ())]
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        return f"Uncertified: the environment of its training failed {', '.join(failed[:3])}{more}."


def write_bundle(
    folder: Path,
    policy_onnx: bytes,
    actions_onnx: bytes,
    spec: Spec,
    attributes: AttributeSchema,
    card: Mapping[str, Any],
) -> Bundle:
    """Write a bundle that has proved that it loads and chooses; whole, or not at all.

    A bundle that is there already is replaced; any other non-empty folder is left alone. Raises BundleError.
    """
    folder = Path(folder)
    files = {
        _POLICY: policy_onnx,
        _ACTIONS: actions_onnx,
        _SPEC: spec.text.encode(),
        _ATTRIBUTES: _json(folder, _ATTRIBUTES, attributes.to_json()),
        _CARD: _json(folder, _CARD, card),
    }
    if spec.contents_text is not None:
        files[_CONTENTS] = spec.contents_text.encode()
    bundle = _open(folder, files)
    digests = {name: sha256(content).hexdigest() for name, content in sorted(files.items())}
    manifest = {"format": FORMAT, "version": bundle.version, "files": digests}
    try:
        _replace(folder, {**files, MANIFEST: _json(folder, MANIFEST, manifest)})
    except OSError as error:
        raise BundleError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return bundle


def _open(folder: Path, files: Mapping[str, bytes]) -> Bundle:
    """The bundle that these files make. Raises BundleError."""
    version = _version(files)
    try:
        contents = _text(files, _CONTENTS) if _CONTENTS in files else None
        spec = Spec.parse(_text(files, _SPEC), file=_SPEC, folder=folder, contents_text=contents)
        attributes = _attributes(files[_ATTRIBUTES])
        policy = OnnxPolicy(files[_POLICY], files[_ACTIONS], attributes.encode(spec.catalogue), version)
    except NextBestError as error:
        raise BundleError(f"{folder}: {error}") from error
    if policy.size != spec.encoder.size:
        raise BundleError(
            f"{folder}: {_POLICY}: input 'observation': found size {policy.size}, "
            f"expected {spec.encoder.size}, which is what {_SPEC} makes"
        )
    card = _parse(folder, _CARD, files[_CARD])
    return Bundle(folder, spec, attributes, card, version, policy)


def _text(files: Mapping[str, bytes], name: str) -> str:
    try:
        return files[name].decode()
    except UnicodeDecodeError as error:
        byte = files[name][error.start]
        raise BundleError(f"{name}: found a byte {byte} at {error.start} that is no UTF-8 text") from None


def _attributes(text: bytes) -> AttributeSchema:
    try:
        return AttributeSchema.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{_ATTRIBUTES}: found {error!r}, expected the columns of a policy's attributes") from None


def _version(files: Mapping[str, bytes]) -> str:
    """Over names and contents, each with its length, so that no byte can wander from one file to the next."""
    whole = sha256()
    for name in sorted(files):
        for part in (name.encode(), files[name]):
            whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()[:12]


def _read(folder: Path) -> dict[str, bytes]:
    """The files that the manifest names, each with the digest that the manifest says. Raises BundleError."""
    if not folder.is_dir():
        raise BundleError(f"{folder}: found no folder, expected a bundle (a folder with {MANIFEST})")
    manifest = _parse(folder, MANIFEST, _bytes(folder, MANIFEST))
    if manifest.get("format") != FORMAT:
        raise BundleError(f"{folder}: {MANIFEST}: format: found {manifest.get('format')!r}, expected {FORMAT!r}")
    listed = manifest.get("files")
    if not isinstance(listed, dict) or not set(_REQUIRED) <= set(listed):
        found = sorted(listed) if isinstance(listed, dict) else listed
        raise BundleError(f"{folder}: {MANIFEST}: files: found {found!r}, expected {', '.join(_REQUIRED)}")
    files: dict[str, bytes] = {}
    for name, digest in listed.items():
        if Path(name).name != name:
            raise BundleError(f"{folder}: {MANIFEST}: files: found {name!r}, expected a name without a folder")
        files[name] = _bytes(folder, name)
        found_digest = sha256(files[name]).hexdigest()
        if found_digest != digest:
            raise BundleError(
                f"{folder}: {name}: found sha256 {found_digest[:12]}…, expected {str(digest)[:12]}…; "
                "the file was changed or damaged after it was written"
            )
    if manifest.get("version") != _version(files):
        found_version, expected = manifest.get("version"), _version(files)
        raise BundleError(f"{folder}: {MANIFEST}: version: found {found_version!r}, expected {expected!r}")
    return files


def _bytes(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder}: {name}: cannot be read: {error.strerror or error}") from None


def _parse(folder: Path, name: str, text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{folder}: {name}: is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise BundleError(f"{folder}: {name}: found {str(found)[:40]}, expected a JSON object")
    return found


def _json(folder: Path, name: str, value: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{folder}: {name}: cannot be written as JSON: {error}") from None
    return (text + "\n").encode()


def _replace(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put the files in place by renaming a finished folder, so that a reader sees the old or the new whole."""
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise BundleError(f"{folder}: found a folder with other things in it, expected none, or a bundle")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A rename is only atomic within one file system, hence beside the target.
    made = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    aside = made / "replaced"
    try:
        finished = made / "new"
        finished.mkdir()
        for name, content in files.items():
            _write(finished / name, content)
        flush(finished)
        if folder.exists():
            folder.rename(aside)
        finished.rename(folder)
        flush(folder.parent)
    except OSError:
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush(path: Path) -> None:
    """Make a file, or a folder's entries, last through a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
