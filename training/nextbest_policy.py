"""How MLflow loads a registered policy: `mlflow.pyfunc.load_model("models:/<name>@champion").predict(table)`.

This file and the engine's source travel inside the registered model, so it loads wherever numpy, pandas, pydantic and
onnxruntime are, without NextBest. It decides as the service does (same fold, guardrails, graphs and draw), for
customers whose history comes along in the table. Nothing is remembered between rows.

Input, a pandas DataFrame with a row per decision, all columns text:
    request_id   makes the draw repeatable: the same id, customer and policy give the same action
    customer_id
    decided_at   an ISO-8601 instant with a zone: 2026-03-01T09:30:00+01:00
    context      a JSON object with the features that the spec declares: {"loyalty": "new"}
    time_zone    optional, IANA: Europe/Berlin; UTC where missing
    consents     optional, a JSON object channel → true or false
    history      optional, a JSON list: events {"kind", "occurred_at", "value"?, "channel"?, "content"?} and
                 contacts {"decided_at", "channel", "content", "timing"}; what lies after `decided_at` is left out
Output, a DataFrame with the same index: channel, content, timing (None = hold), send_at (ISO-8601, None for hold),
propensity (the exact chance with which the action was drawn), eligible (how many actions the guardrails left).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.bundle import Bundle
from engine.clock import format_instant, parse_instant, zone_id
from engine.decider import Decider
from engine.journey import JourneyState
from engine.records import Decision, EventColumns, Request, Value
from engine.spec import Spec

COLUMNS = ("channel", "content", "timing", "send_at", "propensity", "eligible")


def _load_pyfunc(path: str) -> "RegisteredPolicy":
    """MLflow's entry point; `path` is the bundle's folder."""
    return RegisteredPolicy(Bundle.load(Path(path)))


class RegisteredPolicy:
    """A bundle behind MLflow's `predict`."""

    def __init__(self, bundle: Bundle, salt: str = "nextbest") -> None:
        self.bundle, self._decider = bundle, Decider(bundle.spec, bundle.policy, salt)

    def predict(self, table: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """See the module. Raises RequestError, ClockError or CatalogueError for a row that cannot be."""
        made = [self._decide(dict(row)) for row in table.to_dict("records")]
        rows = [
            (
                d.action.channel,
                d.action.content,
                d.action.timing,
                None if d.send_at is None else format_instant(d.send_at),
                d.propensity,
                len(d.eligible),
            )
            for d in made
        ]
        return pd.DataFrame(rows, columns=list(COLUMNS), index=table.index)

    def _decide(self, row: Mapping[str, Any]) -> Decision:
        now, zone = parse_instant(row["decided_at"], "decided_at"), _text(row, "time_zone", "UTC")
        state, fold = self.bundle.spec.fold.empty(1), self.bundle.spec.fold
        for channel, granted in json.loads(_text(row, "consents", "{}")).items():
            fold.set_consent(state, np.array([0]), channel, granted, 0.0)
        for item in json.loads(_text(row, "history", "[]")):
            at = parse_instant(item.get("occurred_at") or item["decided_at"], "history")
            if at <= now:
                self._remember(state, item, at, zone)
        request = Request(row["request_id"], row["customer_id"], json.loads(row["context"]), zone)
        return self._decider.decide([request], state, np.array([now]))[0]

    def _remember(self, state: JourneyState, item: Mapping[str, Any], at: float, zone: str) -> None:
        """Fold an event or a contact of the customer into the state, in place."""
        fold, catalogue, when, only = self.bundle.spec.fold, self.bundle.spec.catalogue, np.array([at]), np.array([0])
        channel, content = item.get("channel"), item.get("content")
        if "kind" not in item:
            action = np.array([catalogue.row(channel, content, item["timing"])])
            send_at = catalogue.send_at_of(action, when, np.array([zone_id(zone)]))
            fold.add_contacts(state, only, action, when, np.where(np.isnan(send_at), when, send_at))
            return
        event = EventColumns(
            row=only,
            kind=np.array([fold.kind_index(item["kind"])]),
            occurred_at=when,
            value=np.array([float(item.get("value") or 0.0)]),
            channel=np.array([-1 if channel is None else catalogue.channel_index(channel)]),
            content=np.array([-1 if content is None else catalogue.content_index(content)]),
        )
        fold.add_events(state, event)


def example(spec: Spec) -> pd.DataFrame:
    """A table with one row that this spec's policies can decide."""
    context: dict[str, Value] = {}
    for feature in spec.context.features:
        number = max(feature.minimum or 0.0, 0.0) if feature.maximum is None else feature.maximum
        first = feature.categories[0] if feature.categories else None
        context[feature.name] = {"category": first, "flag": False, "number": number}[feature.type]
    cells = ("request-1", "customer-1", "2026-03-02T09:30:00+01:00", json.dumps(context))
    return pd.DataFrame([cells], columns=["request_id", "customer_id", "decided_at", "context"])


def _text(row: Mapping[str, Any], column: str, default: str) -> str:
    """A cell; `default` where the column or the cell is missing."""
    value = row.get(column)
    return value if isinstance(value, str) and value else default
