"""A study: many independent experiments (cells), each kept as soon as it is done, and one table made from what is kept.

Interrupt it when you like; started again it goes on with the cells that are missing. Each kept line names the commit
and the command that made it, so that no number stands anywhere without its origin.
"""

import fcntl
import json
import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from training.threads import WORKERS

ROOT = Path(__file__).resolve().parents[3]
KEPT = Path(__file__).parent / "kept"
"""Where studies keep their lines; committed."""

Cell = dict[str, Any]
"""What tells one experiment from another: plain JSON, such as world, customers and seed."""

Run = Callable[[Cell], dict[str, Any]]
"""Does the experiment, a function at the top of a module; what it returns is plain JSON."""


@dataclass(frozen=True, slots=True)
class Line:
    """One experiment that is done. commit: of the code, with + when it had been changed since."""

    cell: Cell
    found: dict[str, Any]
    seconds: float
    commit: str
    command: str


@dataclass(frozen=True, slots=True)
class Study:
    """name: of its file and on the command line. about: one sentence. cells: all of it; short: a few small ones for CI.

    table: Markdown from all that is kept, whatever is missing.
    """

    name: str
    about: str
    cells: Sequence[Cell]
    short: Sequence[Cell]
    run: Run
    table: Callable[[Sequence[Line]], str]


def kept(file: Path) -> list[Line]:
    """The lines of a file; a last line that a crash cut off does not count."""
    if not file.exists():
        return []
    whole = file.read_text("utf-8").rpartition("\n")[0]
    return [Line(**json.loads(text)) for text in whole.splitlines()]


def missing(cells: Iterable[Cell], lines: Sequence[Line], made: str | None = None) -> list[Cell]:
    """Cells without a line; with `made`, without one of that commit."""
    done = {_key(line.cell) for line in lines if made in {None, line.commit}}
    return [cell for cell in cells if _key(cell) not in done]


def perform(
    study: Study, cells: Sequence[Cell], folder: Path, workers: int, console: Console, again: bool = False
) -> list[Line]:
    """Run what is missing of `cells`, `workers` at a time; returns all lines. Ctrl-C keeps what is done.

    again: what another commit found as well; the new line takes the place of the old one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, command = folder / f"{study.name}.jsonl", f"python -m tests.benchmarks.quality {study.name}"
    made = commit()
    todo = missing(cells, kept(file), made if again else None)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, disable=not console.is_terminal)
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", WORKERS: "1"}  # one core each
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    with bar:
        task = bar.add_task(study.name, total=len(cells), completed=len(cells) - len(todo))
        waiting: dict[Future[tuple[dict[str, Any], float]], Cell] = {}
        rest = list(reversed(todo))
        try:
            while rest or waiting:
                while rest and len(waiting) < workers:
                    cell = rest.pop()
                    waiting[pool.submit(timed, study.run, cell)] = cell
                for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                    found, seconds = done.result()
                    _keep(file, Line(waiting.pop(done), found, round(seconds, 2), made, command))
                    bar.advance(task)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return kept(file)


def _keep(file: Path, line: Line) -> None:
    """Write it after all lines of other cells; the file is whole at any time, whoever else keeps lines in it."""
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        lines = [one for one in kept(file) if _key(one.cell) != _key(line.cell)]
        fresh = file.with_suffix(".new")
        fresh.write_text("".join(json.dumps(asdict(one)) + "\n" for one in [*lines, line]), "utf-8")
        fresh.replace(file)
    finally:
        os.close(folder)


def timed(run: Run, cell: Cell) -> tuple[dict[str, Any], float]:
    """What an experiment found, and its CPU seconds."""
    started = time.process_time()
    return run(cell), time.process_time() - started


def commit() -> str:
    """The commit of this checkout, with + when it has changes but for lines that were kept; "" outside of git."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        changed = _git(
            "status", "--porcelain", "--untracked-files=no", "--", ".", f":(exclude){KEPT.relative_to(ROOT)}"
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return name + "+" * bool(changed)


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _key(cell: Cell) -> str:
    return json.dumps(cell, sort_keys=True)
