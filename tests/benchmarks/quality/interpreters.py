"""Other Pythons: environments of their own, from PyPI, for what cannot live in one environment with us."""

import fcntl
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.quality.study import ROOT


@dataclass(frozen=True, slots=True)
class Interpreter:
    """name: of its folder below `runs/`; another one for other needs. needs: what pip is given, call by call."""

    name: str
    needs: tuple[tuple[str, ...], ...]

    @property
    def home(self) -> Path:
        return ROOT / "runs" / self.name

    def is_made(self) -> bool:
        return (self.home / "ready").exists()

    def path(self) -> Path:
        """The interpreter, made on first use (minutes), by one process while others wait. Raises CalledProcessError
        where pip cannot install it.
        """
        python = self.home / "bin" / "python"
        if self.is_made():
            return python
        self.home.parent.mkdir(exist_ok=True)
        with (self.home.parent / f"{self.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.is_made():
                return python
            venv.create(self.home, with_pip=True, clear=True)
            for wanted in self.needs:
                subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
            (self.home / "ready").touch()
        return python
