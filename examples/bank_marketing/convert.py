"""A bank's telephone campaigns as a log: a decision for every call, on which number and which weekday.

python -m examples.bank_marketing.convert bank-full.csv runs/bank-marketing/log
"""

import sys
from pathlib import Path

import pandas as pd

from engine.errors import LogError
from examples.writing import existing, write_log

HERE = Path(__file__).parent
FIRST_YEAR = 2008
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday")
AT_TEN = pd.Timedelta(hours=10)
KEPT = ("age", "job", "marital", "education", "balance", "previous", "poutcome")


def convert(out: Path, data: Path) -> Path:
    """Write decisions, events and the spec into `out`. `data`: bank-full, as Parquet or as CSV (`;` between columns).

    Left out: calls on a number of unknown kind, and those at a weekend. Raises LogError when there is no such file, or
    when its rows are not in order of time.
    """
    existing(data, "see examples/bank_marketing/README.md for where to get it")
    table = pd.read_csv(data, sep=";") if data.suffix == ".csv" else pd.read_parquet(data)
    called = dates(table, data)
    weekday = called.dt.day_of_week
    kept = (table["contact"] != "unknown") & (weekday < len(WEEKDAYS))
    table, called, weekday = table[kept], called[kept], weekday[kept]
    row = pd.Series(table.index.astype(str), index=table.index)
    monday = called - pd.to_timedelta(weekday, unit="D")
    decided = pd.DataFrame(
        {
            "decision_id": "d" + row,
            "customer_id": row,
            "decided_at": monday,
            "channel": table["contact"].astype(str),
            "content": "deposit",
            "timing": weekday.map(WEEKDAYS.__getitem__),
            "campaign_day": (monday - called.iloc[0]).dt.days.clip(lower=0),
            **{name: table[name].astype(str) if table[name].dtype.kind not in "if" else table[name] for name in KEPT},
            "in_default": table["default"] == "yes",
            "housing": table["housing"] == "yes",
            "loan": table["loan"] == "yes",
            "calls_before": table["campaign"] - 1,
            "days_since": table["pdays"].where(table["pdays"] >= 0),
            "duration": table["duration"],  # not in the spec: nobody knows it before the call is over
        }
    )
    won = table["y"] == "yes"
    events = pd.DataFrame(
        {
            "customer_id": row[won],
            "occurred_at": called[won] + AT_TEN + pd.to_timedelta(table["duration"][won], unit="s"),
            "kind": "subscription",
            "decision_id": "d" + row[won],
        }
    )
    return write_log(out, HERE / "nextbest.toml", decided, events)


def dates(table: pd.DataFrame, data: Path) -> "pd.Series[pd.Timestamp]":
    """The day of each call. The rows are in order of time and hold day and month: the year goes up where the month goes
    down. Raises LogError for rows in another order.
    """
    month = table["month"].astype(str).map(MONTHS.index)
    year = FIRST_YEAR + (month.diff() < 0).cumsum()
    found = pd.to_datetime(pd.DataFrame({"year": year, "month": month + 1, "day": table["day"]}), utc=True)
    if (found.diff() < pd.Timedelta(0)).any() or year.max() > FIRST_YEAR + 2:
        raise LogError(f"{data}: found rows that are not in order of time, expected those of May 2008 to November 2010")
    return found


if __name__ == "__main__":
    print(convert(Path(sys.argv[2] if len(sys.argv) > 2 else "runs/bank-marketing/log"), Path(sys.argv[1])))
