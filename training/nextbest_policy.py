"""How MLflow loads a registered policy: `mlflow.pyfunc.load_model("models:/<name>@champion").predict(frame)`.

This file and the engine's source travel inside the registered model, so it loads wherever numpy, pydantic, pandas and
onnxruntime are, without NextBest installed. It decides as the service does (same guardrails, encoder, ONNX graphs
and draw) for customers whose history comes along in the table.

Input: a pandas DataFrame, one row a decision.
    request_id   text: makes the draw repeatable; the same id, policy and customer give the same action
    customer_id  text
    decided_at   text: an ISO-8601 instant with a zone, 2026-03-01T09:30:00+01:00
    time_zone    text, optional: the customer's IANA zone; UTC without it
    history      text, optional: a JSON list of the customer's events, each an object with kind and occurred_at (ISO-8601)
                 and, where they apply, value, channel, content; contacts are {"contact": [channel, content, timing], "decided_at": ...}
    context      text: a JSON object with the features that the spec declares
Output: a DataFrame in the same order: channel, content, timing (all None = hold), propensity (the exact chance with which
the action was drawn), send_at (ISO-8601 UTC, None for hold), eligible (how many actions the guardrails left).
"""
