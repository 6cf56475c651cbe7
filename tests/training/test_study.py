import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import StoreError
from training.study import BLIND, Range, Study, Try, best

SPACE = {"closeness": Range(0.01, 1.0), "steps": Range(100, 4000, whole=True)}
GIVEN = [{"closeness": 0.3, "steps": 1000}, {"closeness": 0.1, "steps": 1000}]
MANY = BLIND + 6


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "studies.db"


def opened(file: Path, name: str = "one", seed: int = 0) -> Iterator[Study]:
    """The same search, opened anew each time it is asked for."""
    while True:
        study = Study(file, name, SPACE, seed, GIVEN)
        yield study
        study.close()


def answered(one: Try) -> Try:
    """Best where closeness is 0.05; nothing can be said far below."""
    closeness = one.settings["closeness"]
    score = None if closeness < 0.02 else -abs(closeness - 0.05)
    return Try(one.number, one.settings, score, score, f"run {one.number}")


def searched(studies: Iterator[Study], tries: int) -> list[Try]:
    for _ in range(tries):
        study = next(studies)
        study.tell(answered(study.ask()))
    found = next(studies).tries()
    studies.close()  # type: ignore[attr-defined]
    return found


def at_once(file: Path, seed: int) -> list[Try]:
    study = Study(file, f"at once, {seed}", SPACE, seed, GIVEN)
    for _ in range(MANY):
        study.tell(answered(study.ask()))
    found = study.tries()
    study.close()
    return found


def test_a_search_that_is_interrupted_after_each_try_goes_on_as_one_that_is_not(file: Path) -> None:
    whole = at_once(file, 0)
    assert searched(opened(file), MANY) == whole
    assert [one.settings for one in whole[:2]] == GIVEN
    assert [one.number for one in whole] == list(range(MANY))
    assert [one.settings for one in at_once(file, 1)[2:]] != [one.settings for one in whole[2:]]


def test_what_is_asked_and_never_answered_is_asked_again(file: Path) -> None:
    study = Study(file, "one", SPACE, 0)
    first = study.ask()
    assert study.ask() == first
    study.close()
    again = Study(file, "one", SPACE, 0)
    assert again.ask() == first
    assert again.tries() == []
    again.close()


def test_settings_stay_within_their_ranges_and_whole_numbers_are_whole(file: Path) -> None:
    for one in at_once(file, 0):
        assert SPACE["closeness"].low <= one.settings["closeness"] <= SPACE["closeness"].high
        assert isinstance(one.settings["steps"], int)
    assert Range(1, 10, whole=True).clipped(3.7) == 4
    assert Range(0.1, 1.0).clipped(0.03) == 0.1


def test_the_best_gains_more_and_is_surer_of_it() -> None:
    tries = [
        Try(0, {}, 3.0, 1.0),
        Try(1, {}, 0.1, 1.5),  # sure to gain next to nothing
        Try(2, {}, 4.0, 1.0),
        Try(3, {}, None, None),
        Try(4, {}, -1.0, -2.0),
    ]
    found = best(tries, 0.5, 0.5)
    assert found is not None
    assert found.number == 0
    assert best(tries, 3.5, 1.2) is None
    assert best(tries[3:]) is None


def test_a_search_over_other_ranges_is_refused(file: Path) -> None:
    assert searched(opened(file), 1)
    with pytest.raises(StoreError, match="search one was begun over other ranges"):
        Study(file, "one", {"closeness": Range(0.5, 1.0)}, 0)


def test_two_processes_may_begin_at_once(file: Path) -> None:
    """Optuna makes its tables without asking whether another one does: one of two failed, with a traceback."""
    with multiprocessing.get_context("spawn").Pool(2) as two:
        assert two.map(_begun, [file] * 2, chunksize=1) == [0, 0]


def _begun(file: Path) -> int:
    study = Study(file, "one", SPACE, 0, GIVEN)
    found = len(study.tries())
    study.close()
    return found


def test_a_damaged_store_is_refused(file: Path) -> None:
    assert searched(opened(file), 3)
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:16] + b"x" * 5000):
        file.write_bytes(damaged)
        with pytest.raises(StoreError, match="cannot be opened as a store of searches"):
            Study(file, "one", SPACE, 0)


def test_a_file_that_is_no_store_is_refused(file: Path) -> None:
    file.write_text("no database\n" * 100)
    with pytest.raises(StoreError, match="cannot be opened as a store of searches"):
        Study(file, "one", SPACE, 0)
