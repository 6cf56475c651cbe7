"""Errors as gRPC statuses with google.rpc details, small enough that every client gets them.

A status travels in the trailers of a call, its details once more with the message in them. A client may refuse trailers
above 8 KiB, and then sees RESOURCE_EXHAUSTED instead of the error; so what is said of an error is bounded here.
"""

from collections.abc import Sequence
from typing import Any

from google.protobuf import any_pb2  # type: ignore[import-untyped]
from google.rpc import code_pb2, error_details_pb2, status_pb2

from engine.errors import NextBestError, RequestError, StoreError, Violation
from serving.calls import LateError, NotFoundError, OverloadedError, TakenError
from serving.pb.nextbest.v1 import decision_pb2

SHOWN = 20
"""The most bad fields that an error names; a last violation says how many more there are."""

TEXT, MESSAGE, ALL = 200, 500, 3000
"""Bytes of UTF-8: of a field's path or of its description; of the message; of all violations together.

The worst case is 3 · MESSAGE (percent-encoded) + 4/3 · (MESSAGE + ALL) (base64), some 6.2 KB.
"""

REST = "*"
"""The field of the violation that counts those that are not named."""

_CODES: tuple[tuple[type[NextBestError], int], ...] = (
    (RequestError, code_pb2.INVALID_ARGUMENT),
    (TakenError, code_pb2.ALREADY_EXISTS),
    (NotFoundError, code_pb2.NOT_FOUND),
    (OverloadedError, code_pb2.RESOURCE_EXHAUSTED),
    (LateError, code_pb2.DEADLINE_EXCEEDED),
    (StoreError, code_pb2.UNAVAILABLE),
)


def status_of(error: NextBestError) -> status_pb2.Status:
    """code, message and google.rpc details of an error."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), code_pb2.INTERNAL)
    details: list[Any] = []
    if isinstance(error, RequestError):
        error = RequestError(shown(error.violations))
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in error.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    message = _cut(str(error), MESSAGE)
    if isinstance(error, NotFoundError):
        kind, name = decision_pb2.Decision.DESCRIPTOR.full_name, _cut(error.decision_id, TEXT)
        details.append(
            error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name, description=_cut(message, TEXT))
        )
    return status_pb2.Status(code=code, message=message, details=[_packed(d) for d in details])


def shown(violations: Sequence[Violation]) -> list[Violation]:
    """The first violations, as many and as much of each as fits; then one that says how many more there are."""
    cut = [Violation(_cut(v.field, TEXT), _cut(v.description, TEXT)) for v in violations[:SHOWN]]
    sizes = [len(f"{v.field}{v.description}".encode()) for v in cut]
    named = [v for i, v in enumerate(cut) if sum(sizes[: i + 1]) <= ALL]
    more = len(violations) - len(named)
    return named if more == 0 else [*named, Violation(REST, f"{more} more bad fields, which are not named here")]


def _cut(text: str, most: int) -> str:
    """The text, or its beginning and an ellipsis: at most so many bytes of UTF-8."""
    whole = text.encode()
    return text if len(whole) <= most else whole[: most - 3].decode(errors="ignore") + "…"


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
