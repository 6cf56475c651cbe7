"""The verbs `decide` and `track`, and what the client refuses before it asks."""

import re

import pytest

from engine.errors import ClockError, RequestError
from serving.client import decide, track
from serving.server import Server

CONTEXT = '{"loyalty": "regular", "stock": 3, "on_site": true}'


def test_decide_prints_the_answer(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    decide(server.target, "anna", CONTEXT, request_id="r1", explain=True, time_zone="Europe/Berlin")
    first = capsys.readouterr().out
    assert re.search(r"probability 0\.\d{4} among 9 eligible actions, policy \w{12}", first)
    assert "at 2026-03-02T12:00:00.000000Z" in first
    assert "consent:sms" in first
    decide(server.target, "anna", CONTEXT, request_id="r1")
    again = capsys.readouterr().out
    assert again.splitlines()[0] == first.splitlines()[0]
    assert again.splitlines()[2].endswith("from the log")


def test_track_prints_the_receipt(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    track(server.target, "anna", "order", value=12.5, event_id="e1", properties='{"shop": "Köln"}')
    assert capsys.readouterr().out == "event e1 is in the log\n"
    track(server.target, "anna", "order", value=12.5, event_id="e1", at="2026-03-01T09:00:00+01:00")
    assert "was known already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ("{", "context: is not JSON"),
        ("[1]", "context: found \\[1\\], expected a JSON object"),
        ('{"loyalty": ["new"]}', "context.loyalty: found \\['new'\\]"),
        ('{"loyalty": "gold"}', "context.loyalty: found 'gold'"),
    ],
)
def test_a_context_that_is_none(server: Server, context: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        decide(server.target, "anna", context)


def test_track_says_that_a_value_is_missing(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """A purchase of unknown size is an event; that its size was forgotten must not go unseen."""
    track(server.target, "anna", "order", event_id="e1")
    note = "events of kind 'order' have a value; this one came without, and counts as 0"
    assert capsys.readouterr().out == f"event e1 is in the log; {note}\n"
    track(server.target, "anna", "order", event_id="e1")
    assert capsys.readouterr().out == "event e1 was known already; nothing changed\n"
    for kind, value in (("order", 0.0), ("click", None)):
        track(server.target, "anna", kind, event_id=kind, value=value)
        assert capsys.readouterr().out == f"event {kind} is in the log\n"


@pytest.mark.parametrize("target", ["", "localhost", ":50051", "localhost:grpc"])
def test_a_target_that_is_none(target: str) -> None:
    with pytest.raises(RequestError, match=r"target: found .*, expected host:port such as"):
        track(target, "anna", "order")
    with pytest.raises(RequestError, match=r"target: found .*, expected host:port such as"):
        decide(target, "anna")


def test_other_mistakes(server: Server) -> None:
    with pytest.raises(RequestError, match=r"properties\.till: found 7"):
        track(server.target, "anna", "order", properties='{"till": 7}')
    with pytest.raises(ClockError, match="at: found '2026-03-01'"):
        track(server.target, "anna", "order", at="2026-03-01")
    with pytest.raises(RequestError, match=r"event\.kind"):
        track(server.target, "anna", "ordr")
