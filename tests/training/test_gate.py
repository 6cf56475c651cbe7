"""The gate on evaluations made by hand, and `promote` on a real MLflow store."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bundle import Bundle
from engine.errors import TrainingError
from tests.training.small_log import SPEC
from training import export, gate, verdicts
from training.candidates import CLONE
from training.differences import Difference
from training.evaluation import ERROR, EVALUATION, Evaluation, Reigning, Report, Truth, error_of
from training.harms import Harm
from training.intervals import Estimate, refused
from training.network import Shape, TwoTower
from training.segments import Segment
from training.tracking import BUNDLE, Tracking


def estimate(value: float, reach: float = 1.0, method: str = "marginal DR") -> Estimate:
    return Estimate(value, value - reach, value + reach, 200.0, method)


def evaluation(
    name: str, bound: float | None, harms: Mapping[str, Harm] | None = None, version: str = "v"
) -> Evaluation:
    """A candidate whose gain has this lower bound; None = without support."""
    gain = refused("marginal DR", 3.0, "effective sample size 3.0") if bound is None else estimate(bound + 1.0)
    value = refused("marginal DR", 3.0, "effective sample size 3.0") if bound is None else estimate(bound + 11.0)
    support = {"unsupported": 0.0, "ess": 50.0, "decisions": 4.0, "largest": 3.0, "mean": 1.0}
    return Evaluation(name, version, support, (value,), (gain,), bound, harms or {}, 0.7)


def report(*evaluations: Evaluation) -> Report:
    return Report("EUR", 100, 2_000, estimate(10.0), evaluations, estimated=False)


def harm(logged: float, excess: float, reach: float) -> Harm:
    return Harm(logged, estimate(excess, reach))


def test_the_highest_lower_bound_wins() -> None:
    found = gate.choose(report(evaluation(CLONE, -0.1), evaluation("a", 0.4), evaluation("b", 0.9)), certified=True)
    assert (found.champion, found.beats) == ("b", True)
    assert "at least 0.900 EUR per journey more than the log" in found.why
    assert [v.candidate for v in found.verdicts] == ["a", "b"]


def test_a_gain_by_estimated_propensities_says_what_could_undo_it() -> None:
    judged = replace(report(evaluation(CLONE, -0.1), evaluation("a", 0.4)), estimated=True)
    assert "its propensities are estimated, so an experiment" in gate.choose(judged, certified=True).why
    assert "estimated" not in gate.choose(replace(judged, estimated=False), certified=True).why


def test_nothing_above_zero_means_the_clone() -> None:
    found = gate.choose(report(evaluation(CLONE, 5.0), evaluation("a", -0.01), evaluation("b", 0.0)), certified=True)
    assert (found.champion, found.beats) == (CLONE, False)
    assert "nothing beats the log with confidence" in found.why
    assert not any(v.passed for v in found.verdicts)
    assert "lower bound -0.01" in found.verdicts[0].why


@pytest.mark.parametrize(
    ("fqe", "doubt", "weights", "passes"),
    [
        (0.2, None, 3.0, True),
        (-0.2, None, 3.0, False),
        (-0.2, 0.05, 3.0, False),
        (float("nan"), 0.5, 3.0, False),
        (-0.2, float("nan"), 3.0, False),
        (-1e9, float("inf"), 3.0, False),
        (-0.2, 0.5, 3.0, True),  # fitted to other customers it might have been a gain
        (0.2, 0.05, -30.0, False),
        (0.2, 0.05, float("nan"), False),
        (0.2, 0.05, -3.0, True),
    ],
)
def test_a_model_and_weights_must_not_contradict_the_gain(
    fqe: float, doubt: float | None, weights: float, passes: bool
) -> None:
    judged = evaluation("a", 1.0)
    model = Estimate(fqe, None, None, 200.0, "FQE", note="a model's answer: no interval", doubt=doubt)
    more = (estimate(weights, 9.0, "marginal IS"), estimate(-5.0, 9.0, "PDIS"), model)
    verdict = verdicts.judge(replace(judged, gains=(*judged.gains, *more)), True, "EUR")
    (check,) = (c for c in verdict.checks if c.name == "agreement")
    assert check.passed == passes == verdict.passed
    assert "FQE" in check.found


def test_a_witness_without_support_is_not_heard() -> None:
    judged = evaluation("a", 1.0)
    silent = refused("marginal IS", 3.0, "too far")
    assert verdicts.judge(replace(judged, gains=(*judged.gains, silent)), True, "EUR").passed


def test_without_support_nothing_else_is_asked() -> None:
    (verdict,) = gate.choose(report(evaluation(CLONE, 0.0), evaluation("a", None)), certified=True).verdicts
    assert [c.name for c in verdict.checks] == ["support"]
    assert verdict.why == "support: effective sample size 3.0"


def test_a_failed_certificate_shuts_the_gate() -> None:
    found = gate.choose(report(evaluation(CLONE, 0.0), evaluation("a", 2.0)), certified=False)
    assert found.champion == CLONE
    assert "certificate" in found.verdicts[0].why


@pytest.mark.parametrize(
    ("name", "found", "passes"),
    [
        ("contacts", replace(harm(2.0, 1.5, 0.1), allowed=2.0), True),  # 3.5 of at most 4
        ("contacts", replace(harm(2.0, 2.5, 0.1), allowed=2.0), False),
        ("contacts", replace(harm(2.0, 2.5, 0.1), allowed=3.0), True),
        ("contacts", replace(harm(2.0, -0.5, 0.1), allowed=0.5), False),  # 1.5 where at most 1 is allowed
        ("contacts", Harm(2.0, refused("marginal weights", 2.0, "too few"), 2.0), False),
        ("withdrawals", harm(0.1, 0.02, 0.03), True),  # more, but that may be chance
        ("withdrawals", harm(0.1, 0.05, 0.03), False),
        ("complaints", harm(0.01, 0.004, 0.005), True),
        ("complaints", harm(0.01, 0.006, 0.005), False),
    ],
)
def test_harms_have_limits(name: str, found: Harm, passes: bool) -> None:
    verdict = verdicts.judge(evaluation("a", 1.0, {name: found}), certified=True, unit="EUR")
    assert verdict.passed == passes
    assert (name in verdict.why) == (not passes)


@pytest.mark.parametrize(("chance", "harmed", "passes"), [(0.01, True, False), (0.2, False, True), (None, False, True)])
def test_no_segment_may_lose_for_certain(chance: float | None, harmed: bool, passes: bool) -> None:
    gain = refused("segment", 3.0, "few") if chance is None else estimate(-2.0)
    parts = (Segment("kind a", 90, estimate(3.0), 1.0, False), Segment("kind b", 80, gain, chance, harmed))
    verdict = verdicts.judge(replace(evaluation("a", 1.0), segments=parts), certified=True, unit="EUR")
    assert verdict.passed == passes
    found = next(c.found for c in verdict.checks if c.name == "segments")
    assert ("kind b -2.00" in found) == (chance is not None)
    nothing = verdicts.judge(evaluation("a", 1.0), certified=True, unit="EUR")
    assert "segments" not in [c.name for c in nothing.checks]


def over(judged: Evaluation, **bounds: float) -> Evaluation:
    """The same, with these lower bounds of what it earns more than others."""
    return replace(judged, over=tuple(Difference(name, estimate(b + 1), b) for name, b in bounds.items()))


def test_a_constant_stays_unless_it_is_clearly_beaten() -> None:
    learned, constant = over(evaluation("ppo", 0.9), constant=-0.1), evaluation("constant", 0.4)
    found = gate.choose(report(evaluation(CLONE, 0.0), learned, constant), certified=True)
    assert (found.champion, found.beats) == ("constant", True)
    assert "; no gain from personalising shown: nobody who chooses for each customer" in found.why
    assert "no gain from personalising shown: lower bound -0.1" in found.verdicts[0].why
    alone = gate.choose(report(evaluation(CLONE, 0.0), learned), certified=True)
    assert alone.champion == "ppo"  # it gains, and nobody who treats all alike is there to be preferred
    assert "; no gain from personalising shown, but no candidate that treats all alike passes" in alone.why
    better = over(evaluation("ppo", 0.3), mail=0.1, hold=0.2)
    found = gate.choose(report(evaluation(CLONE, 0.0), better, constant), certified=True)
    assert found.champion == "ppo"  # though the constant's own bound is higher
    assert "personalising" not in found.why


def test_the_highest_lower_end_at_one_error_wins() -> None:
    """The favourite's own bound is lower at the same estimate only because less error was left to the others."""
    better = replace(evaluation("b", 0.5), gains=(Estimate(3.0, 1.5, 4.5, 200.0, "marginal DR"),))
    found = gate.choose(report(evaluation(CLONE, 0.0), evaluation("a", 0.9), better), certified=True)
    assert found.champion == "b"
    assert "at least 0.500 EUR" in found.why


def test_that_nothing_is_gained_is_said_of_the_log_too() -> None:
    found = gate.choose(report(evaluation(CLONE, 0.0), over(evaluation("ppo", -0.5), hold=-0.3)), certified=True)
    assert found.champion == CLONE
    assert found.why.endswith("with known probabilities; no gain from personalising shown")


def test_where_no_constant_is_supported_that_is_said() -> None:
    found = gate.choose(report(evaluation(CLONE, 0.0), evaluation("ppo", 0.9)), certified=True)
    assert found.champion == "ppo"
    assert "; the log supports no action for everybody" in found.why


def test_a_constant_that_harms_or_does_not_gain_keeps_nobody_out() -> None:
    everybody = over(evaluation("constant", 0.4), mail=0.0, hold=0.1)
    judged = report(evaluation(CLONE, 0.0), over(evaluation("ppo", 0.9), mail=-0.1, hold=0.3), everybody)
    assert gate.choose(judged, certified=True).champion == "constant"
    found = gate.choose(replace(judged, excused=("mail",)), certified=True)
    assert found.champion == "ppo"
    assert "personalising" not in found.why  # it beats all that count, and one that does passes itself


def reigning(gain: Estimate, policy: str = "old") -> Reigning:
    return Reigning("shop/1", policy, gain)


@pytest.mark.parametrize(
    ("bound", "margin", "champion"), [(0.2, 0.0, "ppo"), (0.2, 0.3, "shop/1"), (-0.1, 0.0, "shop/1")]
)
def test_the_champion_stays_unless_it_is_clearly_beaten(bound: float, margin: float, champion: str) -> None:
    judged = report(evaluation(CLONE, 0.0), over(evaluation("ppo", 0.9), champion=bound))
    found = gate.choose(replace(judged, champion=reigning(estimate(0.5))), certified=True, margin=margin)
    assert (found.champion, found.stays) == (champion, champion == "shop/1")
    (check,) = (c for c in found.verdicts[0].checks if c.name == "champion")
    assert check.found == f"lower bound {bound:+.3f} EUR per journey over shop/1, has to be above {margin:g}"


def test_the_same_policy_is_not_promoted_again() -> None:
    judged = report(evaluation(CLONE, 0.0), over(evaluation("ppo", 0.9, version="old"), champion=0.0))
    found = gate.choose(replace(judged, champion=reigning(estimate(0.5))), certified=True)
    assert found.stays
    assert found.verdicts[0].why == "champion: it is shop/1 already"


def test_a_champion_that_loses_to_the_log_for_certain_goes() -> None:
    judged = report(evaluation(CLONE, 0.0), over(evaluation("ppo", 0.9), champion=-0.1))
    found = gate.choose(replace(judged, champion=reigning(estimate(-3.0))), certified=True)
    assert (found.champion, found.stays) == (CLONE, False)


def test_a_champion_that_cannot_be_judged_keeps_nobody_out() -> None:
    judged = replace(
        report(evaluation(CLONE, 0.0), evaluation("ppo", 0.9)), champion=reigning(refused("none", 0, "why"))
    )
    found = gate.choose(judged, certified=True)
    assert found.champion == "ppo"
    assert found.why.endswith("; not compared with shop/1: why")
    assert Report.from_json(judged.to_json()) == judged


@given(st.integers(1, 1_000))
def test_all_looks_together_err_as_often_as_one(looks: int) -> None:
    shares = [error_of(look) for look in range(1, looks + 1)]
    assert sum(shares) < ERROR
    assert sum(shares) == pytest.approx(ERROR * looks / (looks + 1))  # as good as all of it is spent in the end
    assert shares == sorted(shares, reverse=True)
    assert error_of(None) == ERROR


def test_a_look_among_others_says_so() -> None:
    found = replace(report(evaluation(CLONE, 0.0), evaluation("ppo", 1.0)), error=error_of(2), look=2)
    assert "error 0.0083, the share of look 2, shared by all candidates" in gate.choose(found, True).why


def test_there_is_no_look_before_the_first() -> None:
    with pytest.raises(ValueError, match="look: found 0, expected 1 for the first"):
        error_of(0)


def test_no_clone_and_no_winner_is_an_error() -> None:
    with pytest.raises(TrainingError, match="no behaviour_cloning to fall back on"):
        gate.choose(report(evaluation("a", -1.0)), certified=True)


def test_a_report_survives_json() -> None:
    known = replace(
        evaluation("a", 1.0, {"contacts": harm(2.0, 0.1, 0.1)}),
        environment=Estimate(3.0, None, None, 9.0, "environment"),
        truth=Truth(11.0, 0.2, 1.0, 0.1),
        segments=(Segment("kind a", 90, estimate(3.0), 1.0, False),),
        tail=estimate(-3.0),
        over=(Difference("hold", estimate(0.3), -0.1),),
    )
    before = replace(report(known, evaluation("b", None)), alike={"hold": estimate(0.1)}, excused=("hold",))
    assert Report.from_json(before.to_json()) == before
    with pytest.raises(TrainingError, match="nextbest evaluate"):
        Report.from_json("{}")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    return Tracking(tmp_path_factory.mktemp("gate") / "mlruns")


def training(
    store: Tracking,
    folder: Path,
    bounds: Mapping[str, float],
    evaluated: bool = True,
    card: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """A training with these candidates; returns the parent's run id."""
    versions = {}
    with store.run("training", "shop") as parent:
        parent.tags({"kind": "training", "certificate": "passed"})
        for i, name in enumerate(bounds):
            network = TwoTower(
                Shape(SPEC.encoder.size, SPEC.attributes.size, embedding=4, hidden=8), epsilon=0.1 + i / 9
            )
            versions[name] = export.export_bundle(network, SPEC, {"name": name, **card}, folder / name).version
            with store.run(name, "shop", parent.id) as child:
                child.tags({"kind": "candidate"})
                child.files(folder / name, BUNDLE)
        if evaluated:
            found = report(*(evaluation(n, b, version=versions[n]) for n, b in bounds.items()))
            parent.text(EVALUATION, found.to_json())
    return parent.id


def test_promote_registers_the_winner_and_says_why(
    store: Tracking, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = training(store, tmp_path, {CLONE: 0.0, "ppo": 1.25})
    version = gate.run(parent, "first", store=store.folder)
    found, run_id, bundle = store.registered("first@champion")
    assert found == version
    assert Bundle.load(bundle).card["name"] == "ppo"
    tags = store.record(run_id).data.tags
    assert (tags["gate"], tags["champion_of"]) == ("gate", "first")
    assert "at least 1.25 EUR" in tags["gate_reason"]
    assert "| ppo | gain |" in store.artifact(parent, "evaluation/gate.md").read_text("utf-8")
    assert "first@champion is now version" in " ".join(capsys.readouterr().out.split())


def test_promote_falls_back_to_the_clone_or_is_forced(store: Tracking, tmp_path: Path) -> None:
    parent = training(store, tmp_path, {CLONE: 0.0, "ppo": -1.0})
    gate.run(parent, "second", store=store.folder)
    _, run_id, _ = store.registered("second@champion")
    assert store.record(run_id).info.run_name == CLONE
    assert store.record(run_id).data.tags["gate"] == "fallback"
    gate.run(parent, "second", force="ppo", store=store.folder)
    _, run_id, _ = store.registered("second@champion")
    assert store.record(run_id).data.tags["gate"] == "forced"
    assert "the gate would have chosen behaviour_cloning" in store.record(run_id).data.tags["gate_reason"]
    with pytest.raises(TrainingError, match="found no candidate 'pqo'; did you mean 'ppo'"):
        gate.run(parent, "second", force="pqo", store=store.folder)


def test_promote_asks_the_champion(store: Tracking, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gate.run(training(store, tmp_path / "one", {CLONE: 0.0, "ppo": 1.25}), "third", store=store.folder)
    later = training(store, tmp_path / "two", {CLONE: 0.0, "ppo": 1.0, "greedy": 2.0})
    with pytest.raises(TrainingError, match=rf"third/1 is champion, and run {later} was evaluated beside none: `nextb"):
        gate.run(later, "third", store=store.folder)
    found = replace(gate.read(store, later), champion=Reigning("third/1", "old", estimate(0.5)))
    with store.reopened(later) as run:
        run.text(EVALUATION, found.to_json())
    assert gate.run(later, "third", store=store.folder) == "1"
    assert store.record(later).data.tags["gate"] == "stays"
    assert "third@champion stays version 1, because nobody earns more" in " ".join(capsys.readouterr().out.split())
    better = [over(e, champion=0.5) for e in found.evaluations]
    with store.reopened(later) as run:
        run.text(EVALUATION, replace(found, evaluations=tuple(better)).to_json())
    assert gate.run(later, "third", store=store.folder) == "2"
    assert Bundle.load(store.registered("third@champion")[2]).card["name"] == "greedy"


def test_an_uncertified_bundle_is_promoted_with_a_warning(
    store: Tracking, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = {"certificate": {"passed": False, "failed": ["value:logged actions"]}}
    parent = training(store, tmp_path, {CLONE: 0.0, "ppo": 1.25}, card=card)
    version = gate.run(parent, "uncertified", store=store.folder)
    said = "Uncertified: the environment of its training failed value:logged actions."
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in str(store.client.get_model_version("uncertified", version).description)
    export.run("uncertified@champion", tmp_path / "out", store.folder)
    assert said in " ".join(capsys.readouterr().out.split())


def test_promote_needs_an_evaluation_of_these_very_bundles(store: Tracking, tmp_path: Path) -> None:
    parent = training(store, tmp_path / "one", {CLONE: 0.0}, evaluated=False)
    with pytest.raises(TrainingError, match="was not evaluated yet"):
        gate.run(parent, store=store.folder)
    with store.reopened(parent) as run:
        run.text(EVALUATION, report(evaluation(CLONE, 0.0, version="another")).to_json())
    with pytest.raises(TrainingError, match="but another was evaluated"):
        gate.run(parent, store=store.folder)


@pytest.mark.parametrize("name", ["bad name/x", "a:b", "it's", "", "x" * 101, "two@champion", "line\n"])
def test_promote_refuses_a_bad_name_before_any_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrainingError, match=r"--model: found .*, expected at most 100 characters: letters, digits"):
        gate.run(model=name, store=tmp_path / "mlruns")
    assert not list(tmp_path.iterdir())
