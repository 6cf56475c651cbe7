"""A small spec that uses everything, and random histories for it. Instants are whole seconds in early 2026."""

from datetime import UTC, datetime

import numpy as np
from hypothesis import strategies as st

from engine.records import Event, EventColumns
from engine.spec import Spec

TEXT = """
name = "small"

[journey]
discount_per_day = 0.9
horizon_days = 14
half_lives_days = [0.5, 7.0]
moments = ["daily", "cart"]

[context.loyalty]
type = "category"
categories = ["new", "regular", "loyal"]
evolves = "static"

[context.mood]
type = "category"
categories = ["good", "bad"]
optional = true

[context.stock]
type = "number"
minimum = 0
maximum = 100

[context.score]
type = "number"
optional = true
evolves = "endogenous"

[context.member]
type = "flag"
optional = true

[events.view]
value = "seconds"
response = true
[events.order]
value = "EUR"
[events.unsubscribe]
consent = "withdrawn"
[events.subscribe]
consent = "granted"
[events.churn]
ends_journey = true

[channels.email]
consent = "opt_out"
cost = 0.01
[channels.sms]
consent = "opt_in"
cost = 0.1
[channels.web]
consent = "none"

[timings.now]
delay_hours = 0
[timings.later]
delay_hours = 2.5
[timings.evening]
at = "19:00"
[timings.morning]
at = "08:00"
days = 1

[[contents]]
id = "reminder"
attributes = { kind = "reminder", discount = 0.0, interactive = false }
[[contents]]
id = "offer"
channels = ["email", "sms"]
timings = ["now", "morning"]
cost = 0.5
valid_from = 2026-01-10T00:00:00Z
valid_until = 2026-02-10T00:00:00+01:00
attributes = { kind = "offer", discount = 0.2, interactive = true }
[[contents]]
id = "tips"
channels = ["web"]
attributes = { kind = "care" }

[[guardrails.caps]]
name = "all"
limit = 3
window_days = 2.0
[[guardrails.caps]]
name = "sms_offer"
limit = 1
window_days = 5.5
channels = ["sms"]
contents = ["offer"]

[[guardrails.quiet_hours]]
name = "night"
start = "21:00"
end = "08:00"
channels = ["sms", "email"]

[[guardrails.eligibility]]
name = "after_view"
contents = ["reminder"]
require = [{ event = "view", within_days = 3 }, { event = "order", not_within_days = 1 }]
[[guardrails.eligibility]]
name = "loyal_only"
contents = ["offer"]
channels = ["sms"]
require = [{ feature = "loyalty", is = ["regular", "loyal"] }, { feature = "score", at_least = 0.5, at_most = 2 }]

[reward]
currency = "EUR"
[reward.events.order]
each = 1.0
per_value = 0.3
[reward.events.unsubscribe]
each = -5.0
"""

START = datetime(2026, 1, 5, tzinfo=UTC).timestamp()
SPEC = Spec.parse(TEXT)
CONTEXT = {"loyalty": "loyal", "mood": None, "stock": 3.0, "score": 1.0, "member": True}
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Kiritimati", "Pacific/Pago_Pago"]

moments = st.integers(0, 40 * 86_400).map(lambda s: START + s)


@st.composite
def events(draw: st.DrawFn) -> Event:
    kind = draw(st.sampled_from(SPEC.kinds))
    return Event(
        "c",
        draw(moments),
        kind.name,
        value=draw(st.floats(-50, 50)) if kind.value else None,
        channel=draw(st.sampled_from(["email", "sms", "web", None])),
        content=draw(st.sampled_from(["reminder", "offer", "tips", None])),
    )


def columns(happened: list[Event], rows: list[int] | None = None) -> EventColumns:
    """Events as columns; all of them of customer 0 unless rows are given."""
    cat = SPEC.catalogue
    return EventColumns(
        row=np.array(rows if rows is not None else [0] * len(happened), np.int64),
        kind=np.array([SPEC.fold.kind_index(e.kind) for e in happened], np.int64),
        occurred_at=np.array([e.occurred_at for e in happened], np.float64),
        value=np.array([e.value or 0.0 for e in happened], np.float64),
        channel=np.array([-1 if e.channel is None else cat.channel_index(e.channel) for e in happened], np.int64),
        content=np.array([-1 if e.content is None else cat.content_index(e.content) for e in happened], np.int64),
    )
