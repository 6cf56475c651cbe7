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
AREAS = {"Urban": "urban", "Surburban": "suburban", "Rural": "rural"}


def convert(out: Path, data: Path) -> Path:
    """Write decisions, events and the spec into `out`. `data`: the file, as Parquet or CSV. Raises LogError."""
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
    return write_log(out, HERE / "nextbest.toml", decided, pd.concat(events))


if __name__ == "__main__":
    print(convert(Path(sys.argv[2] if len(sys.argv) > 2 else "runs/hillstrom/log"), Path(sys.argv[1])))
