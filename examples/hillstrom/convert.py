"""Hillstrom's e-mail test as a log: 64,000 customers, one decision each.

python -m examples.hillstrom.convert hillstrom.parquet runs/hillstrom/log
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from examples.writing import existing, write_log

HERE = Path(__file__).parent
SENT_AT = pd.Timestamp("2008-03-01T12:00:00Z")
"""The day is not known; any will do, as everybody was decided upon once."""

CONTENTS = {"Mens E-Mail": "mens", "Womens E-Mail": "womens", "No E-Mail": None}
VISITS = """[reward]
currency = "visits"

[reward.events.visit]
each = 1.0
"""
COST = 0.1
"""USD for each e-mail, our assumption: the data say nothing about it."""

AREAS = {"Urban": "urban", "Surburban": "suburban", "Rural": "rural"}


def convert(out: Path, data: Path) -> Path:
    """Write decisions, events and the spec into `out`, and beside it visits.toml and net_spend.toml, which pay for
    other outcomes of the same log. `data`: the file, as Parquet or CSV. Raises LogError.
    """
    existing(data, "see examples/hillstrom/README.md for where to get it")
    table = pd.read_csv(data) if data.suffix == ".csv" else pd.read_parquet(data)
    customer = pd.Series(table.index.astype(str))
    content = table["segment"].map(CONTENTS)
    decided = pd.DataFrame(
        {
            "decision_id": "d" + customer,
            "customer_id": customer,
            "decided_at": SENT_AT,
            "content": content,
            "propensity": 1 / 3,
            "recency": table["recency"],
            "history": table["history"],
            "mens": table["mens"] == 1,
            "womens": table["womens"] == 1,
            "newbie": table["newbie"] == 1,
            "area": table["zip_code"].map(AREAS),
            "bought_by": table["channel"].str.lower(),
        }
    )
    kinds = {"visit": table["visit"] == 1, "order": table["spend"] > 0}
    events = [
        pd.DataFrame(
            {
                "customer_id": customer[happened],
                "occurred_at": SENT_AT + pd.Timedelta(days=7),  # within two weeks; when is not known
                "kind": kind,
                "value": table["spend"][happened].to_numpy() if kind == "order" else np.nan,
                "decision_id": "d" + customer[happened],
            }
        )
        for kind, happened in kinds.items()
    ]
    write_log(out, HERE / "nextbest.toml", decided, pd.concat(events))
    for name, text in specs().items():
        (out / f"{name}.toml").write_text(text, "utf-8")
    return out


def specs() -> dict[str, str]:
    """The spec with other rewards: a visit each, and the spend less COST for each e-mail."""
    text = (HERE / "nextbest.toml").read_text("utf-8")
    known = text.partition("[reward]")[0]
    paid = {
        "visits": known + VISITS,
        "net_spend": text.replace("[channels.email]", f"[channels.email]\ncost = {COST}"),
    }
    return {name: spec.replace('name = "hillstrom"', f'name = "hillstrom_{name}"') for name, spec in paid.items()}


if __name__ == "__main__":
    print(convert(Path(sys.argv[2] if len(sys.argv) > 2 else "runs/hillstrom/log"), Path(sys.argv[1])))
