"""`python -m tests.benchmarks.quality STUDY`: run what is missing of a study, print the table of what is kept."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from tests.benchmarks.quality.studies import STUDIES
from tests.benchmarks.quality.study import KEPT, Cell, Study, kept, perform


def main(arguments: list[str]) -> int:
    """Exit status: 0, or 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.quality", description=__doc__)
    about = "; ".join(f"{name}: {study.about}" for name, study in STUDIES.items())
    parser.add_argument("study", choices=list(STUDIES), nargs="?", help=f"{about}; without one: all tables")
    parser.add_argument("--table", action="store_true", help="print the table of what is kept and run nothing")
    parser.add_argument("--short", action="store_true", help="a few small experiments that are not kept")
    parser.add_argument(
        "--only", metavar="KEY=VALUE", action="append", default=[], help="of experiments, those with this"
    )
    parser.add_argument(
        "--again", action="store_true", help="also what another commit has found; its lines are replaced"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="experiments at a time")
    wanted = parser.parse_args(arguments)
    console = Console()
    if (wanted.only or wanted.again) and (wanted.study is None or wanted.table or wanted.short):
        parser.error("--only and --again: expected a study to run, without --table or --short")
    if wanted.study is None:
        for study in STUDIES.values():
            _tell(study, console)
        return 0
    study = STUDIES[wanted.study]
    if wanted.short:
        with TemporaryDirectory() as folder:
            console.print(
                study.table(perform(study, study.short, Path(folder), wanted.workers, console)), highlight=False
            )
        return 0
    cells, status = _only(study.cells, wanted.only), 0
    if not cells:
        keys = ", ".join(dict.fromkeys(key for cell in study.cells for key in cell))
        parser.error(f"--only: found no experiment of {study.name} with {' and '.join(wanted.only)}; it has {keys}")
    if not wanted.table:
        try:
            perform(study, cells, KEPT, wanted.workers, console, wanted.again)
        except KeyboardInterrupt:
            status = 130
    _tell(study, console)
    return status


def _only(cells: Sequence[Cell], wanted: Sequence[str]) -> list[Cell]:
    """The cells that have all of these, each `key=value`."""
    pairs = [text.partition("=")[::2] for text in wanted]
    return [cell for cell in cells if all(key in cell and str(cell[key]) == value for key, value in pairs)]


def _tell(study: Study, console: Console) -> None:
    file = KEPT / f"{study.name}.jsonl"
    lines = kept(file)
    console.print(f"[bold]{study.name}[/]: {study.about}", highlight=False)
    if not lines:
        console.print("nothing kept yet")
        return
    console.print(study.table(lines), highlight=False, soft_wrap=True)
    commits = ", ".join(f"{name} ({count})" for name, count in Counter(line.commit for line in lines).most_common())
    hours = sum(line.seconds for line in lines) / 3600
    console.print(
        f"{len(lines)} of {len(study.cells)} experiments, {hours:.1f} CPU hours, commits {commits}", highlight=False
    )
    console.print(f"kept in {file}", highlight=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
