from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.errors import LogError
from engine.spec import Spec
from examples.bank_marketing.convert import convert, dates
from tests.examples.example_data import data_folder
from training.journeys import Journeys
from training.logs import read_log
from training.quality import quality

LENGTH_OF_THE_CALL = '\n[context.duration]\ntype = "number"\nevolves = "exogenous"\nminimum = 0\n'


@pytest.fixture(scope="module")
def data() -> Path:
    return data_folder("bank_marketing") / "bank_full.parquet"


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tmp_path_factory.mktemp("bank-marketing"), data)


def test_what_the_readme_says_about_it(data: Path, folder: Path) -> None:
    table = pd.read_parquet(data)
    called = dates(table, data)
    assert called.is_monotonic_increasing
    assert (called.dt.day_of_week >= 5).sum() == 50  # so the years that were worked out are right
    assert (table["contact"] == "unknown").sum() == 13_020
    assert (table["contact"] == "unknown")[called < "2008-07-01"].all()
    decided = pd.read_parquet(folder / "decisions.parquet")
    assert len(decided) == 32_180
    assert (decided["decided_at"].dt.day_of_week == 0).all()
    sold = (table["y"] == "yes").groupby(called.dt.strftime("%Y-%m")).mean()
    assert sold["2008-07"] == pytest.approx(0.06, abs=0.005)
    assert sold["2010-01":].min() == pytest.approx(0.41, abs=0.005)


def test_every_call_is_an_action_and_its_answer_falls_into_its_week(folder: Path) -> None:
    spec = Spec.read(folder / "nextbest.toml")
    log = read_log(spec, folder)
    found = Journeys.of(spec, log)
    assert len(spec.catalogue) == 11
    assert (found.action > 0).all()
    assert found.mask[:, 1:].all()
    assert not found.mask[:, 0].any()
    assert set(np.unique(found.reward)) == {0.0, 1.0}
    sold = pd.read_parquet(folder / "events.parquet")
    assert found.reward.sum() == len(sold) - 20  # in the last week, which is left out
    report = quality(spec, log, found)
    assert report.passed
    assert {f.check for f in report.findings if f.level == "warning"} == {"horizon", "propensities"}


def test_the_length_of_the_call_is_not_declared_and_would_be_caught(folder: Path) -> None:
    spec = Spec.read(folder / "nextbest.toml")
    assert "duration" in pd.read_parquet(folder / "decisions.parquet")
    assert "duration" not in spec.context.index
    leaky = Spec.parse(spec.text + LENGTH_OF_THE_CALL, "leaky")
    found = [f for f in quality(leaky, read_log(leaky, folder)).findings if f.check == "leak"]
    assert ["duration alone tells what will follow" in f.message for f in found] == [True]


def test_rows_in_another_order_are_refused(data: Path, tmp_path: Path) -> None:
    shuffled = tmp_path / "bank.csv"
    pd.read_parquet(data).sample(300, random_state=0).to_csv(shuffled, sep=";", index=False)
    with pytest.raises(LogError, match=r"bank\.csv: found rows that are not in order of time, expected those of May"):
        convert(tmp_path / "log", shuffled)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"nowhere\.csv: found no such file; see examples/bank_marketing/README.md"):
        convert(tmp_path, Path("nowhere.csv"))
