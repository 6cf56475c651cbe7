"""Ask NextBest what to do next for a customer, and tell it how that went.

    python examples/clients/python/journey.py 127.0.0.1:50051 c-17 '{"loyalty": "new", ...}'

Only the context and the kind of event belong to your spec; the rest is the same for everyone.
"""

import argparse
import json
import time
from uuid import uuid4

from engine.clock import format_instant
from engine.errors import NextBestError, RequestError
from engine.records import Event, Request
from serving.client import Client


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("target", help="host:port of the service")
    parser.add_argument("customer", help="your id of the customer")
    parser.add_argument("context", type=json.loads, help="the spec's [context] features as JSON")
    parser.add_argument("--kind", default="click", help="the kind of event to track (default: click)")
    parser.add_argument("--time-zone", default="", help="the customer's, such as Europe/Berlin")
    given = parser.parse_args()
    with Client(given.target) as client:
        try:
            converse(client, Request(uuid4().hex, given.customer, given.context, given.time_zone), given.kind)
        except RequestError as refused:
            for violation in refused.violations:
                print(f"{violation.field}: {violation.description}")
            raise SystemExit(2) from None
        except NextBestError as error:
            raise SystemExit(str(error)) from None


def converse(client: Client, request: Request, kind: str) -> None:
    decided = client.decide(request, explain=True)
    when = f" at {format_instant(decided.send_at)}" if decided.send_at is not None else ""
    print(f"decided: {decided.action}{when} (probability {decided.propensity:.3f})")
    for action, reasons in decided.explanation.removed[:3] if decided.explanation else ():
        print(f"not {action}: {', '.join(reasons)}")

    # After a deadline or a lost connection, ask again with the same request_id: the answer is the same.
    assert client.decide(request).decision_id == decided.decision_id

    receipt = client.track(
        Event(
            customer_id=request.customer_id,
            occurred_at=time.time(),
            kind=kind,
            event_id=uuid4().hex,
            # Nobody answers to what was not sent.
            decision_id=None if decided.action.is_hold else decided.decision_id,
        )
    )
    print(f"tracked: {receipt.event_id}")


if __name__ == "__main__":
    main()
