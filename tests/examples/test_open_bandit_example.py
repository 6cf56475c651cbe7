import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from engine.spec import Spec
from examples.open_bandit.convert import CAMPAIGNS, POLICIES, convert
from training.journeys import Journeys
from training.logs import read_log
from training.quality import quality

pytestmark = pytest.mark.skipif(
    find_spec("obp") is None, reason="the Open Bandit sample is not installed (pip install --no-deps obp==0.4.1)"
)
CLICKS = {
    ("all", "random"): 38,
    ("all", "bts"): 42,
    ("men", "random"): 46,
    ("men", "bts"): 69,
    ("women", "random"): 46,
    ("women", "bts"): 46,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    return convert(tmp_path_factory.mktemp("open-bandit"))


@pytest.mark.parametrize("campaign", CAMPAIGNS)
@pytest.mark.parametrize("policy", POLICIES)
def test_six_logs_of_10_000_visitors(
    campaign: str, policy: str, folders: dict[tuple[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folders[campaign, policy]
    spec = Spec.read(folder / "nextbest.toml")
    log = read_log(spec, folder)
    found = Journeys.of(spec, log)
    items = {"all": 80, "men": 34, "women": 46}[campaign]
    assert len(spec.catalogue) == 1 + items
    assert len(found.customer_ids) == len(found) == 10_000
    assert not found.mask[:, 0].any()
    assert found.mask[:, 1:].all()
    assert found.reward.sum() == CLICKS[campaign, policy]
    assert (found.context >= 0).all()
    if policy == "random":
        np.testing.assert_allclose(found.propensity, 1 / items, rtol=1e-4)
    assert quality(spec, log, found).passed


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_both_policies_of_a_campaign_speak_of_the_same_items(
    campaign: str, folders: dict[tuple[str, str], Path]
) -> None:
    one, other = (Spec.read(folders[campaign, policy] / "nextbest.toml") for policy in POLICIES)
    assert one.digest == other.digest
    np.testing.assert_array_equal(one.attributes.encode(one.catalogue), other.attributes.encode(other.catalogue))


def test_the_package_is_not_imported(folders: dict[tuple[str, str], Path]) -> None:
    assert "obp" not in sys.modules


def test_thin_overlap_is_reported(folders: dict[tuple[str, str], Path]) -> None:
    folder = folders["women", "bts"]
    spec = Spec.read(folder / "nextbest.toml")
    report = quality(spec, read_log(spec, folder))
    assert [f for f in report.findings if (f.check, f.level) == ("overlap", "warning")]
