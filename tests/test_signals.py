"""SIGTERM as a process gets it: `train` ends like an interrupted job. That `serve` drains is in tests/serving."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from click.testing import CliRunner

from nextbest import main


def test_a_training_that_is_told_to_end_says_so_and_leaves_no_run_open(tmp_path: Path, root: Path) -> None:
    made = CliRunner().invoke(main, ["simulate", "--out", str(tmp_path / "log"), "--customers", "150", "--days", "14"])
    assert made.exit_code == 0, made.output
    command = [sys.executable, "-W", "ignore", "-m", "nextbest", "train", "log/nextbest.toml", "--log", "log"]
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "it has begun"
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert (process.returncode, said.strip()) == (130, "Interrupted.")
    database = tmp_path / "mlruns" / "mlflow.db"
    if database.exists():
        with closing(sqlite3.connect(database)) as runs:
            assert runs.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'").fetchone() == (0,)
