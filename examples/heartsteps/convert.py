"""HeartSteps V1 as a log: 37 people, five decisions a day for six weeks.

python -m examples.heartsteps.convert FOLDER runs/heartsteps/log
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from examples.writing import existing, write_log

HERE = Path(__file__).parent
CONTENTS = {"active": "walk", "sedentary": "stand", "none": None}
PROPENSITIES = {"walk": 0.332, "stand": 0.261, "hold": 0.407}
"""Shares of the available decisions: by design 0.6 for sending; how the two kinds were mixed only the shares tell."""

HALF_AN_HOUR = pd.Timedelta(minutes=30)


def convert(out: Path, data: Path) -> Path:
    """Write decisions, events and the spec into `out`. `data`: the folder with suggestions.parquet and
    suggestions_arms_24h.parquet. Raises LogError.
    """
    where = "see examples/heartsteps/README.md for where to get it"
    table = pd.read_parquet(existing(data / "suggestions.parquet", where))
    measured = pd.read_parquet(existing(data / "suggestions_arms_24h.parquet", where))
    table = table[table["arm"] != "sent_unknown"]  # two contacts of which it is not known what they said
    before = measured.rename(columns={"user.index": "user", "jbsteps30pre": "steps_before"})
    table = table.merge(
        before[["user", "decision.index.nogap", "steps_before"]], on=["user", "decision.index.nogap"], how="left"
    )
    decided_at = table["sugg.decision.utime"].fillna(table["sugg.select.utime"]).dt.tz_localize("UTC")
    decision_id = table["user"].astype(str) + "/" + table["decision.index.nogap"].astype(str)
    content = table["arm"].map(CONTENTS)
    chosen = content.fillna("hold").map(PROPENSITIES)
    decided = pd.DataFrame(
        {
            "decision_id": decision_id,
            "customer_id": table["user"].astype(str),
            "decided_at": decided_at,
            "content": content,
            "propensity": np.where(table["avail"], chosen, 1.0),
            "available": table["avail"],
            "slot": table["sugg.select.slot"].astype(str),
            "place": table["location"],
            "steps_before": table["steps_before"],
            "day": table["study.day.nogap"],
        }
    )
    walked = (table["jbsteps30"] > 0).to_numpy()
    events = pd.DataFrame(
        {
            "customer_id": decided["customer_id"],
            "occurred_at": decided_at + HALF_AN_HOUR,  # the half hour is over: nobody knows its steps earlier
            "kind": "walk",
            "value": table["jbsteps30"],
            "decision_id": decision_id,
        }
    )[walked]
    return write_log(out, HERE / "nextbest.toml", decided, events)


if __name__ == "__main__":
    print(convert(Path(sys.argv[2] if len(sys.argv) > 2 else "runs/heartsteps/log"), Path(sys.argv[1])))
