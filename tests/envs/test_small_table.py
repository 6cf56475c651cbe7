"""The README's table is what the command prints, and that is what was computed."""

import sys
from pathlib import Path

import pytest

from envs.small.table import main, rows
from tests.envs.small_worlds import SMALL


def test_the_readme_has_the_values_of_the_day(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last column depends on the simulation; all others stand in the README letter by letter."""
    main(["--customers", "50"])
    said = capsys.readouterr().out.splitlines()
    readme = (root / "envs" / "README.md").read_text()
    assert len(said) == 2 + len(SMALL) + 1
    for line in said[2:]:
        computed = line.rstrip("| ").rpartition("|")[0] + "|"
        assert f"\n{computed}\n" in readme


def test_the_table_shows_why_the_worlds_are_there() -> None:
    table = {row.name: row for row in rows(2000)}
    assert set(table) == {*SMALL, "new_content, later"}
    for row in table.values():
        assert row.optimum >= max(row.hold, row.logging, row.constant, row.greedy) - 1e-9
        assert abs(row.measured - row.optimum) < 3.0 * row.error
    assert table["fatigue"].greedy < table["fatigue"].hold
    assert table["null"].optimum == table["null"].hold > table["null"].logging
    assert table["delayed"].greedy < table["delayed"].constant
    assert table["drift"].constant < 0.7 * table["drift"].optimum
    assert table["new_content, later"].optimum > table["new_content"].optimum


def test_help_says_what_it_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["table", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "--customers" in capsys.readouterr().out
