"""Micro-batches: bounded, punctual, and no call spoils another."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import pytest

from engine.errors import NextBestError, StoreError
from serving.batcher import Batcher
from serving.calls import Call, FindCall, LateError, Outcome, OverloadedError

Submit = Callable[..., "Future[Outcome]"]


class Slow:
    """A handler that waits at its gate; it answers every call with itself as an error, and notes the batches."""

    def __init__(self) -> None:
        self.gate, self.entered = Event(), Event()
        self.batches: list[list[str]] = []

    def __call__(self, calls: Sequence[Call]) -> list[Outcome]:
        names = [c.decision_id for c in calls if isinstance(c, FindCall)]
        self.entered.set()
        assert self.gate.wait(10)
        self.batches.append(names)
        if "poison" in names:
            raise ZeroDivisionError
        if "disk full" in names:
            raise StoreError("the disk is full")
        return [NextBestError(name) for name in names]


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def submit_all(batcher: Batcher, pool: ThreadPoolExecutor, names: Sequence[str]) -> list["Future[Outcome]"]:
    """Submit one after the other, so that they queue in this order."""
    futures = []
    for name in names:
        before = len(batcher._queue)
        futures.append(pool.submit(batcher.submit, FindCall(name), None))
        while len(batcher._queue) == before:
            pass
    return futures


def occupied(batcher: Batcher, slow: Slow, pool: ThreadPoolExecutor) -> "Future[Outcome]":
    """The worker has taken one call and waits at the gate with it."""
    first = pool.submit(batcher.submit, FindCall("first"), None)
    assert slow.entered.wait(10)
    return first


def test_what_arrives_meanwhile_is_the_next_batch(slow: Slow, threads: ThreadPoolExecutor) -> None:
    batcher = Batcher(slow, max_batch=3)
    occupied(batcher, slow, threads)
    futures = submit_all(batcher, threads, ["a", "b", "c", "d"])
    slow.gate.set()
    assert [str(f.result(10)) for f in futures] == ["a", "b", "c", "d"]
    assert slow.batches == [["first"], ["a", "b", "c"], ["d"]]
    batcher.close()


def test_more_than_can_wait_is_shed_at_once(slow: Slow, threads: ThreadPoolExecutor) -> None:
    batcher = Batcher(slow, waiting=2)
    occupied(batcher, slow, threads)
    futures = submit_all(batcher, threads, ["a", "b"])
    with pytest.raises(OverloadedError, match="2 questions and events are waiting"):
        batcher.submit(FindCall("c"), None)
    slow.gate.set()
    assert [str(f.result(10)) for f in futures] == ["a", "b"]
    assert str(batcher.submit(FindCall("d"), None)) == "d", "what is shed leaves nothing behind"
    batcher.close()


def test_a_deadline_that_passes_in_the_queue_is_not_begun(slow: Slow, threads: ThreadPoolExecutor) -> None:
    batcher = Batcher(slow)
    occupied(batcher, slow, threads)
    with pytest.raises(LateError):
        batcher.submit(FindCall("late"), 0.01)
    slow.gate.set()
    assert str(batcher.submit(FindCall("b"), 10.0)) == "b"
    assert ["late"] not in slow.batches
    batcher.close()


def test_closing_finishes_what_was_accepted(slow: Slow, threads: ThreadPoolExecutor) -> None:
    batcher = Batcher(slow)
    first = occupied(batcher, slow, threads)
    futures = submit_all(batcher, threads, ["a", "b"])
    closing = threads.submit(batcher.close)
    while not batcher._closed:
        pass
    with pytest.raises(OverloadedError):
        batcher.submit(FindCall("c"), None)
    slow.gate.set()
    closing.result(10)
    assert [str(f.result(10)) for f in (first, *futures)] == ["first", "a", "b"]


def test_a_call_that_breaks_the_handler_spoils_only_itself(
    slow: Slow, threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = Batcher(slow)
    occupied(batcher, slow, threads)
    with caplog.at_level(logging.ERROR, "nextbest.serving"):
        futures = submit_all(batcher, threads, ["a", "poison", "b"])
        slow.gate.set()
        assert [str(f.result(10)) for f in futures] == ["a", "the service failed; its own log says why", "b"]
    assert "ZeroDivisionError" in caplog.text
    batcher.close()


def test_a_store_that_fails_is_everyones_answer(slow: Slow, threads: ThreadPoolExecutor) -> None:
    batcher = Batcher(slow)
    occupied(batcher, slow, threads)
    futures = submit_all(batcher, threads, ["a", "disk full"])
    slow.gate.set()
    outcomes = [f.result(10) for f in futures]
    assert all(isinstance(o, StoreError) for o in outcomes)
    batcher.close()
