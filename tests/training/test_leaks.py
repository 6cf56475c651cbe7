from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from engine.errors import LogError
from tests.training.small_log import SPEC, random_log, write
from training.journeys import Journeys
from training.leaks import PERIODS, SUSPICIOUS, leaks, tell_tale
from training.logs import quality, read_log, run

BANK = Path(__file__).parents[3] / "shared" / "data" / "bank_marketing" / "bank_additional_full.parquet"


@given(st.integers(0, 2**32 - 1))
def test_noise_tells_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    auc, error = tell_tale(rng.normal(size=2000), rng.random(2000) < 0.3, np.arange(2000))
    assert abs(auc - 0.5) < 5 * error


def test_a_number_that_ranks_outcomes_has_the_area_of_its_ranks() -> None:
    rng = np.random.default_rng(0)
    value = rng.normal(size=20_000)
    happened = rng.random(20_000) < 1 / (1 + np.exp(-2 * value))
    auc, _ = tell_tale(value, happened, np.arange(20_000))
    assert auc == pytest.approx(roc_auc_score(happened, value), abs=0.01)


def test_missing_is_a_level_of_its_own() -> None:
    happened = np.tile([True, False, False, True], 100)
    value = np.where(happened, np.nan, 1.0)
    assert tell_tale(value, happened, np.arange(400))[0] == 1.0


def test_one_class_only_tells_nothing() -> None:
    assert tell_tale(np.arange(10.0), np.zeros(10, bool), np.arange(10)) == (0.5, float("inf"))


@pytest.mark.parametrize("rate", [0.1, 0.05, 0.03, 0.01])
def test_what_was_filled_in_afterwards_is_told_however_rare_it_is(rate: float) -> None:
    """An amount that is 0, and a balance that is 1,000, unless it happened."""
    rng = np.random.default_rng(1)
    happened, customer = rng.random(20_000) < rate, np.repeat(np.arange(4_000), 5)
    amount = np.where(happened, rng.exponential(200, len(happened)), 0.0)
    balance = np.where(happened, rng.exponential(200, len(happened)) - 500, 1_000.0)
    for leak in (amount, balance):
        auc, error = tell_tale(leak, happened, customer)
        assert auc - 2 * error > 0.98
    auc, error = tell_tale(rng.normal(size=len(happened)) + happened, happened, customer)  # honest: 0.76
    assert abs(auc - 0.74) < 0.03 + 2 * error


def test_customers_count_once_for_what_never_changes() -> None:
    """60 customers of 50 decisions each, whose feature and outcome are theirs alone and have nothing in common."""
    customer, beyond = np.repeat(np.arange(60), 50), 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        happened, value = rng.random(60) < 0.4, rng.integers(0, 4, 60).astype(float)
        auc, error = tell_tale(value[customer], happened[customer], customer)
        beyond += abs(auc - 0.5) > 2.5 * error
    assert beyond <= 2


def _with_balance(folder: Path, noise: float) -> Path:
    """A log whose `balance` was written down after the fact: what the window brought, plus noise."""
    frames = random_log(3, customers=80, decisions=1200, events=3000)
    frames["decisions"] = frames["decisions"].drop_duplicates(["customer_id", "decided_at"])
    journeys = Journeys.of(SPEC, read_log(SPEC, write(frames, folder / "before")))
    worth = journeys.counts @ SPEC.reward.each + journeys.values @ SPEC.reward.per_value
    rng = np.random.default_rng(0)
    row = {
        (journeys.customer_ids[c], at): w
        for c, at, w in zip(journeys.customer, journeys.decided_at, worth, strict=True)
    }
    keys = zip(frames["decisions"]["customer_id"], frames["decisions"]["decided_at"], strict=True)
    told = np.array([row.get((name, at.timestamp()), 0.0) for name, at in keys])
    frames["decisions"]["balance"] = np.where(told != 0, 30.0, 0.0) + noise * rng.normal(size=len(told))
    return write(frames, folder / "after")


def test_a_planted_leak_is_refused(tmp_path: Path) -> None:
    folder = _with_balance(tmp_path, noise=0.01)
    spec = tmp_path / "nextbest.toml"
    spec.write_text(SPEC.text)
    log = read_log(SPEC, folder)
    (found,) = [f for f in quality(SPEC, log).findings if f.check == "leak"]
    assert found.level == "error"
    assert "context feature balance alone tells what will follow" in found.message
    with pytest.raises(LogError, match="must be mended before training"):
        run(spec, str(folder))


def test_a_blurred_leak_is_flagged(tmp_path: Path) -> None:
    log = read_log(SPEC, _with_balance(tmp_path, noise=15.0))
    (found,) = [f for f in quality(SPEC, log).findings if f.check == "leak"]
    assert found.level == "warning"


def test_an_honest_log_is_not_suspected(tmp_path: Path) -> None:
    log = read_log(SPEC, write(random_log(3, customers=80, decisions=1200, events=3000), tmp_path))
    assert leaks(SPEC, Journeys.of(SPEC, log)) == []


@pytest.mark.skipif(not BANK.is_file(), reason="the bank marketing data are not beside this clone")
def test_the_length_of_the_call_is_the_one_leak_of_bank_marketing() -> None:
    """Known only after the call (Moro, Cortez & Rita 2014); every other column was there before it."""
    calls = pd.read_parquet(BANK)
    happened, who = calls.pop("y").astype(str).isin(["yes", "1", "True"]).to_numpy(), np.arange(len(calls))
    columns = {name: c if c.dtype.kind in "if" else pd.factorize(c)[0] for name, c in calls.drop(columns="row").items()}
    period = who * PERIODS // len(who)  # rows are in order of time
    told = {name: tell_tale(np.asarray(column, np.float64), happened, who, period) for name, column in columns.items()}
    assert [name for name, (auc, error) in told.items() if auc - 2 * error > SUSPICIOUS] == ["duration"]
    assert max(auc for name, (auc, _) in told.items() if name != "duration") < 0.65


def test_what_only_tells_the_time_is_no_leak() -> None:
    """A rate of interest that falls as sales rise: 0.9 over all years, nothing within one of them."""
    rng = np.random.default_rng(0)
    when, who = np.sort(rng.random(20_000)), np.arange(20_000)
    happened = rng.random(20_000) < 1 / (1 + np.exp(8 - 12 * when))
    assert tell_tale(when, happened, who)[0] > 0.85
    auc, error = tell_tale(when, happened, who, who * PERIODS // len(who))
    assert auc < 0.65
    assert tell_tale(np.where(happened, 1.0, 0.0), happened, who, who * PERIODS // len(who))[0] == 1.0
    assert np.isfinite(error)


def test_a_period_with_one_outcome_only_has_no_say() -> None:
    happened, period = np.array([1, 0, 1, 0, 1, 1, 1, 1], bool), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    value, who = happened * 1.0, np.array([0, 0, 1, 1, 2, 2, 3, 3])
    assert tell_tale(value, happened, who, period)[0] == 1.0
    assert tell_tale(value, happened, who, np.arange(8)) == (0.5, float("inf"))
