from pathlib import Path

import numpy as np
import pytest

from engine.errors import LogError
from engine.spec import Spec
from examples.hillstrom.convert import COST, convert
from tests.examples.example_data import data_folder
from training.journeys import Journeys
from training.logs import read_log
from training.quality import quality


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tmp_path_factory.mktemp("hillstrom"), data_folder("hillstrom") / "hillstrom.parquet")


def test_spend_and_visits_by_arm_are_the_published_ones(folder: Path) -> None:
    spec = Spec.read(folder / "nextbest.toml")
    found = Journeys.of(spec, read_log(spec, folder))
    assert len(found) == len(found.customer_ids) == 64_000
    for content, visits, spend in (("mens", 0.183, 1.42), ("womens", 0.151, 1.08), (None, 0.106, 0.65)):
        arm = found.action == (0 if content is None else spec.catalogue.row("email", content, "now"))
        assert found.counts[arm, spec.fold.kind_index("visit")].mean() == pytest.approx(visits, abs=5e-4)
        assert found.reward[arm].mean() == pytest.approx(spend, abs=5e-3)
    assert found.reward.sum() == pytest.approx(67_258.13)


def test_the_log_passes_and_overlaps_completely(folder: Path) -> None:
    spec = Spec.read(folder / "nextbest.toml")
    report = quality(spec, read_log(spec, folder))
    assert report.passed
    assert {f.level for f in report.findings} == {"info"}
    assert report.numbers["effective sample size, uniform"] == pytest.approx(64_000)


def test_the_contexts_are_whole(folder: Path) -> None:
    spec = Spec.read(folder / "nextbest.toml")
    found = Journeys.of(spec, read_log(spec, folder))
    assert np.isfinite(found.context).all()
    assert (found.context[:, [spec.context.index["area"], spec.context.index["bought_by"]]] >= 0).all()


def test_one_log_is_paid_in_three_ways(folder: Path) -> None:
    log = read_log(Spec.read(folder / "nextbest.toml"), folder)
    spend, visits, net = (Spec.read(folder / f"{name}.toml") for name in ("nextbest", "visits", "net_spend"))
    assert (spend.name, visits.name, net.name) == ("hillstrom", "hillstrom_visits", "hillstrom_net_spend")
    assert Journeys.of(visits, log).reward.sum() == 9_394
    found = Journeys.of(net, log)
    cost = COST * (found.action > 0)
    np.testing.assert_allclose(found.reward, Journeys.of(spend, log).reward - cost, atol=1e-5)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"nowhere\.csv: found no such file; see examples/hillstrom/README.md"):
        convert(tmp_path, Path("nowhere.csv"))
