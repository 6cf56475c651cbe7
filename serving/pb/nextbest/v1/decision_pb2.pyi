import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Action(_message.Message):
    __slots__ = ("channel", "content", "timing")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    channel: str
    content: str
    timing: str
    def __init__(self, channel: _Optional[str] = ..., content: _Optional[str] = ..., timing: _Optional[str] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("number", "flag", "category")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    number: float
    flag: bool
    category: str
    def __init__(self, number: _Optional[float] = ..., flag: _Optional[bool] = ..., category: _Optional[str] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("decision_id", "request_id", "customer_id", "decided_at", "action", "send_at", "moment", "propensity", "policy_version", "degraded", "eligible_count")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    DECIDED_AT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SEND_AT_FIELD_NUMBER: _ClassVar[int]
    MOMENT_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    request_id: str
    customer_id: str
    decided_at: _timestamp_pb2.Timestamp
    action: Action
    send_at: _timestamp_pb2.Timestamp
    moment: str
    propensity: float
    policy_version: str
    degraded: bool
    eligible_count: int
    def __init__(self, decision_id: _Optional[str] = ..., request_id: _Optional[str] = ..., customer_id: _Optional[str] = ..., decided_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., action: _Optional[_Union[Action, _Mapping]] = ..., send_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., moment: _Optional[str] = ..., propensity: _Optional[float] = ..., policy_version: _Optional[str] = ..., degraded: _Optional[bool] = ..., eligible_count: _Optional[int] = ...) -> None: ...

class RemovedAction(_message.Message):
    __slots__ = ("action", "reasons")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    action: Action
    reasons: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, action: _Optional[_Union[Action, _Mapping]] = ..., reasons: _Optional[_Iterable[str]] = ...) -> None: ...

class RankedAction(_message.Message):
    __slots__ = ("action", "probability")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    action: Action
    probability: float
    def __init__(self, action: _Optional[_Union[Action, _Mapping]] = ..., probability: _Optional[float] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("removed", "ranked")
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    RANKED_FIELD_NUMBER: _ClassVar[int]
    removed: _containers.RepeatedCompositeFieldContainer[RemovedAction]
    ranked: _containers.RepeatedCompositeFieldContainer[RankedAction]
    def __init__(self, removed: _Optional[_Iterable[_Union[RemovedAction, _Mapping]]] = ..., ranked: _Optional[_Iterable[_Union[RankedAction, _Mapping]]] = ...) -> None: ...
