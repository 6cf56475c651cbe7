"""What an error says is bounded: a client gets it whole, however much was wrong."""

import base64
from math import nan
from urllib.parse import quote

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import NextBestError, RequestError, StoreError, Violation
from engine.records import Event, Request
from serving.calls import NotFoundError, OverloadedError, TakenError
from serving.client import Client
from serving.statuses import status_of
from tests.serving.conftest import ask

ROOM = 8 * 1024 - 512
"""Bytes of trailers that every grpc client takes, less what is not ours."""


def trailers(status: status_pb2.Status) -> int:
    """Bytes of grpc-message (percent-encoded) and grpc-status-details-bin (base64)."""
    return len(quote(status.message, safe=" ")) + len(base64.b64encode(status.SerializeToString()))


texts = st.one_of(st.text(max_size=30), st.builds(lambda t, n: t * n, st.text(min_size=1, max_size=5), st.just(4000)))
errors = st.one_of(
    st.builds(RequestError, st.lists(st.builds(Violation, texts, texts), max_size=60)),
    st.builds(lambda kind, text: kind(text), st.sampled_from([TakenError, StoreError, NotFoundError]), texts),
)


@given(error=errors)
def test_every_error_fits_into_the_trailers(error: NextBestError) -> None:
    assert trailers(status_of(error)) < ROOM


@given(st.lists(st.builds(Violation, st.text(max_size=20), st.text(max_size=40)), max_size=60))
def test_the_first_are_named_and_the_others_counted(violations: list[Violation]) -> None:
    status = status_of(RequestError(violations))
    bad = error_details_pb2.BadRequest()
    assert status.code == code_pb2.INVALID_ARGUMENT
    assert status.details[0].Unpack(bad)
    found = [Violation(v.field, v.description) for v in bad.field_violations]
    named = found if len(found) == len(violations) else found[:-1]
    assert named == violations[: len(named)]
    if len(named) < len(violations):
        assert found[-1].description.startswith(f"{len(violations) - len(named)} more bad fields")
    assert len(named) == min(20, len(violations))


def test_hundreds_of_bad_events_are_a_request_error(client: Client) -> None:
    """They were RESOURCE_EXHAUSTED, on which clients try again for ever."""
    with pytest.raises(RequestError) as raised:
        client.track_batch([Event(f"c{i}", nan, "größe" * 100) for i in range(1000)])
    violations = raised.value.violations
    assert [v.field for v in violations[:3]] == ["events[0].kind", "events[1].kind", "events[2].kind"]
    assert violations[-1].field == "*"
    assert violations[-1].description == f"{1001 - len(violations)} more bad fields, which are not named here"
    assert all("expected" not in v.description for v in violations[:-1]), "what was found fills them"


def test_hundreds_of_bad_questions_are_a_request_error(client: Client) -> None:
    with pytest.raises(RequestError) as raised:
        client.decide_batch([ask(f"r{i}", f"c{i}", loyalty="gold" * 1000) for i in range(1000)])
    assert raised.value.violations[0].field == "requests[0].context.loyalty"
    assert "more bad fields" in raised.value.violations[-1].description
    with pytest.raises(RequestError) as raised:
        client.decide(Request("r", "c", {f"feature{i}": 1.0 for i in range(2000)}))
    assert len(raised.value.violations) == 21
    assert not client.decide(ask("r", "c").request).repeated


def test_a_long_name_of_a_decision_is_a_request_error(client: Client) -> None:
    with pytest.raises(RequestError, match="decision_id: found 50000 characters, expected at most 128"):
        client.get_decision("x" * 50_000)


def test_what_is_not_a_request_keeps_its_code() -> None:
    assert status_of(OverloadedError("x" * 99_999)).code == code_pb2.RESOURCE_EXHAUSTED
    assert status_of(StoreError("é" * 9_999)).message == "é" * 248 + "…"
