"""Long studies: what is done is kept, what is missing is run, and every study has a short version that works."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.benchmarks.quality import __main__ as command
from tests.benchmarks.quality import study
from tests.benchmarks.quality.__main__ import main
from tests.benchmarks.quality.studies import ALL
from tests.benchmarks.quality.study import Cell, Study, kept, missing, perform

QUIET = Console(quiet=True)


def squared(cell: Cell) -> dict[str, int]:
    if cell["x"] == 13:
        raise KeyboardInterrupt
    return {"square": cell["x"] ** 2, "process": os.getpid()}


CELLS = [{"x": x} for x in range(3)]
STUDY = Study("squares", "squares", CELLS, CELLS[:1], squared, lambda lines: str(len(lines)))


def test_every_experiment_is_kept_with_its_origin(tmp_path: Path) -> None:
    lines = perform(STUDY, CELLS, tmp_path, 2, QUIET)
    assert sorted((line.cell["x"], line.found["square"]) for line in lines) == [(0, 0), (1, 1), (2, 4)]
    assert all(line.command.endswith("quality squares") and line.seconds >= 0 for line in lines)
    assert all(line.found["process"] != os.getpid() for line in lines)


def test_only_what_is_missing_is_run(tmp_path: Path) -> None:
    first = perform(STUDY, CELLS[:2], tmp_path, 1, QUIET)
    lines = perform(STUDY, CELLS, tmp_path, 1, QUIET)
    assert lines[:2] == first
    assert len(lines) == 3


def test_an_interrupted_study_keeps_what_is_done_and_goes_on(tmp_path: Path) -> None:
    cells = [{"x": 1}, {"x": 13}, {"x": 2}]
    with pytest.raises(KeyboardInterrupt):
        perform(STUDY, cells, tmp_path, 1, QUIET)
    file = tmp_path / "squares.jsonl"
    assert [line.cell["x"] for line in kept(file)] == [1]
    with file.open("a") as out:
        out.write('{"cell": {"x": 2}, "fou')  # as after kill -9
    assert missing(cells, kept(file)) == [{"x": 13}, {"x": 2}]
    after = perform(replace(STUDY, run=cubed), cells, tmp_path, 1, QUIET)
    assert [line.cell["x"] for line in after] == [1, 13, 2]


def test_what_another_commit_has_found_is_replaced_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "commit", lambda: "earlier")
    perform(STUDY, CELLS, tmp_path, 1, QUIET)
    monkeypatch.setattr(study, "commit", lambda: "now")
    assert {line.commit for line in perform(STUDY, CELLS, tmp_path, 1, QUIET)} == {"earlier"}
    lines = perform(replace(STUDY, run=cubed), CELLS[2:], tmp_path, 1, QUIET, again=True)
    assert [(line.cell["x"], line.commit) for line in lines] == [(0, "earlier"), (1, "earlier"), (2, "now")]
    assert lines[2].found["square"] == 8


def test_only_some_experiments_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["curves", "--only", "world=fatique", "--only", "seed=1"])
    told = " ".join(capsys.readouterr().err.split())
    assert "found no experiment of curves with world=fatique and seed=1; it has world, reference, fresh" in told


def test_some_experiments_go_with_a_study_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--only", "x=1"], ["curves", "--table", "--again"], ["curves", "--short", "--only", "seed=1"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "expected a study to run, without --table or --short" in " ".join(capsys.readouterr().err.split())


def test_an_experiment_is_chosen_by_all_that_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [{"x": x, "kind": kind} for x in range(3) for kind in ("a", "b")]
    monkeypatch.setattr(command, "STUDIES", {"squares": replace(STUDY, cells=cells)})
    monkeypatch.setattr(command, "KEPT", tmp_path)
    assert main(["squares", "--only", "x=2", "--only", "kind=b", "--workers", "1"]) == 0
    assert [line.cell for line in kept(tmp_path / "squares.jsonl")] == [{"x": 2, "kind": "b"}]


def cubed(cell: Cell) -> dict[str, int]:
    return {"square": cell["x"] ** 3}


@pytest.mark.parametrize("asked", ALL, ids=[one.name for one in ALL])
def test_every_study_has_a_short_version_that_works(asked: Study, tmp_path: Path) -> None:
    lines = perform(asked, asked.short, tmp_path, 1, QUIET)
    assert missing(asked.short, lines) == []
    assert asked.table(lines).count("\n") >= 2
    assert "nan" not in asked.table(lines)
