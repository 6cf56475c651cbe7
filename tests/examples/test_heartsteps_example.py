from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.spec import Spec
from examples.heartsteps.convert import convert
from tests.examples.example_data import data_folder
from training.journeys import Journeys
from training.logs import read_log
from training.quality import quality


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tmp_path_factory.mktemp("heartsteps"), data_folder("heartsteps_v1"))


@pytest.fixture(scope="module")
def spec(folder: Path) -> Spec:
    return Spec.read(folder / "nextbest.toml")


@pytest.fixture(scope="module")
def journeys(folder: Path, spec: Spec) -> Journeys:
    return Journeys.of(spec, read_log(spec, folder))


def test_steps_by_arm_are_the_published_ones(spec: Spec, journeys: Journeys) -> None:
    available = journeys.context[:, spec.context.index["available"]] == 1
    steps = np.log(journeys.reward + 0.5)
    for action, mean in (("hold", 2.83), ("walk", 3.03), ("stand", 2.84)):
        row = 0 if action == "hold" else spec.catalogue.row("phone", action, "now")
        assert steps[available & (journeys.action == row)].mean() == pytest.approx(mean, abs=0.01)


def test_an_unavailable_slot_leaves_only_hold(spec: Spec, journeys: Journeys) -> None:
    available = journeys.context[:, spec.context.index["available"]] == 1
    assert (~available).sum() == 1479
    assert (journeys.mask[~available].sum(axis=1) == 1).all()
    assert (journeys.action[~available] == 0).all()
    assert (journeys.propensity[~available] == 1).all()
    assert journeys.mask[available].all()
    assert not journeys.forbidden.any()


def test_every_half_hour_of_steps_falls_into_the_window_of_its_decision(journeys: Journeys) -> None:
    assert len(journeys.customer_ids) == 37
    assert len(journeys) == 7538
    assert journeys.counts.max() == 1
    assert len(journeys.events) == 4746


def test_steps_before_are_missing_where_they_were_not_measured(spec: Spec, journeys: Journeys) -> None:
    before = journeys.context[:, spec.context.index["steps_before"]]
    assert np.isnan(before).sum() > 600
    assert (before == 0).any()


def test_the_observed_split_passes(folder: Path, spec: Spec) -> None:
    report = quality(spec, read_log(spec, folder))
    assert report.passed
    assert not [f for f in report.findings if f.check == "propensities"]


def test_an_even_split_does_not_pass(folder: Path, spec: Spec, tmp_path: Path) -> None:
    """The trap: sending had probability .6, its two contents were not split evenly."""
    decided = pd.read_parquet(folder / "decisions.parquet")
    sent = decided["content"].notna()
    decided.loc[sent, "propensity"] = 0.3
    decided.loc[~sent & decided["available"], "propensity"] = 0.4
    decided.to_parquet(tmp_path / "decisions.parquet")
    pd.read_parquet(folder / "events.parquet").to_parquet(tmp_path / "events.parquet")
    report = quality(spec, read_log(spec, tmp_path))
    assert not report.passed
    assert [f.message for f in report.findings if f.check == "propensities" and "phone/walk/now" in f.message]
