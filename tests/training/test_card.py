"""What a person reads in MLflow after a promotion: the card on the version, tags, a line at the head of each run."""

from dataclasses import replace

import numpy as np
import pytest

from engine.bundle import Bundle
from tests.training.small_log import SPEC
from training import card, export, gate
from training.candidates import CLONE
from training.differences import Difference
from training.evaluation import EVALUATION, Evaluation, Report
from training.harms import Harm
from training.intervals import Estimate
from training.network import Shape, TwoTower
from training.recorded import by_channel, told_by_channel
from training.segments import Segment
from training.tracking import BUNDLE, Tracking

SUPPORT = {"unsupported": 0.0, "ess": 50.0, "decisions": 4.0, "largest": 3.0, "mean": 1.0}


def estimate(value: float, method: str = "marginal DR") -> Estimate:
    return Estimate(value, value - 1.0, value + 1.0, 200.0, method)


def evaluation(name: str, version: str, bound: float) -> Evaluation:
    return Evaluation(
        name,
        version,
        SUPPORT,
        (estimate(bound + 11.0), estimate(9.5, "marginal IS")),
        (estimate(bound + 1.0),),
        bound,
        {"contacts": Harm(2.0, estimate(0.5)), "complaints": Harm(0.1, estimate(-0.05))},
        0.7,
        segments=(Segment("loyalty new", 60, estimate(3.5), 1.0, False),),
        over=(Difference("hold", estimate(bound), bound - 1.0),),
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    return Tracking(tmp_path_factory.mktemp("card") / "mlruns")


@pytest.fixture(scope="module")
def parent(store: Tracking, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A training with three candidates, of which ppo passes the gate, promoted twice by hand and once by the gate."""
    folder, found = tmp_path_factory.mktemp("bundles"), []
    about = {"about": "Plans ahead.", "certificate": {"passed": True, "checks": 23, "failed": [], "customers": 1234}}
    with store.run("training", "shop") as run:
        run.tags({"kind": "training", "certificate": "passed", "log": "logs/shop", "propensities": "logged"})
        run.dataset("shop", "abc123", "logs/shop", {"customers": 5000})
        run.metrics({"customers": 5000, "decisions": 1_234_567}, {"customers": "how many", "decisions": "how many"})
        shares = np.full(len(SPEC.catalogue), 0.3 / (len(SPEC.catalogue) - 1))
        shares[0] = 0.7
        run.metrics(by_channel(SPEC, shares), told_by_channel(SPEC))
        for i, (name, bound) in enumerate({CLONE: 0.0, "ppo": 1.25, "hold": -2.0}.items()):
            network = TwoTower(Shape(SPEC.encoder.size, SPEC.attributes.size, 4, 8), epsilon=0.1 + i / 9)
            bundle = export.export_bundle(network, SPEC, {"name": name, **about}, folder / name)
            with store.run(name, "shop", run.id) as child:
                child.tags({"kind": "candidate"})
                child.describe(f"**{name}**: Plans ahead.")
                child.metrics(by_channel(SPEC, shares), told_by_channel(SPEC))
                child.files(folder / name, BUNDLE)
            found.append(evaluation(name, bundle.version, bound))
        run.describe("Candidates.")
        run.text(EVALUATION, Report("EUR", 189, 2646, estimate(10.0), tuple(found), estimated=False).to_json())
    gate.run(run.id, "shop", store=store.folder)
    gate.run(run.id, "shop", force="hold", store=store.folder)
    return run.id


def test_the_version_has_a_card_that_says_it_all(store: Tracking, parent: str) -> None:
    version = store.client.get_model_version("shop", "1")
    text = str(version.description).replace("&emsp;", "")
    for told in (
        "**ppo**: Plans ahead.",
        "Passed the gate: it earns at least 1.25 EUR per journey",
        "| the log itself | 10.0 [9.00, 11.0] |",
        "| this policy | 12.2 [11.2, 13.2] |",
        "| gain over the log, paired | 2.25 [1.25, 3.25] |",
        "| gain over hold, paired | 1.25 [0.250, 2.25] |",
        "| other estimators: marginal IS | 9.50 [8.50, 10.5] |",
        "By marginal DR on 189 held-out customers, 2,646 decisions; effective sample size 200 customers.",
        "| the log | 70 % |",
        "| complaints | 0.100 | 0.0500 | -0.0500",
        "| loyalty new | 60 | 3.50 [2.50, 4.50] | 1 |",
        "| gain | lower bound +1.25 EUR per journey over the log, has to be above 0 | yes |",
        "| hold | no | gain: lower bound -2.00",
        "Passed 23 checks on 1,234 held-out customers.",
        "| log | logs/shop, 5,000 customers, 1,234,567 decisions |",
        "| log's fingerprint | abc123 |",
        f"| training | run {parent} |",
    ):
        assert told in text, told
    assert version.tags["gain"] == "2.25 [1.25, 3.25] EUR per journey"
    assert (version.tags["candidate"], version.tags["gate"], version.tags["training"]) == ("ppo", "gate", parent)


def test_each_run_says_what_the_gate_said_of_it(store: Tracking, parent: str) -> None:
    runs = {c.name: store.record(c.run_id) for c in store.candidates(parent)}
    # The second promotion, by hand, speaks in the place of the first.
    verdicts = {name: run.data.tags["verdict"] for name, run in runs.items()}
    assert verdicts == {CLONE: "not asked", "ppo": "passes", "hold": "promoted"}
    note = runs["hold"].data.tags["mlflow.note.content"]
    assert note.count("**Verdict.**") == 1
    assert "**hold**: Plans ahead." in note
    assert "Promoted: forced by hand; the gate would have chosen ppo" in note
    assert "The gate: passes" in runs["ppo"].data.tags["mlflow.note.content"]
    assert "**Verdict.** ppo: it earns at least" in store.record(parent).data.tags["mlflow.note.content"]
    own = store.artifact(runs["ppo"].info.run_id, card.FILE).read_text("utf-8")
    assert "| gain over the log, paired | 2.25 [1.25, 3.25] |" in own


def test_the_columns_of_a_card_stay_apart() -> None:
    text = "| log | candidate |\n|---|---|\n| 4.82 | 4.87 |\nText | as it is.\n"
    apart = "| log&emsp; | candidate |\n|---|---|\n| 4.82&emsp; | 4.87 |\nText | as it is.\n"
    assert card.spaced(text) == apart


def test_a_candidate_that_nobody_evaluated_says_so(store: Tracking, parent: str) -> None:
    ppo = next(c for c in store.candidates(parent) if c.name == "ppo")
    bundle, origin = Bundle.load(ppo.bundle), card.Origin.of(store, parent, ppo.run_id)
    report = replace(gate.read(store, parent), evaluations=())
    text = card.card("ppo", bundle, "Promoted: forced by hand.", (report, ()), origin)
    assert "It was not evaluated." in text
    assert "### What it does" in text
