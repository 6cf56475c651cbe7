"""The `serve` verb: a bundle and a store behind a port, until SIGTERM or Ctrl-C."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from rich.console import Console

from engine.bundle import Bundle
from engine.decider import Decider
from serving.batcher import Batcher
from serving.handler import Handler
from serving.sqlite import SqliteStore
from serving.transport import Transport, place

GRACE = 10.0
"""Seconds that calls under way have when the service stops."""


class Server:
    """A running service, in this process. Leaving it as a context drains it."""

    def __init__(
        self,
        bundle: Bundle,
        store: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        salt: str = "",
        clock: Callable[[], float] | None = time.time,
    ) -> None:
        """Listens when this returns; `target` says where.

        salt: "" takes the store's, or makes one up for a new store. clock: epoch seconds; None = every request says
        its time. Raises ServiceError when the port cannot be had, and then leaves no store behind; StoreError.
        """
        self._transport = Transport(host, port)
        try:
            self._store = SqliteStore(store, bundle.spec, salt)
        except BaseException:
            self._transport.stop(0.0)
            raise
        decider = Decider(bundle.spec, bundle.policy, self._store.salt)
        self._batcher = Batcher(Handler(decider, self._store, clock).handle)
        self._transport.start(self._batcher.submit)
        self.port = self._transport.port
        self.target = place(host, self.port)

    def stop(self) -> None:
        """Refuses new calls, finishes those that were accepted, closes the store."""
        self._transport.stop(GRACE)
        self._batcher.close()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def run(
    bundle: Path,
    store: Path,
    host: str = "127.0.0.1",
    port: int = 50051,
    salt: str = "",
    request_clock: bool = False,
) -> None:
    """Serves until SIGTERM or SIGINT, then drains. Raises BundleError, ServiceError, StoreError before it listens."""
    loaded = Bundle.load(bundle)
    console = Console(soft_wrap=True, highlight=False)
    clock = None if request_clock else time.time
    with _told_to_stop() as stopped, Server(loaded, store, host, port, salt, clock) as server:
        console.print(f"listening on {server.target}")
        console.print(
            f"policy {loaded.version} ({loaded.spec.name}), store {store}. SIGTERM or Ctrl-C drains and stops."
        )
        if loaded.caution:
            console.print(loaded.caution, style="red")
        stopped.wait()
        console.print("draining")
    console.print("stopped")


@contextmanager
def _told_to_stop() -> Iterator[Event]:
    """An event that SIGTERM and SIGINT set."""
    stopped = Event()
    before = {n: signal.signal(n, lambda *_: stopped.set()) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
