import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from engine.spec import Spec
from examples.open_bandit.convert import CAMPAIGNS, POLICIES, convert
from examples.open_bandit.estimate import CHOSEN, Pair, errors, pairs, show
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


def test_the_package_is_not_imported(tmp_path: Path, root: Path) -> None:
    code = "import sys; from pathlib import Path; from examples.open_bandit.convert import convert; "
    code += "convert(Path(sys.argv[1])); print('obp' in sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "False"


def test_thin_overlap_is_reported(folders: dict[tuple[str, str], Path]) -> None:
    folder = folders["women", "bts"]
    spec = Spec.read(folder / "nextbest.toml")
    report = quality(spec, read_log(spec, folder))
    assert [f for f in report.findings if (f.check, f.level) == ("overlap", "warning")]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    return list(pairs(tmp_path_factory.mktemp("open-bandit-pairs")))


def test_the_chosen_estimator_is_near_the_other_logs_truth(judged: list[Pair]) -> None:
    mean = errors(judged)
    assert mean[CHOSEN] <= 0.15
    assert mean["perfect"] == pytest.approx(0.117, abs=0.001)
    assert mean["the log's own"] > 0.2
    for pair in judged:
        chosen = pair.estimate(CHOSEN)
        if chosen.value is not None:
            assert chosen.lower is not None
            assert chosen.upper is not None
            assert chosen.lower <= pair.truth <= chosen.upper


def test_a_log_without_support_is_refused(judged: list[Pair], capsys: pytest.CaptureFixture[str]) -> None:
    refused = [(p.campaign, p.log) for p in judged if p.estimate(CHOSEN).value is None]
    assert refused == [("women", "bts")]
    show(judged, Console(width=160))
    shown = capsys.readouterr().out
    assert "women, bts → random: refused, effective sample size 2.1 customers" in shown
    assert "mean relative error" in shown
