"""Our values as messages and back: what service and client both need."""

from typing import Any

from google.protobuf import timestamp_pb2  # type: ignore[import-untyped]

from engine.records import Action, Value
from serving.calls import on_tick
from serving.pb.nextbest.v1 import decision_pb2

NOTE = "nextbest-note"
"""Key of the trailing metadata in which Track and TrackBatch say what is odd about an event that they took."""


def read_instant(message: timestamp_pb2.Timestamp) -> float:
    """Epoch seconds in whole microseconds, finer parts dropped; NaN for a message that is no instant."""
    if not 0 <= message.nanos < 1_000_000_000:
        return float("nan")
    return on_tick(message.seconds + message.nanos // 1000 / 1_000_000)


def write_timestamp(at: float) -> timestamp_pb2.Timestamp:
    """The whole microsecond nearest to `at`, epoch seconds."""
    seconds, microseconds = divmod(round(at * 1_000_000), 1_000_000)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=microseconds * 1000)


def read_value(message: decision_pb2.Value) -> Value:
    """None where nothing is set."""
    kind = message.WhichOneof("kind")
    return None if kind is None else getattr(message, kind)


def write_value(value: float | bool | str) -> decision_pb2.Value:
    if isinstance(value, bool):
        return decision_pb2.Value(flag=value)
    return decision_pb2.Value(category=value) if isinstance(value, str) else decision_pb2.Value(number=value)


def read_action(message: Any, field: str) -> Action:
    """The action in a message's field; unset is hold."""
    if not message.HasField(field):
        return Action()
    found = getattr(message, field)
    return Action(found.channel, found.content, found.timing)


def write_action(action: Action) -> decision_pb2.Action | None:
    """None is hold."""
    if action.is_hold:
        return None
    return decision_pb2.Action(channel=action.channel, content=action.content, timing=action.timing)
