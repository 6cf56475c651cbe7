"""The `train` verb: from a log to candidate bundles, compared side by side in one MLflow run.

Read downward: the log is read and checked, customers are split, the behaviour clone and the outcome model are
fitted, the environment is certified, then every candidate is trained, exported and judged as the bundle that would
be served.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import numpy as np
from rich.console import Console

from engine.errors import LogError
from engine.spec import Spec
from training import heat_maps, report
from training.candidates import Ground, Settings, candidates, rank_of
from training.certified import certified, check
from training.clone import FitSettings, clone_behaviour
from training.fit import fit_outcome_model
from training.journeys import Journeys, shares_of
from training.kept import Kept, clone_form, model_form
from training.logs import quality, read_log
from training.members import OutcomeSettings
from training.network import NetworkPolicy
from training.ppo import PpoSettings
from training.quality import QualityReport, demand, tell
from training.recipe import Code, Recipe, revived
from training.recorded import COLUMNS, Recorded, by_channel, logged_shares, record, recorded, told_by_channel
from training.seeds import COURAGE
from training.story import Story
from training.threads import one_thread
from training.tracking import Run, Tracking
from training.trained import OUTCOME_MODEL, SHARES
from training.unfinished import goes_on, held, whole_candidates
from training.views import keep_view

EXPLAINED = {
    "logged_value": "mean discounted return of the logged journeys, all customers",
    "decisions": "decisions in the log",
    "customers": "customers in the log",
    "clone_loss": "cross-entropy of the logged actions under the behaviour clone, validation customers, nats",
}


@dataclass(frozen=True, slots=True)
class Whole:
    """What is kept of all journeys together: the arrays themselves would hold every decision twice.

    value: mean discounted return. unknown: share of the decisions without a propensity. fingerprint: 16 hex digits over
    who was asked, what was known, allowed, decided and when, and what followed: all that a training sees.
    """

    customers: int
    decisions: int
    value: float
    unknown: float
    fingerprint: str

    @staticmethod
    def of(everyone: Journeys) -> "Whole":
        return Whole(
            customers=len(everyone.customer_ids),
            decisions=len(everyone),
            value=float(everyone.returns().mean()),
            unknown=float(np.isnan(everyone.propensity).mean()),
            fingerprint=_fingerprint(everyone),
        )


def _fingerprint(everyone: Journeys) -> str:
    digest = blake2b("\0".join(everyone.customer_ids).encode(), digest_size=8)
    journeys = (everyone.customer, everyone.decided_at, everyone.until, everyone.observation, everyone.mask)
    chosen = (everyone.action, everyone.propensity, everyone.reward, everyone.ended)
    happened = everyone.events
    followed = (happened.row, happened.kind, happened.occurred_at, happened.value)
    for array in (*journeys, *chosen, *followed):
        digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.hexdigest()


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
        """For a log with this many training decisions. Each of PPO's trainings sees ten times as many, within limits,
        unless told how many all of them see together.
        """
        seed, usual = wishes.seed, int(np.clip(10 * decisions, 20_000, PpoSettings().steps))
        steps = wishes.steps or usual * len(COURAGE)
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
    recipe = Recipe(
        spec=str(spec.resolve()),
        spec_digest=declared.digest,
        log=place_of(log),
        fingerprint=data.whole.fingerprint,
        experiment=experiment or declared.name,
        wishes=asdict(wishes),
        plan=asdict(Plan.of(wishes, len(data.train))),
        code=Code.now(),
    )
    return begin(Tracking(), recipe, declared, data, story)


def place_of(log: str) -> str:
    """A folder by its absolute path, so that it is found from anywhere; a URL as it is."""
    return str(Path(log).resolve()) if Path(log).exists() else log


def begin(
    tracking: Tracking, recipe: Recipe, spec: Spec, data: Data, story: Story, tags: Mapping[str, str] | None = None
) -> str:
    """A new run for a recipe, with these `tags`, from its first word to its last; returns its id. Raises as `train`
    does.
    """
    with tracking.run(f"training {datetime.now(UTC):%Y-%m-%d %H:%M:%S}", recipe.experiment) as parent:
        recipe.keep(parent, spec)
        with goes_on(f"train --resume {parent.id}", story), held(tracking, parent.id):
            parent.tags(tags or {})
            describe(parent, spec, data, recipe)
            train(spec, data, revived(Plan, recipe.plan), story, (tracking, parent, recipe.experiment))
    tell_next(tracking, parent.id, story)
    return parent.id


def tell_next(tracking: Tracking, run_id: str, story: Story) -> None:
    """Where the results are, and what to do with them."""
    story.command(f"run {run_id} in {tracking.folder}")
    which = "" if tracking.latest() == run_id else f" {run_id}"
    story.command(
        f"next: [bold]nextbest evaluate{which}[/] estimates the candidates on held-out customers, "
        "[bold]nextbest ui[/] compares them in MLflow"
    )


def read(spec: Spec, log: str, seed: int, story: Story) -> Data:
    """Read, check and split a log. Raises LogError when its quality report holds an error."""
    with story.stage("reading the log"):
        table = read_log(spec, log)
        everyone = Journeys.of(spec, table)
        checked = quality(spec, table, everyone)
    _tell_quality(everyone, checked, story)
    demand(checked.findings, log, "training")
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
    """Clone, environment, certificate, candidates; what the run holds already is not done again. `records`: the store,
    the parent run and the experiment's name. Raises TrainingError when the environment fails its certificate.
    """
    tracking, parent, experiment = records
    done, kept = whole_candidates(tracking, parent.id), Kept(tracking.artifact(parent.id, ""))
    clone = kept.stage(
        story,
        "cloning the logging policy",
        clone_form(),
        lambda progress: clone_behaviour(spec, data.train, data.valid, plan.clone, progress),
    )
    parent.metrics({"clone_loss": min(clone.valid_loss)}, EXPLAINED)
    behaviour = NetworkPolicy(clone.network, spec.attributes.encode(spec.catalogue))
    model = kept.stage(
        story,
        "learning what customers do",
        model_form(spec, OUTCOME_MODEL),
        lambda progress: fit_outcome_model(spec, data.train, data.valid, plan.outcomes, progress, behaviour),
    )
    card = certified(spec, model, (data.test, behaviour, plan.candidates.seed), story, (parent, kept))
    check(card, plan.allow_uncertified)
    ground = Ground(spec, data.train, data.valid, model, clone, card, kept)
    found = [recorded(ground, one, tracking) for one in done.values()]
    if found:
        story.say(f"kept from before: {', '.join(done)}")
    for made in candidates(ground, plan.candidates, story, done):
        found.append(record(ground, made, tracking, parent, experiment))
    _compare(ground, sorted(found, key=lambda one: rank_of(one.name)), story, (tracking, parent))


def _compare(ground: Ground, found: Sequence[Recorded], story: Story, records: tuple[Tracking, Run]) -> None:
    """All candidates side by side, in MLflow and on the terminal."""
    (tracking, parent), spec = records, ground.spec
    logged = logged_shares(ground.valid, len(spec.catalogue))
    shares = {"logged": logged} | {one.name: one.share for one in found}
    parent.metrics(by_channel(spec, logged), told_by_channel(spec))
    parent.plot("action_mix", heat_maps.action_mix(spec.catalogue, shares))
    keep_view(tracking, parent.id, "environment_value")
    where = "learned environment" if ground.certificate["passed"] else "UNCERTIFIED environment"
    title = f"Candidates in the {where}, validation journeys ({report.per_journey(spec.currency)})"
    story.console.print(report.candidates_table([one.row for one in found], COLUMNS, title))
    for one in found:
        if one.action:
            story.say(f"[dim]{one.name} is {one.action} wherever it may be sent, else hold[/]")


def describe(parent: Run, spec: Spec, data: Data, recipe: Recipe) -> None:
    """What the run stands for: its log, its numbers, where the propensities come from, what was asked for."""
    known = "estimated" if data.whole.unknown else "logged"
    parent.tags({"kind": "training", "propensities": known, "log": recipe.log, "spec": recipe.spec})
    parent.describe(
        f"Candidates for **{spec.name}**, one child run each. Propensities: {known}. Values are discounted returns in "
        f"{report.per_journey(spec.currency)}."
    )
    plan = revived(Plan, recipe.plan).candidates
    parent.params(
        {"seed": plan.seed, "ppo_steps": plan.ppo.steps * plan.seeds}
        | {SHARES: json.dumps(shares_of(data.whole.customers))}
        | {name: value for name, value in recipe.wishes.items() if name not in ("seed", "steps")}
    )
    counts = {"decisions": data.whole.decisions, "customers": data.whole.customers}
    parent.dataset(spec.name, data.whole.fingerprint, recipe.log, counts)
    parent.metrics(counts | {"logged_value": data.whole.value}, EXPLAINED)
