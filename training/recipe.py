"""What a training is made from: with it, the same training can be done again, to the byte.

It is an artifact of the training's run: the spec's text beside it, the log by its place and fingerprint, every setting,
and the code and libraries, because the same seed promises the same numbers on the same machine with the same code only.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from threadpoolctl import threadpool_info

from engine.errors import TrainingError
from engine.spec import Spec
from training.tracking import Run, Tracking

FILE, SPEC, CONTENTS = "recipe/recipe.json", "recipe/nextbest.toml", "recipe/contents.csv"
"""Artifacts of the parent run; the last one only where the spec names a contents file."""

LIBRARIES = (
    *("torch", "numpy", "scipy", "scikit-learn", "gymnasium", "stable-baselines3", "sb3-contrib", "onnx"),
    *("onnxruntime", "pandas", "pyarrow", "duckdb", "ibis-framework"),
)
"""Those that can move a number."""

ROOMS = ("engine", "envs", "training")
"""Those whose code a training runs."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Code:
    """What ran. digest: 12 hex digits over the source of ROOMS. commit: of git, "" outside a clone. libraries: name →
    version, python among them. machine: architecture, vector instructions, where networks are trained, and the threads
    of large products, whose sums hang on them.
    """

    version: str
    commit: str
    digest: str
    libraries: Mapping[str, str]
    machine: str

    @staticmethod
    def now() -> "Code":
        """Of this process."""
        found = {name: known for name in ("python", *LIBRARIES) if (known := _version(name))}
        device = "cuda" if torch.cuda.is_available() else "cpu"
        machine = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {device} blas {_blas_threads()}"
        root = Path(__file__).resolve().parent.parent
        return Code(_version("nextbest"), _commit(root), _source(root), found, machine)

    def differences(self, earlier: "Code") -> list[str]:
        """What is not as it was, one phrase each; empty when the same numbers can be expected."""
        told = []
        if self.digest != earlier.digest:
            told.append(f"code: found {self._named()}, expected {earlier._named()}")
        if self.machine != earlier.machine:
            told.append(f"machine: found {self.machine}, expected {earlier.machine}")
        for name in sorted({*self.libraries, *earlier.libraries}):
            now, before = (code.libraries.get(name, "none") for code in (self, earlier))
            if now != before:
                told.append(f"{name}: found {now}, expected {before}")
        return told

    def _named(self) -> str:
        commit = f", commit {self.commit[:12]}" if self.commit else ""
        return f"{self.digest} (nextbest {self.version}{commit})"


@dataclass(frozen=True, slots=True)
class Recipe:
    """spec: where it was read. spec_digest: `Spec.digest`. log: folder or URL; fingerprint: of what was read there.
    experiment: MLflow's. wishes, plan: as asked for, and all settings that followed. code: what ran.
    """

    spec: str
    spec_digest: str
    log: str
    fingerprint: str
    experiment: str
    wishes: Mapping[str, Any]
    plan: Mapping[str, Any]
    code: Code

    def keep(self, run: Run, spec: Spec) -> None:
        """Write it and the spec into the training's run."""
        run.text(SPEC, spec.text)
        if spec.contents_text is not None:
            run.text(CONTENTS, spec.contents_text)
        run.text(FILE, json.dumps(asdict(self), indent=2))
        run.tags({"code": self.code.digest, "nextbest": self.code.version})
        if self.code.commit:
            run.tags({"mlflow.source.git.commit": self.code.commit})

    @staticmethod
    def of(tracking: Tracking, run_id: str) -> "tuple[Recipe, Spec]":
        """Of a training, with its spec as it was. Raises TrainingError when the run has none."""
        folder = tracking.artifact(run_id, "")
        if not (folder / FILE).is_file():
            raise TrainingError(f"run {run_id}: found no {FILE}, expected a training of this version of nextbest train")
        try:
            told = json.loads((folder / FILE).read_bytes())
            if not isinstance(told, dict):
                raise ValueError("found another thing than an object")
            recipe = revived(Recipe, told)
            contents = (folder / CONTENTS).read_bytes().decode() if (folder / CONTENTS).is_file() else None
            text = (folder / SPEC).read_bytes().decode()
        except (OSError, ValueError, TypeError) as error:
            raise TrainingError(f"{folder / FILE}: cannot be read: {error}; train again") from None
        spec = Spec.parse(text, SPEC, contents_text=contents)
        if spec.digest != recipe.spec_digest:
            changed = f"found a spec with the digest {spec.digest}, expected {recipe.spec_digest}"
            raise TrainingError(f"{folder / SPEC}: {changed}: it was changed since the training began; train again")
        return recipe, spec

    def check_log(self, fingerprint: str, run_id: str, log: str) -> None:
        """Raises TrainingError when a log is not the one of the training."""
        if fingerprint != self.fingerprint:
            raise TrainingError(
                f"{log}: found a log with the fingerprint {fingerprint}, expected {self.fingerprint}, that of run "
                f"{run_id}: the log is another one, or was changed since"
            )


def revived(kind: type[T], told: Mapping[str, Any]) -> T:
    """A dataclass from what `asdict` and JSON made of it. Raises TrainingError for other keys than its fields."""
    assert is_dataclass(kind)
    hints, names = get_type_hints(kind), {field.name for field in fields(kind)}
    if set(told) != names:
        other = ", ".join(sorted(set(told) ^ names))
        raise TrainingError(f"{kind.__name__}: found other settings than this version of nextbest has: {other}")
    return kind(**{name: _revived(hints[name], value) for name, value in told.items()})


def _revived(hint: Any, value: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        return None if value is None else _revived(next(a for a in get_args(hint) if a is not type(None)), value)
    if is_dataclass(hint):
        return revived(hint, value)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        each = [kinds[0]] * len(value) if kinds[-1] is Ellipsis else kinds
        return tuple(_revived(k, v) for k, v in zip(each, value, strict=True))
    return value


def _version(package: str) -> str:
    if package == "python":
        return ".".join(str(part) for part in sys.version_info[:3])
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _blas_threads() -> int:
    return max((int(pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


def _source(root: Path) -> str:
    whole = sha256()
    for file in sorted(file for room in ROOMS for file in (root / room).rglob("*.py")):
        for part in (file.relative_to(root).as_posix().encode(), file.read_bytes()):
            whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()[:12]


def _commit(root: Path) -> str:
    """Of the clone that this file lies in; an installed package has none, whatever clone is around it."""
    if not (root / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
