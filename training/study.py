"""A search for settings, remembered: Optuna proposes, its store keeps what was tried. No other file imports it.

The tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011) proposes; what the log cannot judge counts as
pruned, which it takes for worse than any score. Only finished tries are stored, and what is proposed after k of them
follows from these, the seed and k alone: so a search that was killed goes on as if it had not been.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import OptunaError
from optuna.trial import FrozenTrial, TrialState, create_trial

from engine.errors import StoreError

optuna.logging.set_verbosity(optuna.logging.WARNING)

BLIND = 6
"""Tries before the first that learns from the others; the ones that are given count."""


MAGIC = b"SQLite format 3\0"
"""With which such a file begins."""


@dataclass(frozen=True, slots=True)
class Range:
    """Where a setting is looked for, on a logarithmic scale. whole: only whole numbers."""

    low: float
    high: float
    whole: bool = False

    def clipped(self, value: float) -> float:
        """The nearest value within."""
        found = min(max(value, self.low), self.high)
        return round(found) if self.whole else found

    def distribution(self) -> BaseDistribution:
        """As Optuna says it."""
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=True)
        return FloatDistribution(self.low, self.high, log=True)


@dataclass(frozen=True, slots=True)
class Try:
    """One set of settings that was tried. gain: what it is expected to gain; score: what of that is certain, by which
    it is compared; None = the log cannot judge it. run: MLflow's.
    """

    number: int
    settings: Mapping[str, float]
    gain: float | None = None
    score: float | None = None
    run: str = ""


class Study:
    """The tries of one search, in the order in which they were made."""

    def __init__(
        self, file: Path, name: str, space: Mapping[str, Range], seed: int, given: Sequence[Mapping[str, float]] = ()
    ) -> None:
        """file: SQLite, made if it is not there; may hold many searches. given: settings that are tried first.

        Raises StoreError when the file cannot be opened, or holds a search of this name over other ranges.
        """
        self.name = name
        self._space = {key: found.distribution() for key, found in space.items()}
        self._seed, self._given = seed, list(given)
        try:
            with _alone(file.parent):  # Optuna's own tables are made by one process, or one of two fails
                _check(file)
                self._storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
                self._study = optuna.create_study(
                    storage=self._storage, study_name=name, direction="maximize", load_if_exists=True
                )
        except (OptunaError, OSError, sqlite3.Error) as problem:
            raise StoreError(f"{file}: cannot be opened as a store of searches: {problem}") from None
        if any(t.distributions != self._space for t in self._study.get_trials(deepcopy=False)):
            self.close()
            raise StoreError(f"{file}: search {name} was begun over other ranges, expected {dict(space)}")

    def close(self) -> None:
        """Let go of the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def tries(self) -> list[Try]:
        """All that are finished."""
        return [_try(number, trial) for number, trial in enumerate(self._trials())]

    def ask(self) -> Try:
        """What to try next, without a score yet. Asked again before `tell`, it answers the same."""
        trials = self._trials()
        number = len(trials)
        if number < len(self._given):
            return Try(number, dict(self._given[number]))
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=BLIND)
        memory = optuna.create_study(direction="maximize", sampler=sampler)
        memory.add_trials(trials)
        return Try(number, dict(memory.ask(self._space).params))

    def tell(self, done: Try) -> None:
        """Keep a finished try."""
        state = TrialState.PRUNED if done.score is None else TrialState.COMPLETE
        self._study.add_trial(
            create_trial(
                state=state,
                value=done.score,
                params=dict(done.settings),
                distributions=self._space,
                user_attrs={"run": done.run, "gain": done.gain},
            )
        )

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _check(file: Path) -> None:
    """Raises OSError or sqlite3.Error for a file that is there and is no SQLite, or a damaged one."""
    if not file.exists() or not file.stat().st_size:
        return
    with file.open("rb") as opened:
        if opened.read(len(MAGIC)) != MAGIC:
            raise OSError("found another file, expected SQLite")
    with closing(sqlite3.connect(file)) as store:
        found = str(store.execute("PRAGMA quick_check(1)").fetchone()[0])
    if found != "ok":
        raise OSError(f"is damaged: {found.splitlines()[-1]}")


def best(tries: Sequence[Try], gain: float = 0.0, score: float = -np.inf) -> Try | None:
    """Of the tries that gain more than `gain` and have a higher score than `score`, the one with the highest, the first
    of equals; None when there is none. Both, because what is merely nearer to the log is surer to gain nothing.
    """
    better = [
        (one.score, -one.number, one)
        for one in tries
        if one.gain is not None and one.score is not None and one.gain > gain and one.score > score
    ]
    return max(better, key=lambda each: each[:2])[2] if better else None


def _try(number: int, trial: FrozenTrial) -> Try:
    score = trial.value if trial.state == TrialState.COMPLETE else None
    told = trial.user_attrs
    return Try(number, dict(trial.params), told["gain"], score, str(told["run"]))
