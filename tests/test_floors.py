"""The plan of the house: who may import whom, read from the source without running it.

engine < envs, serving < training < nextbest.py, examples. No arrow points upwards, no circle, and each heavy
library has the one home that the tables below give it.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("engine", "envs", "serving", "training")

BELOW = {
    "engine": set[str](),
    "envs": {"engine"},
    "serving": {"engine"},
    "training": {"engine", "envs"},
    "frontdoor": {"engine"},
    "nextbest": {*ROOMS, "frontdoor"},
    "examples": {*ROOMS, "nextbest"},
}
THIRD_PARTIES = {
    "engine": {"numpy", "pydantic", "onnxruntime", "pyarrow"},
    "envs": {"numpy", "gymnasium", "torch", "stable_baselines3", "pyarrow", "rich"},
    "serving": {"numpy", "grpc", "grpc_health", "grpc_reflection", "grpc_status", "grpc_tools", "google", "rich"},
    "training": {
        *("numpy", "torch", "gymnasium", "stable_baselines3", "sb3_contrib", "mlflow", "ibis", "pyarrow", "pandas"),
        *("sklearn", "joblib", "threadpoolctl", "scipy", "onnx", "onnxscript", "optuna", "matplotlib", "rich"),
    },
    "frontdoor": {"click"},
    "nextbest": {"click"},
}
ONE_HOME = {
    "onnxruntime": {"engine/policy.py"},
    "mlflow": {"training/tracking.py"},
    "optuna": {"training/study.py"},
    "pyarrow": {"engine/contents_file.py", "envs/simulate.py", "envs/simulated_log.py", "training", "examples"},
    "grpc_tools": {"serving/generate.py"},
}
HEAVY = [
    *("torch", "gymnasium", "stable_baselines3", "mlflow", "pandas"),
    *("pyarrow", "ibis", "matplotlib", "sklearn", "scipy", "onnx"),
]
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "managers", "misc"}
LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 300, 60


def sources(room: str) -> list[Path]:
    """The Python files of a room (or the one file that is it), without generated code."""
    if (ROOT / f"{room}.py").exists():
        return [ROOT / f"{room}.py"]
    return [p for p in sorted((ROOT / room).rglob("*.py")) if not {"pb", "node_modules"} & set(p.parts)]


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Dotted names of everything a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


ALL = [(room, path) for room in BELOW for path in sources(room)]


def test_no_arrow_points_upwards() -> None:
    for room, path in ALL:
        ours = {name.split(".")[0] for name in imports(path)} & set(BELOW)
        assert ours <= BELOW[room] | {room}, f"{path.relative_to(ROOT)} imports from a floor above or beside it"


def test_each_library_is_imported_on_its_floor_and_in_its_home() -> None:
    for room, path in ALL:
        place = path.relative_to(ROOT).as_posix()
        tops = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names - set(BELOW)
        assert tops <= THIRD_PARTIES.get(room, tops), f"{place} imports a library that its floor does not have"
        for library in tops & set(ONE_HOME):
            assert {place, room} & ONE_HOME[library], f"{place} imports {library}"


def test_no_import_circle() -> None:
    modules = {name_of(path) for _, path in ALL}
    graph = {
        name_of(path): {found for name in imports(path) if (found := _owner(name, modules)) and found != name_of(path)}
        for _, path in ALL
    }
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def _owner(name: str, modules: set[str]) -> str | None:
    """The module that `a.b.c` names or lives in."""
    if name in modules:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in modules else None


def test_files_and_functions_stay_readable() -> None:
    long = []
    for _, path in ALL:
        text, place = path.read_text(), path.relative_to(ROOT)
        if (lines := text.count("\n")) > LINES_OF_A_FILE:
            long.append(f"{place}: {lines} lines")
        functions = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
        sizes = [(f.name, (f.end_lineno or 0) - f.lineno + 1) for f in functions]
        long += [f"{place}: {name} has {n} lines" for name, n in sizes if n > LINES_OF_A_FUNCTION]
    assert not long


def test_the_front_door_imports_rooms_only_inside_its_verbs() -> None:
    tree = ast.parse((ROOT / "nextbest.py").read_text())
    at_start = {name.split(".")[0] for node in tree.body for name in _names(node)}
    assert at_start <= {"click", "frontdoor"} | sys.stdlib_module_names
    assert "engine.errors.NextBestError" in imports(ROOT / "frontdoor.py")


def _names(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield node.module or ""


def test_init_files_are_empty() -> None:
    """Except envs/__init__.py, which registers its environments."""
    found = {path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("__init__.py")}
    assert {"engine/__init__.py", "envs/__init__.py", "serving/__init__.py", "training/__init__.py"} <= found
    assert not [place for place in found - {"envs/__init__.py"} if (ROOT / place).read_text().strip()]


def test_no_folder_or_file_attracts_everything() -> None:
    places = [p for room in (*ROOMS, "tests", "examples") for p in (ROOT / room).rglob("*")]
    own = [p for p in places if not {"node_modules", "__pycache__"} & set(p.parts)]
    assert not [p for p in own if p.stem.lower() in FORBIDDEN_NAMES]


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_a_readme_that_names_its_files(room: str) -> None:
    readme = (ROOT / room / "README.md").read_text()
    files = [p.name for p in sources(room) if p.name != "__init__.py"]
    assert not [f for f in files if f not in readme], f"{room}/README.md does not name these files"


@pytest.mark.parametrize(
    ("room", "unwanted"),
    [("engine", [*HEAVY, "grpc", "rich", "click"]), ("serving", HEAVY)],
)
def test_deciding_and_serving_start_light(room: str, unwanted: list[str]) -> None:
    """In a fresh interpreter: everything in the room imported, and nothing heavy came along."""
    modules = [name_of(p) for p in sources(room) if p.name not in {"__init__.py", "generate.py"}]
    code = f"import sys, {', '.join(modules)}; print(sorted(set({unwanted!r}) & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_the_engine_has_no_clock_and_no_dice() -> None:
    """Time and randomness are arguments: a decision can be replayed."""
    forbidden = {"time.time", "datetime.now", "datetime.utcnow", "random.default_rng", "os.urandom", "uuid.uuid4"}
    for path in sources("engine"):
        calls = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not [c for call in calls if (c := ast.unparse(call)).endswith(tuple(forbidden))], path
