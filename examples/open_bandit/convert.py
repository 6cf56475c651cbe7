"""The Open Bandit sample as six logs: three campaigns, each under a random and a Thompson-sampling policy.

    python -m examples.open_bandit.convert runs/open-bandit

Writes OUT/<campaign>/<policy>/ with decisions, events, nextbest.toml and contents.csv.
"""

import sys
from pathlib import Path

import pandas as pd

from examples.writing import package_folder, write_log

HERE = Path(__file__).parent
CAMPAIGNS = ("all", "men", "women")
POLICIES = ("random", "bts")
POSITIONS = {1: "left", 2: "center", 3: "right"}
USER = [f"user_feature_{i}" for i in range(4)]
ITEM = [f"item_feature_{i}" for i in range(1, 4)]


def convert(out: Path, data: Path | None = None) -> dict[tuple[str, str], Path]:
    """Write the six logs below `out`; (campaign, policy) → folder. `data`: the sample's folder `obd`.

    Raises LogError when the package is not installed.
    """
    if data is None:
        install = "pip install --no-deps obp==0.4.1 (its own requirements are not needed)"
        data = package_folder("obp", install) / "dataset" / "obd"
    tables = {
        (campaign, policy): pd.read_csv(data / policy / campaign / f"{campaign}.csv", index_col=0)
        for campaign in CAMPAIGNS
        for policy in POLICIES
    }
    numbers = {feature: _numbers(pd.concat([t[feature] for t in tables.values()])) for feature in USER}
    folders = {}
    for (campaign, policy), table in tables.items():
        folder = out / campaign / policy
        folder.mkdir(parents=True, exist_ok=True)
        _contents(pd.read_csv(data / policy / campaign / "item_context.csv", index_col=0)).to_csv(
            folder / "contents.csv", index=False
        )
        folders[campaign, policy] = _write(folder, table, numbers)
    return folders


def _write(folder: Path, table: pd.DataFrame, numbers: dict[str, dict[str, str]]) -> Path:
    visitor = pd.Series(range(len(table)), index=table.index).map("v{:05d}".format)
    at = pd.to_datetime(table["timestamp"], utc=True, format="ISO8601")
    decided = pd.DataFrame(
        {
            "decision_id": visitor,
            "customer_id": visitor,
            "decided_at": at,
            "content": "item_" + table["item_id"].astype(str),
            "propensity": table["propensity_score"],
            "position": table["position"].map(POSITIONS),
            **{f"user_{i}": table[feature].map(numbers[feature]) for i, feature in enumerate(USER)},
        }
    )
    clicked = table["click"] == 1
    events = pd.DataFrame(
        {
            "customer_id": visitor[clicked],
            "occurred_at": at[clicked] + pd.Timedelta(seconds=1),  # after it was shown; when exactly is not known
            "kind": "click",
            "decision_id": visitor[clicked],
        }
    )
    return write_log(folder, HERE / "nextbest.toml", decided, events)


def _contents(items: pd.DataFrame) -> pd.DataFrame:
    """The items with their features. Each policy's file hashes the same groups differently, so they are numbered."""
    items = items.sort_values("item_id")
    places = {f"group_{i}": pd.factorize(items[feature])[0] for i, feature in enumerate(ITEM, 1)}
    return pd.DataFrame(
        {
            "id": "item_" + items["item_id"].astype(str).to_numpy(),
            "score": items["item_feature_0"].to_numpy(),
            **{name: [f"g{place}" for place in column] for name, column in places.items()},
        }
    )


def _numbers(hashes: "pd.Series[str]") -> dict[str, str]:
    """Each hash's place when they are ordered by how often they occur."""
    counts = hashes.value_counts()
    ordered = sorted(counts.index, key=lambda value: (-counts[value], value))
    return {value: str(place) for place, value in enumerate(ordered)}


if __name__ == "__main__":
    for folder in convert(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/open-bandit")).values():
        print(folder)
