"""Micro-batches: whatever has arrived while the last batch was worked on is the next batch.

Nothing waits for company: a lone call is handled at once, and under load batches grow by themselves.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread

from engine.errors import NextBestError
from serving.calls import Call, LateError, Outcome, OverloadedError, weight

MAX_BATCH = 256
"""Questions and events in one batch (one call may hold more): about what a few milliseconds suffice for."""

WAITING = 4096
"""Questions and events that may wait; beyond that, calls are refused at once instead of answered too late."""

_log = logging.getLogger("nextbest.serving")


@dataclass(frozen=True, slots=True)
class _Waiting:
    call: Call
    deadline: float | None
    outcome: Future[Outcome] = field(default_factory=Future)


class Batcher:
    """One thread that hands batches to `handle`, in front of it a bounded queue. Deadlines are monotonic seconds."""

    def __init__(
        self,
        handle: Callable[[Sequence[Call]], list[Outcome]],
        max_batch: int = MAX_BATCH,
        waiting: int = WAITING,
    ) -> None:
        self._handle, self._max_batch, self._limit = handle, max_batch, waiting
        self._queue: deque[_Waiting] = deque()
        self._weight = 0
        self._closed = False
        self._changed = Condition()
        self._thread = Thread(target=self._work, name="nextbest-batcher")
        self._thread.start()

    def submit(self, call: Call, remaining: float | None) -> Outcome:
        """Wait for the call's outcome, `remaining` seconds at most (None = as long as it takes).

        Raises OverloadedError when too much is waiting, LateError when the time is up.
        """
        deadline = None if remaining is None else time.monotonic() + remaining
        waiting = _Waiting(call, deadline)
        with self._changed:
            if self._closed or (self._queue and self._weight + weight(call) > self._limit):
                raise OverloadedError(f"{self._weight} questions and events are waiting; try again later")
            self._queue.append(waiting)
            self._weight += weight(call)
            self._changed.notify()
        try:
            return waiting.outcome.result(remaining)
        except TimeoutError:
            raise LateError("the deadline passed; ask again with the same ids") from None

    def close(self) -> None:
        """Takes nothing more, finishes what is waiting, and returns when it is done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            outcomes = self._outcomes([w.call for w in batch])
            for waiting, outcome in zip(batch, outcomes, strict=True):
                waiting.outcome.set_result(outcome)

    def _next(self) -> list[_Waiting]:
        """The calls that have arrived and are not too late; none when the batcher is closed and empty."""
        batch: list[_Waiting] = []
        size = 0
        with self._changed:
            while not batch:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    break
                while self._queue and (not batch or size + weight(self._queue[0].call) <= self._max_batch):
                    waiting = self._queue.popleft()
                    self._weight -= weight(waiting.call)
                    if waiting.deadline is not None and waiting.deadline <= time.monotonic():
                        waiting.outcome.set_result(
                            LateError("the deadline passed before it was begun; ask again with the same ids")
                        )
                        continue
                    batch.append(waiting)
                    size += weight(waiting.call)
        return batch

    def _outcomes(self, calls: Sequence[Call]) -> list[Outcome]:
        """Outcomes from the handler. A mistake of ours in one call must not spoil the others of its batch."""
        try:
            return self._handle(calls)
        except NextBestError as error:
            return [error] * len(calls)
        except Exception:
            _log.exception("a batch of %d calls failed", len(calls))
        if len(calls) > 1:
            return [self._outcomes([call])[0] for call in calls]
        return [NextBestError("the service failed; its own log says why")]
