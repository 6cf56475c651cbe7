"""The front door: which verbs there are, what their help says, how they start, and how they fail."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from engine.errors import SpecError
from frontdoor import FrontDoor
from nextbest import main

VERBS = ["simulate", "check", "train", "tune", "evaluate", "promote", "export", "serve", "decide", "track", "ui"]
LATE = ["numpy", "pydantic", "torch", "mlflow", "grpc", "pyarrow", "pandas", "rich"]


def nextbest(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user starts it."""
    return subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-m", "nextbest", *arguments],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_verbs_are_listed_in_the_order_of_the_loop() -> None:
    shown = CliRunner().invoke(main, ["--help"])
    assert shown.exit_code == 0
    listed = [line.split()[0] for line in shown.output.partition("Commands:\n")[2].splitlines()]
    assert listed == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_each_help_says_what_is_read_and_written(verb: str) -> None:
    shown = CliRunner().invoke(main, [verb, "--help"])
    assert shown.exit_code == 0
    assert shown.output.startswith(f"Usage: nextbest {verb} ")
    assert "Reads:" in shown.output
    assert "Writes:" in shown.output


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_explained(verb: str) -> None:
    options = [p for p in main.commands[verb].params if isinstance(p, click.Option)]
    assert not [option.name for option in options if not option.help]


def test_every_line_of_the_list_is_whole() -> None:
    """A summary that does not fit is cut by click with an ellipsis."""
    shown = CliRunner().invoke(main, ["--help"])
    assert "..." not in shown.output.partition("Commands:")[2]


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_is_quick_because_nothing_heavy_is_imported(arguments: list[str], root: Path) -> None:
    code = (
        f"import sys\nfrom nextbest import main\nmain({arguments!r}, standalone_mode=False)\n"
        f"print(sorted(set({LATE!r}) & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


def _door(error: BaseException) -> FrontDoor:
    def verb() -> None:
        raise error

    return FrontDoor("nextbest", commands={"verb": click.Command("verb", callback=verb)})


def test_a_mistake_is_one_message_and_status_2() -> None:
    shown = CliRunner().invoke(_door(SpecError("nextbest.toml: [journy]: unknown table")), ["verb"])
    assert shown.exit_code == 2
    assert shown.stderr == "Error: nextbest.toml: [journy]: unknown table\n"
    assert shown.stdout == ""


def test_ctrl_c_is_one_line_and_status_130() -> None:
    shown = CliRunner().invoke(_door(KeyboardInterrupt()), ["verb"])
    assert shown.exit_code == 130
    assert shown.stderr.strip() == "Interrupted."


def test_a_job_that_is_told_to_end_ends_like_an_interrupted_one() -> None:
    before = signal.getsignal(signal.SIGTERM)

    @click.group(cls=FrontDoor)
    def door() -> None: ...

    @door.command()
    def verb() -> None:
        signal.raise_signal(signal.SIGTERM)

    shown = CliRunner().invoke(door, ["verb"])
    assert (shown.exit_code, shown.stderr.strip()) == (130, "Interrupted.")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_bug_of_ours_is_not_dressed_up_as_a_mistake_of_theirs() -> None:
    shown = CliRunner().invoke(_door(ZeroDivisionError()), ["verb"])
    assert isinstance(shown.exception, ZeroDivisionError)


def test_a_missing_extra_is_named_with_its_remedy(tmp_path: Path, root: Path) -> None:
    """As on a machine with only the base package: the import of pyarrow fails."""
    code = "import sys; sys.modules['pyarrow'] = None; from nextbest import main; main(['simulate', '--out', 'log'])"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(root)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 2
    assert shown.stderr.strip() == "Error: simulate needs the package pyarrow: pip install 'nextbest[serving,training]'"
    assert not list(tmp_path.iterdir())


def test_the_version_is_the_packages(root: Path) -> None:
    assert CliRunner().invoke(main, ["--version"]).output.startswith("nextbest 0.")


def test_a_full_disk_is_one_message_however_deep_it_lies() -> None:
    @click.group(cls=FrontDoor)
    def door() -> None: ...

    @door.command()
    def fill() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as full:
            raise RuntimeError("the database said no") from full

    @door.command()
    def other() -> None:
        raise RuntimeError("a mistake of ours")

    shown = CliRunner().invoke(door, ["fill"])
    assert (shown.exit_code, "no space is left on the disk" in shown.stderr) == (2, True)
    assert isinstance(CliRunner().invoke(door, ["other"]).exception, RuntimeError)
