"""Judge and evaluate on a small simulated log whose logging policy is known, and on a log of single decisions."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from engine.errors import TrainingError
from engine.policy import Policy
from engine.records import Bools, Floats32
from engine.spec import Spec
from envs.simulate import by_policy, simulate, value, write_log
from envs.worlds import World, world
from tests.training.small_log import SPEC, START, write
from training import evaluate as verb
from training import export, summary
from training.candidates import CLONE
from training.evaluation import Report, Terms
from training.journeys import Journeys
from training.judge import MODELS, ONE_STEP, Judge
from training.logs import read_log
from training.network import Shape, TwoTower
from training.oracle import LogOracle, WorldOracle, world_of

PLACE: World = world("retail")


class Uniform:
    """Any eligible action, each as likely."""

    version = "uniform"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        return np.asarray(mask / mask.sum(axis=1, keepdims=True), np.float32)


class Mixed:
    """Mostly the shop's own policy, a little uniform: importance weights can follow it."""

    version = "mixed"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        own = PLACE.logging_policy().probabilities(observation, mask)
        return (0.95 * own + 0.05 * Uniform().probabilities(observation, mask)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated log of 150 customers and a week."""
    replay = PLACE.replay(150, 7, seed=11)
    policy = PLACE.logging_policy()
    log = simulate(PLACE, replay, by_policy(policy, 150, 11), PLACE.spec, 11)
    place = tmp_path_factory.mktemp("simulated") / "log"
    write_log(place, PLACE.spec, log, policy.version, {"world": PLACE.name, "days": 7})
    return place


@pytest.fixture(scope="module")
def journeys(folder: Path) -> Journeys:
    return Journeys.of(PLACE.spec, read_log(PLACE.spec, str(folder)))


def test_the_logging_policy_gains_nothing_and_has_full_support(journeys: Journeys) -> None:
    judge = Judge(PLACE.spec, journeys, None)
    judged = judge.judge(PLACE.logging_policy())
    assert judged.support.ess.min() == pytest.approx(150, rel=1e-3)
    assert judged.support.objection() == ""
    by_method = {gain.method: gain for gain in judged.gains}
    assert by_method["PDIS"].value == pytest.approx(0.0, abs=1e-3)
    assert judged.gain.lower is not None
    assert judged.gain.upper is not None
    assert judged.gain.lower <= 0.0 <= judged.gain.upper
    assert judge.logged().value == pytest.approx(float(journeys.returns().mean()))


def test_models_never_claim_an_interval(journeys: Journeys) -> None:
    judged = Judge(PLACE.spec, journeys, None).judge(Mixed())
    for estimate in (*judged.values, *judged.gains):
        assert estimate.value is not None
        assert (estimate.lower is None) == (estimate.method in MODELS)


def test_a_policy_that_nobody_matches_is_refused(journeys: Journeys) -> None:
    judged = Judge(PLACE.spec, journeys, None).judge(Uniform())
    assert judged.support.decisions < 7
    assert judged.bound is None
    for estimate in judged.values:
        assert estimate.supported == (estimate.method in MODELS) or "actions" in estimate.note
        assert estimate.supported or (estimate.value, estimate.lower, estimate.upper) == (None, None, None)
    assert judged.harms["contacts"].rate is None


def test_missing_propensities_are_estimated_and_flagged(journeys: Journeys) -> None:
    bare = replace(journeys, propensity=np.full(len(journeys), np.nan))
    with pytest.raises(TrainingError, match="100% of the decisions have no propensity"):
        Judge(PLACE.spec, bare, None)
    judge = Judge(PLACE.spec, bare, PLACE.logging_policy())
    known = Judge(PLACE.spec, journeys, None).judge(Mixed())
    found = judge.judge(Mixed())
    assert judge.estimated
    assert "estimated propensities" in found.value.note
    assert found.value.value == pytest.approx(known.value.value, rel=1e-3)


def test_contacts_have_the_limit_that_was_asked_for(journeys: Journeys) -> None:
    """An evaluation that an earlier version kept says nothing of it: it was twice the log's."""
    setting = verb.Setting(PLACE.spec, journeys, False)
    usual, more = (
        verb.evaluate({"mixed": Mixed()}, replace(setting, terms=terms)) for terms in (Terms(), Terms(contacts=3.5))
    )
    assert [found.evaluations[0].harms["contacts"].allowed for found in (usual, more)] == [2.0, 3.5]
    assert Report.from_json(more.to_json()) == more
    earlier = re.sub(r',\s*"allowed": [0-9.]+', "", usual.to_json())
    assert "allowed" not in earlier
    assert Report.from_json(earlier) == usual


@pytest.mark.parametrize("contacts", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_on_contacts_is_a_number(contacts: float) -> None:
    with pytest.raises(TrainingError, match=f"contacts: found {contacts}, expected a number above 0"):
        Terms(contacts=contacts)


def test_too_few_customers_judge_nobody(journeys: Journeys) -> None:
    with pytest.raises(TrainingError, match="found 5 customers to judge by"):
        Judge(PLACE.spec, journeys.take(np.arange(5)), None)


def test_evaluate_shows_the_truth_beside_the_estimate(journeys: Journeys) -> None:
    oracle = WorldOracle(PLACE, 7, customers=60)
    policies: dict[str, Policy] = {CLONE: PLACE.logging_policy(), "mixed": Mixed(), "uniform": Uniform()}
    found = verb.evaluate(policies, verb.Setting(PLACE.spec, journeys, False, oracle=oracle, model=None))
    assert [e.candidate for e in found.evaluations] == list(policies)
    own = found.evaluations[0].truth
    assert own is not None
    assert (own.gain, own.gain_error) == (0.0, 0.0)
    assert own.value_error > 0.0
    assert Report.from_json(found.to_json()) == found
    console = Console(width=160, record=True, quiet=False, file=None, force_terminal=False)
    with console.capture() as shown:
        summary.show(found, console)
    assert "no support" in shown.get()
    assert re.search(r"true +true", shown.get())  # the heads of "true value" and "true gain", in two lines
    assert "| marginal DR |" in summary.page(found)
    numbers = summary.metrics(found.evaluations[2])
    assert "value" not in numbers
    assert set(numbers) <= set(summary.EXPLAINED)


def test_only_a_simulated_log_with_its_own_spec_has_an_oracle(folder: Path, tmp_path: Path) -> None:
    assert world_of(str(folder), PLACE.spec) is not None
    assert world_of(str(folder), SPEC) is None
    assert world_of(str(tmp_path), PLACE.spec) is None


def single_decisions(folder: Path, seed: int, send: float, new: float = 0.5) -> Path:
    """400 customers with one decision each: mail tips with chance `send`, else hold; tips bring orders, from new
    customers with the chance `new`.
    """
    rng = np.random.default_rng(seed)
    sent, luck = rng.random(400) < send, rng.random(400)
    online, loyalty = rng.random(400) < 0.5, rng.choice(["new", "loyal"], 400)
    names = [f"k{i}" for i in range(400)]
    ordered = luck < np.where(sent, np.where(loyalty == "new", new, 0.5), 0.3)
    decided = pd.DataFrame(
        {
            "decision_id": [f"d{i}" for i in range(400)],
            "customer_id": names,
            "decided_at": START + pd.Timedelta(hours=9),
            "channel": ["email" if s else None for s in sent],
            "content": ["tips" if s else None for s in sent],
            "timing": ["now" if s else None for s in sent],
            "propensity": np.where(sent, send, 1 - send),
            "online": online,
            "loyalty": loyalty,
        }
    )
    happened = pd.DataFrame(
        {
            "customer_id": np.array(names)[ordered],
            "occurred_at": START + pd.Timedelta(hours=20),
            "kind": "order",
            "value": 10.0,
        }
    )
    return write({"decisions": decided, "events": happened}, folder)


class Sends:
    """Mails tips with a fixed chance."""

    version = "sends"

    def __init__(self, spec: Spec, chance: float) -> None:
        self._row, self._chance = spec.catalogue.row("email", "tips", "now"), chance

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        found = np.zeros(mask.shape, np.float32)
        found[:, self._row], found[:, 0] = self._chance, 1 - self._chance
        return found


def test_single_decisions_use_one_step_estimators(tmp_path: Path) -> None:
    journeys = Journeys.of(SPEC, read_log(SPEC, str(single_decisions(tmp_path, 1, 0.4))))
    judged = Judge(SPEC, journeys, None).judge(Sends(SPEC, 0.8))
    assert tuple(v.method for v in judged.values) == ONE_STEP
    truth = 3.0 * (0.8 * 0.5 + 0.2 * 0.3) - 0.8 * 0.01
    for estimate in judged.values[:-1]:
        assert estimate.lower is not None
        assert estimate.upper is not None
        assert estimate.lower <= truth <= estimate.upper
    assert judged.tail.value == pytest.approx(-0.01)  # the worst tenth got mail and did not order
    w = np.where(journeys.action != 0, 0.8 / 0.4, 0.2 / 0.6)
    snips = next(v for v in judged.values if v.method == "SNIPS")
    assert snips.value == pytest.approx(float((w * journeys.reward).sum() / w.sum()))


def test_who_is_harmed_is_named(tmp_path: Path) -> None:
    """Tips keep new customers from ordering: that loyal ones like them does not make up for it."""
    journeys = Journeys.of(SPEC, read_log(SPEC, str(single_decisions(tmp_path, 1, 0.4, new=0.02))))
    found = verb.evaluate({"sends": Sends(SPEC, 0.8)}, verb.Setting(SPEC, journeys, False)).evaluations[0]
    assert {s.name for s in found.segments if s.harmed} == {"loyalty new"}
    assert {"loyalty loyal", "online no", "online yes"} <= {s.name for s in found.segments}
    sizes = {s.name: s.customers for s in found.segments}
    assert sizes["loyalty new"] + sizes["loyalty loyal"] == 400
    page = summary.page(Report("EUR", 400, 400, found.gain, (found,), estimated=False))
    assert "| loyalty new |" in page
    assert "| mean of the worst 10% of journeys |" in page
    assert "**harmed**" in page


def test_an_oracle_from_a_log_speaks_of_its_own_policy_only(tmp_path: Path) -> None:
    journeys = Journeys.of(SPEC, read_log(SPEC, str(single_decisions(tmp_path, 2, 0.8))))
    oracle = LogOracle(journeys, "one")
    truth = oracle.truth("one", Sends(SPEC, 0.8))
    assert truth is not None
    assert truth.value == pytest.approx(float(journeys.returns().mean()))
    assert oracle.truth("two", Sends(SPEC, 0.8)) is None


def test_bundles_on_another_log_through_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = TwoTower(Shape(SPEC.encoder.size, SPEC.attributes.size, embedding=4, hidden=8), epsilon=0.3)
    export.export_bundle(network, SPEC, {"name": "mine"}, tmp_path / "bundle")
    log, truth = single_decisions(tmp_path / "log", 3, 0.4), single_decisions(tmp_path / "truth", 4, 0.8)
    found = verb.run(candidates=[tmp_path / "bundle"], logs=(str(log), str(truth)))
    assert found.evaluations[0].truth is not None
    assert "mine" in capsys.readouterr().out
    with pytest.raises(TrainingError, match="expected the log to evaluate them on"):
        verb.run(candidates=[tmp_path / "bundle"])


def test_a_later_look_asks_for_more(journeys: Journeys, capsys: pytest.CaptureFixture[str]) -> None:
    """The estimate stays, its lower bound is at the look's share of the error, and the reader is told."""
    setting = verb.Setting(PLACE.spec, journeys, True)
    first, third = (verb.evaluate({"mixed": Mixed()}, replace(setting, terms=Terms(look))) for look in (None, 3))
    assert first.evaluations[0].gain == third.evaluations[0].gain
    assert first.evaluations[0].bound is not None
    assert third.evaluations[0].bound is not None
    assert third.evaluations[0].bound < first.evaluations[0].bound
    assert third.error == pytest.approx(0.05 / 12)
    summary.show(third, Console(width=200))
    assert "Look 3 has 0.0042 of the error of 0.05 that all looks share." in capsys.readouterr().out


def test_who_looked_before_without_counting_is_told(journeys: Journeys, capsys: pytest.CaptureFixture[str]) -> None:
    found = verb.evaluate({"mixed": Mixed()}, verb.Setting(PLACE.spec, journeys, True, earlier=2))
    summary.show(found, Console(width=400))
    told = capsys.readouterr().out
    assert "were evaluated before (2)" in told
    assert "`nextbest evaluate --look 1`" in told


def test_the_report_is_plain_json(journeys: Journeys) -> None:
    found = verb.evaluate({"uniform": Uniform()}, verb.Setting(PLACE.spec, journeys, True))

    def no_constant(name: str) -> float:
        raise AssertionError(name)

    json.loads(found.to_json(), parse_constant=no_constant)


class Moved:
    """Three decisions in ten as `confounded` treats its best customers: with a voucher, which harms."""

    version = "moved"

    def __init__(self, place: World) -> None:
        self._own, self._voucher = place.logging_policy(), place.spec.catalogue.row("email", "voucher", "now")

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        chances = 0.7 * self._own.probabilities(observation, mask)
        chances[:, self._voucher] += np.float32(0.3)
        return chances


def test_a_log_that_targets_likely_buyers_does_not_flatter_what_it_gave_them(tmp_path: Path) -> None:
    """Ten small logs: nearly all have an interval that holds the truth, a loss; at most one of them is above zero."""
    place = world("confounded")
    policy = Moved(place)
    gain = value(place, policy, 20_000, 28, 5) - value(place, place.logging_policy(), 20_000, 28, 5)
    truth = float(gain.mean())
    assert truth < -3 * gain.std() / np.sqrt(len(gain))
    hits, flattered = 0, 0
    for seed in range(10):
        replay = place.replay(400, 28, seed)
        log = simulate(place, replay, by_policy(place.logging_policy(), 400, seed), place.spec, seed)
        write_log(tmp_path / str(seed), place.spec, log, "log", {"world": place.name})
        found = Judge(place.spec, Journeys.of(place.spec, read_log(place.spec, tmp_path / str(seed))), None)
        judged = found.judge(policy).gain
        if judged.lower is None or judged.upper is None:
            continue  # refused: so few customers order that one or two of them may decide
        flattered += judged.lower > 0.0
        hits += judged.lower <= truth <= judged.upper
    assert hits >= 7
    assert flattered <= 1
