"""Paired differences: what both policies share cancels, and who chooses has to beat who treats all alike."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from engine.policy import Policy
from engine.records import Bools, Floats32
from engine.spec import Spec
from tests.training.small_log import SPEC
from tests.training.test_evaluate import Sends, single_decisions
from training import network as networks
from training import summary
from training.alike import Always
from training.candidates import CLONE, CONSTANT, NEVER
from training.differences import NO_GAIN, Difference, Side, beats, closest, difference, weakest
from training.evaluate import Setting, evaluate
from training.evaluation import CHAMPION, Report
from training.export import export_bundle
from training.gate import choose
from training.intervals import Estimate, Ratios, mean_of
from training.journeys import Journeys
from training.logs import read_log


def side(totals: Ratios) -> Side:
    return Side(Estimate(totals.value(), None, None, 100.0, "SNDR"), totals)


def named(other: str, bound: float) -> Difference:
    return Difference(other, Estimate(bound + 1, bound, bound + 2, 100.0, "SNDR"), bound)


def test_what_both_share_cancels() -> None:
    rng = np.random.default_rng(0)
    shared, extra = rng.normal(0, 10, 400), rng.normal(0.5, 1, 400)
    found = difference(side(mean_of(shared + extra)), side(mean_of(shared)), "other", error=0.025)
    assert found.gain.value == pytest.approx(extra.mean())
    assert found.gain.lower == pytest.approx(extra.mean() - 1.96 * extra.std() / 20, abs=0.02)
    assert found.bound == found.gain.lower  # half the error of a 95 % interval
    assert found.bound > 0
    assert difference(side(mean_of(shared + extra)), side(mean_of(shared)), "other", error=0.001).bound < found.bound


def test_who_does_the_same_earns_nothing_more() -> None:
    totals = np.random.default_rng(1).normal(5, 2, 300)
    found = difference(side(mean_of(totals)), side(mean_of(totals * (1 + 1e-15))), "other", error=0.025)
    assert (found.gain.value, found.gain.lower, found.gain.upper, found.bound) == (0.0, 0.0, 0.0, 0.0)


def test_other_customers_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="the same customers: 3 and 4"):
        difference(side(mean_of(np.ones(3))), side(mean_of(np.ones(4))), "other", 0.025)


def test_the_best_of_the_others_is_asked_and_all_have_to_be_beaten() -> None:
    found = named("hold", 3.0), named("mail", 0.1)
    assert closest(found) == found[1]
    assert closest(()) is None
    assert beats(found)
    assert not beats((*found, named("push", -5.0)))
    assert not beats(())


def test_what_is_told_is_what_decides() -> None:
    """Nearest is who is worth most; a worse one that the log hardly supports may be what nothing is shown over."""
    noisy = Difference("mail", Estimate(12.0, None, None, 40.0, "marginal DR"), -2.4)
    sharp = Difference("hold", Estimate(9.0, None, None, 900.0, "marginal DR"), 1.8)
    assert closest((noisy, sharp)) == sharp
    assert weakest((noisy, sharp)) == noisy
    assert weakest(()) is None


def test_always_the_same_where_it_may_be() -> None:
    mask = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 1, 1]], bool)
    unseen = np.zeros((4, 0), np.float32)
    found = Always(1).probabilities(unseen, mask)
    np.testing.assert_array_equal(found, [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(Always(0).probabilities(unseen, mask)[3], [0, 0.5, 0.5])


class Suits:
    """Mails tips to loyal customers only."""

    version = "suits"

    def __init__(self, spec: Spec) -> None:
        self._row = spec.catalogue.row("email", "tips", "now")
        self._column = spec.encoder.names.index("context:loyalty=loyal")

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        found = np.zeros(mask.shape, np.float32)
        loyal = observation[:, self._column] == 1
        found[loyal, self._row], found[~loyal, 0] = 1.0, 1.0
        return found


@pytest.mark.parametrize(("new", "personal"), [(0.02, True), (0.5, False)])
def test_choosing_is_promoted_only_where_it_earns_more(
    new: float, personal: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Tips drive new customers away (0.02 order, of 0.3 without) or please all alike (0.5)."""
    folder = single_decisions(tmp_path_factory.mktemp("log"), 2, 0.5, new=new)
    journeys = Journeys.of(SPEC, read_log(SPEC, str(folder)))
    policies: dict[str, Policy] = {
        CLONE: Sends(SPEC, 0.5),
        "ppo": Suits(SPEC),
        CONSTANT: Sends(SPEC, 1.0),
        NEVER: Sends(SPEC, 0.0),
    }
    found = evaluate(policies, Setting(SPEC, journeys, True))
    by_name = {e.candidate: e for e in found.evaluations}
    assert set(found.alike) == {d.other for d in by_name["ppo"].over} == {"email/tips/now", "hold"}
    for name, same in ((CONSTANT, "email/tips/now"), (NEVER, "hold")):
        assert by_name[name].gain.value == pytest.approx(found.alike[same].value)
    assert ("email/tips/now" in found.excused) == personal  # to new customers
    assert Report.from_json(found.to_json()) == found
    ((shown, told),) = summary.personalised(found)
    assert shown.candidate == "ppo"
    assert (told.bound > 0) == personal
    console = Console(width=80)
    with console.capture() as printed:
        summary.show(found, console)
    assert (NO_GAIN in printed.get()) != personal
    assert "- email/tips/now for everybody gains" in summary.page(found)
    choice = choose(found, certified=True)
    assert choice.champion == ("ppo" if personal else CONSTANT)
    assert (NO_GAIN in choice.why) != personal


def test_the_champion_is_judged_by_the_same_customers(tmp_path: Path) -> None:
    journeys = Journeys.of(SPEC, read_log(SPEC, str(single_decisions(tmp_path / "log", 2, 0.5))))
    row = SPEC.catalogue.row("email", "tips", "now")
    network = networks.constant(row, SPEC.attributes.encode(SPEC.catalogue), SPEC.encoder.size)
    bundle = export_bundle(network, SPEC, {"name": "ppo"}, tmp_path / "old")
    policies: dict[str, Policy] = {CLONE: Sends(SPEC, 0.5), "same": Sends(SPEC, 0.5), CONSTANT: Sends(SPEC, 1.0)}
    found = evaluate(policies, Setting(SPEC, journeys, True, champion=("shop/1", bundle)))
    assert found.champion is not None
    assert (found.champion.model, found.champion.policy) == ("shop/1", bundle.version)
    assert all(e.over[-1].other == CHAMPION for e in found.evaluations)
    assert [len(e.over) - 1 for e in found.evaluations] == [len(e.over_alike) for e in found.evaluations]
    assert found.evaluations[-1].over[-1].gain.value == pytest.approx(0.0, abs=1e-3)  # both send tips to everybody
    assert Report.from_json(found.to_json()) == found
    assert "The champion, shop/1," in summary.page(found)
    other = Spec.parse(SPEC.text.replace("[journey]", "[journey]\nmoments = ['daily']"), "other")
    told = evaluate(policies, Setting(other, journeys, True, champion=("shop/1", bundle))).champion
    assert told is not None
    assert told.gain.note == "it was made with another spec"
