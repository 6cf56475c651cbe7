"""A bundle for all tests of serving, and a company on its own clock, in memory and on a socket."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.bundle import Bundle
from engine.clock import parse_instant
from engine.decider import Decider
from engine.records import Event, Request, Value
from serving.calls import Answer, DecideCall, Happening, Question, Receipt, TrackCall
from serving.client import Client
from serving.handler import Handler
from serving.server import Server
from serving.sqlite import SqliteStore
from tests.serving.tiny import tiny_bundle

NOON = parse_instant("2026-03-02T12:00:00Z", "")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@dataclass(slots=True)
class Clock:
    """A clock that stands until it is moved."""

    now: float = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ask(request_id: str, customer: str, at: float | None = None, explain: bool = False, **context: Value) -> Question:
    """A question with the context that the tiny company needs."""
    zone = str(context.pop("time_zone", ""))
    return Question(Request(request_id, customer, {"loyalty": "regular", **context}, zone), at, explain)


def tell(kind: str, customer: str, at: float | None = None, **more: object) -> Happening:
    fields = {"value": 1.0} if kind in ("page_view", "order") else {}
    event = Event(customer, float("nan") if at is None else at, kind, **{**fields, **more})  # type: ignore[arg-type]
    return Happening(event, at)


@dataclass(slots=True)
class Company:
    """Handler and store without a transport."""

    handler: Handler
    store: SqliteStore

    def decide(self, *questions: Question) -> tuple[Answer, ...]:
        """Raises what the call was refused for."""
        return self._taken(DecideCall(questions, "requests[{}]."))

    def track(self, *happenings: Happening) -> tuple[Receipt, ...]:
        return self._taken(TrackCall(happenings, "events[{}]."))

    def _taken(self, call: DecideCall | TrackCall) -> tuple:  # type: ignore[type-arg]
        outcome = self.handler.handle([call])[0]
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, tuple)
        return outcome


Open = Callable[..., Company]


@pytest.fixture
def company(tmp_path: Path, bundle: Bundle, clock: Clock) -> Iterator[Open]:
    """Opens a company on a store of this test; again with other arguments, as after a restart."""
    stores: list[SqliteStore] = []

    def open_(of: Bundle = bundle, request_clock: bool = False, remembered: int = 1000) -> Company:
        for store in stores:
            store.close()
        stores.append(SqliteStore(tmp_path / "store.db", of.spec, "the same draws on every run"))
        decider = Decider(of.spec, of.policy, stores[-1].salt)
        handler = Handler(decider, stores[-1], None if request_clock else clock, remembered=remembered)
        return Company(handler, stores[-1])

    yield open_
    for store in stores:
        store.close()


@pytest.fixture
def server(tmp_path: Path, bundle: Bundle, clock: Clock) -> Iterator[Server]:
    """The real server on a real socket, on a clock that stands."""
    with Server(bundle, tmp_path / "served.db", salt="the same draws on every run", clock=clock) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.target) as talking:
        yield talking
