"""The `train` verb: from a log to candidate bundles, compared side by side in one MLflow run.

Read downward: the log is read and checked, customers are split, the behaviour clone and the outcome model are
fitted, the environment is certified, then every candidate is trained, exported and judged as the bundle that would
be served.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console

from engine.errors import LogError, TrainingError
from engine.spec import Spec
from training import report
from training.calibration import Calibration
from training.candidates import COLUMNS, Ground, Settings, candidates, logged_shares, record
from training.certificate import Certificate, certificate
from training.certificate_page import page, show
from training.clone import FitSettings, clone_behaviour
from training.comparisons import Pace
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.logs import quality, read_log
from training.members import OutcomeSettings
from training.network import NetworkPolicy
from training.ppo import PpoSettings
from training.quality import QualityReport, tell
from training.story import Story
from training.threads import one_thread
from training.tracking import TABLE, Run, Tracking
from training.trained import OUTCOME_MODEL
from training.views import keep_view

EXPLAINED = {
    "logged_value": "mean discounted return of the logged journeys, all customers",
    "decisions": "decisions in the log",
    "customers": "customers in the log",
    "clone_loss": "cross-entropy of the logged actions under the behaviour clone, validation customers, nats",
    "checks_failed": "checks of the environment's certificate that failed on held-out customers",
    "two_sample_auc": "how well a classifier tells made-up journeys from held-out ones; 0.5 = a guess",
}


@dataclass(frozen=True, slots=True)
class Whole:
    """What is kept of all journeys together: the arrays themselves would hold every decision twice.

    value: mean discounted return. unknown: share of the decisions without a propensity. fingerprint: 16 hex digits over
    what was decided, when, and what it earned.
    """

    customers: int
    decisions: int
    value: float
    unknown: float
    fingerprint: str

    @staticmethod
    def of(everyone: Journeys) -> "Whole":
        digest = blake2b(digest_size=8)
        for array in (everyone.decided_at, everyone.action, everyone.reward):
            digest.update(np.ascontiguousarray(array).tobytes())
        return Whole(
            customers=len(everyone.customer_ids),
            decisions=len(everyone),
            value=float(everyone.returns().mean()),
            unknown=float(np.isnan(everyone.propensity).mean()),
            fingerprint=digest.hexdigest(),
        )


@dataclass(frozen=True, slots=True)
class Data:
    """The log as journeys, its customers in three parts. Nothing is ever chosen by looking at `test`."""

    whole: Whole
    train: Journeys
    valid: Journeys
    test: Journeys


@dataclass(frozen=True, slots=True)
class Wishes:
    """What whoever starts a training may choose. steps: decisions that PPO sees in all, None = by the log's size.
    allow_uncertified: go on when the environment fails its certificate. pessimism: see `candidates.Settings`.
    """

    seed: int = 0
    steps: int | None = None
    allow_uncertified: bool = False
    pessimism: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """How a training is done; all that is random follows one seed."""

    clone: FitSettings
    outcomes: OutcomeSettings
    candidates: Settings
    allow_uncertified: bool = False

    @staticmethod
    def of(wishes: Wishes, decisions: int) -> "Plan":
        """For a log with this many training decisions. PPO sees a dozen times as many, within limits, unless told, and
        shares them out among its seeds.
        """
        seed, steps = wishes.seed, wishes.steps or int(1.2 * np.clip(10 * decisions, 20_000, PpoSettings().steps))
        return Plan(
            clone=FitSettings(seed=seed),
            outcomes=OutcomeSettings(seed=seed),
            candidates=Settings.of(seed, steps, wishes.pessimism),
            allow_uncertified=wishes.allow_uncertified,
        )


def run(
    spec: Path,
    log: str,
    experiment: str | None = None,
    wishes: Wishes = Wishes(),
) -> str:
    """The `train` verb; returns the parent's run id. Writes below `mlruns/` in the current folder.

    Raises SpecError, LogError, StoreError; TrainingError when the environment fails its certificate.
    """
    one_thread()
    story = Story(Console())
    declared = Spec.read(spec)
    data = read(declared, log, wishes.seed, story)
    plan = Plan.of(wishes, len(data.train))
    tracking, experiment = Tracking(), experiment or declared.name
    with tracking.run(f"training {datetime.now(UTC):%Y-%m-%d %H:%M:%S}", experiment) as parent:
        source = str(Path(log).resolve()) if Path(log).exists() else log
        _describe(parent, declared, data, {"log": source, "spec": str(spec.resolve())})
        parent.params({"seed": wishes.seed, "ppo_steps": plan.candidates.ppo.steps * plan.candidates.seeds})
        train(declared, data, plan, story, (tracking, parent, experiment))
    story.say(f"run {parent.id} in {tracking.folder}")
    story.say("next: [bold]nextbest evaluate[/] estimates the candidates on held-out customers, ", end="")
    story.say("[bold]nextbest ui[/] compares them in MLflow")
    return parent.id


def read(spec: Spec, log: str, seed: int, story: Story) -> Data:
    """Read, check and split a log. Raises LogError when its quality report holds an error."""
    with story.stage("reading the log"):
        table = read_log(spec, log)
        everyone = Journeys.of(spec, table)
        checked = quality(spec, table, everyone)
    _tell_quality(everyone, checked, story)
    errors = sum(f.level == "error" for f in checked.findings)
    if errors:
        raise LogError(f"{log}: {errors} finding{'s' * (errors > 1)} above must be mended before training")
    data = Data(Whole.of(everyone), *everyone.split(seed))
    for part, journeys in (("training", data.train), ("validation", data.valid), ("test", data.test)):
        if not len(journeys):
            raise LogError(f"{log}: found no {part} customers; expected more than {data.whole.customers} customers")
    if data.whole.unknown:
        story.say(
            f"[yellow]{data.whole.unknown:.0%} of the decisions have no propensity: the behaviour clone's "
            "probabilities stand in (estimated), and estimates are only as good as it is.[/]"
        )
    return data


def _tell_quality(everyone: Journeys, checked: QualityReport, story: Story) -> None:
    """What there is, and what `nextbest check` would warn of."""
    story.say(
        f"{len(everyone.customer_ids):,} customers, {len(everyone):,} decisions, {len(everyone.events):,} events after "
        "them; [bold]nextbest check[/] tells more"
    )
    tell((f for f in checked.findings if f.level != "info"), story.console)


def train(spec: Spec, data: Data, plan: Plan, story: Story, records: tuple[Tracking, Run, str]) -> None:
    """Clone, environment, certificate, candidates. `records`: the store, the parent run and the experiment's name."""
    tracking, parent, experiment = records
    with story.stage("cloning the logging policy") as progress:
        clone = clone_behaviour(spec, data.train, data.valid, plan.clone, progress)
    parent.metrics({"clone_loss": min(clone.valid_loss)}, EXPLAINED)
    with story.stage("learning what customers do") as progress:
        model = fit_outcome_model(spec, data.train, data.valid, plan.outcomes, progress)
    with TemporaryDirectory() as folder:
        file = Path(folder) / Path(OUTCOME_MODEL).name
        model.save(file)
        parent.files(file, str(Path(OUTCOME_MODEL).parent))
    stand_in = NetworkPolicy(clone.network, spec.attributes.encode(spec.catalogue))
    with story.stage("checking the environment on held-out customers") as progress:
        found = certificate(spec, model, data.test, stand_in, plan.candidates.seed, progress)
    _certify(spec, found, plan, story, parent)
    ground = Ground(spec, data.train, data.valid, model, clone, found.card())
    rows, named, shares = [], list[str](), {"logged": logged_shares(data.valid, len(spec.catalogue))}
    for made in candidates(ground, plan.candidates, story):
        judged = record(ground, made, tracking, parent, experiment)
        rows.append(judged.row)
        named += [f"{made.name} is {made.params['action']}"] if "action" in made.params else []
        shares[made.name] = judged.share
    parent.plot("action_mix", report.action_mix(spec.catalogue, shares))
    keep_view(tracking, parent.id, "environment_value")
    where = "learned environment" if found.passed else "UNCERTIFIED environment"
    title = f"Candidates in the {where}, validation journeys ({spec.currency} per journey)"
    story.console.print(report.candidates_table(rows, COLUMNS, title))
    for line in named:
        story.say(f"[dim]{line} wherever it may be sent, else hold[/]")


def _describe(parent: Run, spec: Spec, data: Data, sources: dict[str, str]) -> None:
    """What the run stands for: its log, its numbers, where the propensities come from."""
    known = "estimated" if data.whole.unknown else "logged"
    parent.tags({"kind": "training", "propensities": known} | sources)
    parent.describe(
        f"Candidates for **{spec.name}**, one child run each. Propensities: {known}. Values are discounted returns in "
        f"{spec.currency} per journey."
    )
    counts = {"decisions": data.whole.decisions, "customers": data.whole.customers}
    parent.dataset(spec.name, data.whole.fingerprint, sources["log"], counts)
    parent.metrics(counts | {"logged_value": data.whole.value}, EXPLAINED)


def _certify(spec: Spec, found: Certificate, plan: Plan, story: Story, parent: Run) -> None:
    """Print and keep the certificate. Raises TrainingError when it failed and that was not allowed."""
    failed, unit = found.failures(), f"{spec.currency} per journey"
    show(found, unit, story.console)
    parent.text("environment/certificate.json", json.dumps(found.to_json(), indent=2))
    parent.text("environment/certificate.md", page(found, unit))
    tables = {c.outcome: _reliability(c) for c in found.calibrations if max(c.observed, default=0) > 0}
    parent.plot("calibration", report.calibration(tables))
    parent.plot("events_over_the_journey", report.courses({p.kind: _course(p) for p in found.comparisons.paces}))
    parent.metrics({"checks_failed": float(len(failed)), "two_sample_auc": found.two_sample.auc}, EXPLAINED)
    parent.tags({"certificate": "passed" if found.passed else "failed"})
    if not failed:
        return
    names = ", ".join(check.name for check in failed)
    parent.describe(f"{parent.note.partition(TABLE)[0]}\n\n**Uncertified environment**: failed {names}.")
    if not plan.allow_uncertified:
        raise TrainingError(
            f"the environment failed its certificate ({names}): no policy trained in it can be trusted; "
            "--allow-uncertified goes on all the same"
        )


def _reliability(found: Calibration) -> report.Reliability:
    return report.Reliability(*(np.array(x, np.float64) for x in (found.predicted, found.observed, found.count)))


def _course(pace: Pace) -> report.Course:
    columns = (np.array([getattr(p, name) for p in pace.parts]) for name in ("real", "simulated", "error"))
    return report.Course(pace.upto, *columns)
