"""A small use case and a random log of it, for tests of what comes in."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from engine.spec import Spec

TEXT = """
name = "small"

[journey]
half_lives_days = [1.0, 7.0]
horizon_days = 14

[context.loyalty]
type = "category"
categories = ["new", "loyal"]
evolves = "static"

[context.balance]
type = "number"
optional = true
minimum = -100

[context.online]
type = "flag"

[events.view]
[events.order]
value = "EUR"
response = true
[events.stop]
consent = "withdrawn"
[events.churn]
ends_journey = true

[channels.email]
cost = 0.01
[channels.push]
consent = "opt_in"

[timings.now]
delay_hours = 0
[timings.evening]
at = "19:00"

[[contents]]
id = "tips"
attributes = { kind = "tips", discount = 0.0 }
[[contents]]
id = "offer"
channels = ["email"]
attributes = { kind = "offer", discount = 0.1 }

[[guardrails.caps]]
name = "week"
limit = 2
window_days = 7

[[guardrails.quiet_hours]]
name = "night"
start = "22:00"
end = "07:00"

[reward.events.order]
per_value = 0.3
[reward.events.stop]
each = -5.0
"""
SPEC = Spec.parse(TEXT)
START = pd.Timestamp("2026-03-25T00:00:00Z")
ACTIONS = [(None, None, None), ("email", "tips", "now"), ("email", "offer", "evening"), ("push", "tips", "now")]

Frames = dict[str, pd.DataFrame]


def random_log(seed: int, customers: int = 12, decisions: int = 60, events: int = 200) -> Frames:
    """Decisions and events at whole hours, so that many fall on the same instant; out of order; some
    customers are in one table only.
    """
    rng = np.random.default_rng(seed)
    names = [f"k{i}" for i in range(customers)]
    chosen = [ACTIONS[i] for i in rng.integers(0, len(ACTIONS), decisions)]
    decided = pd.DataFrame(
        {
            "decision_id": [f"d{i}" for i in range(decisions)],
            "customer_id": rng.choice(names[:-2], decisions),
            "decided_at": START + pd.to_timedelta(rng.integers(0, 14 * 24, decisions), unit="h"),
            "channel": [a[0] for a in chosen],
            "content": [a[1] for a in chosen],
            "timing": [a[2] for a in chosen],
            "propensity": rng.uniform(0.05, 1.0, decisions),
            "balance": np.where(rng.random(decisions) < 0.2, np.nan, rng.normal(0, 20, decisions)),
            "online": rng.random(decisions) < 0.5,
        }
    )
    happened = pd.DataFrame(
        {
            "customer_id": rng.choice(names[1:], events),
            "occurred_at": START + pd.to_timedelta(rng.integers(-48, 16 * 24, events), unit="h"),
            "kind": rng.choice(["view", "order", "stop"], events, p=[0.6, 0.3, 0.1]),
            "value": np.round(rng.exponential(30, events), 2),
            "decision_id": pd.Series(rng.choice(decided["decision_id"], events)).where(rng.random(events) < 0.3),
        }
    )
    happened.loc[happened["kind"] == "stop", "channel"] = "email"
    known = pd.DataFrame(
        {
            "customer_id": names,
            "time_zone": rng.choice(["Europe/Berlin", "America/New_York", "UTC"], customers),
            "consent_push": rng.choice(np.array([True, False, None], object), customers),
            "loyalty": rng.choice(["new", "loyal"], customers),
        }
    )
    return {"decisions": decided, "events": happened, "customers": known}


def tiny_log() -> Frames:
    """Two customers, four decisions, easy to reckon with."""
    day = pd.Timedelta(days=1)
    decided = pd.DataFrame(
        {
            "decision_id": ["d1", "d2", "d3", "d4"],
            "customer_id": ["a", "a", "a", "b"],
            "decided_at": [START, START + day, START + 3 * day, START],
            "channel": ["email", None, "push", None],
            "content": ["offer", None, "tips", None],
            "timing": ["evening", None, "now", None],
            "propensity": [0.5, 0.5, 0.25, 0.5],
            "online": [True, False, True, False],
            "loyalty": ["new", "new", "new", "loyal"],
        }
    )
    happened = pd.DataFrame(
        {
            "customer_id": ["a", "a", "a", "b"],
            "occurred_at": [START - day, START + day, START + 2 * day, START + day],
            "kind": ["view", "order", "order", "view"],
            "value": [np.nan, 20.0, 30.0, np.nan],
            "decision_id": [None, "d1", "d1", None],
        }
    )
    return {"decisions": decided, "events": happened}


def write(frames: Frames, folder: Path, suffix: str = "parquet") -> Path:
    """The tables as files of one kind. Times are written with their zone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        path = folder / f"{name}.{suffix}"
        if suffix == "parquet":
            frame.to_parquet(path)
        elif suffix == "csv":
            frame.to_csv(path, index=False)
        else:
            rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
            path.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))
    return folder
