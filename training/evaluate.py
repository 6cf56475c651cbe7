"""The `evaluate` verb: what are the trained policies worth, off-policy, on customers that no learner has
seen?

Every candidate is judged as its bundle: what is evaluated is byte for byte what is served.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from engine.bundle import Bundle
from engine.errors import TrainingError
from engine.policy import Policy
from engine.spec import Spec
from envs.outcomes import OutcomeModel
from training import summary
from training.alike import alike
from training.blend import abreast, ends
from training.candidates import CLONE
from training.differences import Difference, Side, difference
from training.evaluation import CHAMPION, Evaluation, Reigning, Report, Terms, error_of
from training.favourite import Question, errors_of, liked, shares_of, shares_of_choosing
from training.harms import limited
from training.intervals import Estimate, refused
from training.journeys import Journeys
from training.judge import Judge
from training.judged import Judged
from training.judging import judge_all
from training.logs import quality, read_log
from training.oracle import LogOracle, Oracle, world_of
from training.quality import demand, tell
from training.rollout import returns
from training.story import Story
from training.support import Support
from training.threads import one_thread
from training.tracking import Tracking
from training.trained import Trained, champion_of
from training.verdicts import harmless

FOLLOWED = 1_000
"""At most so many held-out journeys are followed in the learned environment."""

ON_POLICY = ("coverage", "propensities", "overlap")
"""What a log need not stand up to whose mean is all that is asked: it may hold one action only."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What candidates are evaluated with. test: customers, held_out: that no candidate has seen. behaviour: the clone
    that stands in for missing propensities. model: the learned environment. oracle: the truth, where it is
    known. champion: NAME/VERSION and bundle of who is served now. terms: what is asked of them. earlier: as in
    `Report`. valid: customers who say whom to ask most of (training/favourite.py), none of them in `test`.
    """

    spec: Spec
    test: Journeys
    held_out: bool
    behaviour: Policy | None = None
    model: OutcomeModel | None = None
    oracle: Oracle | None = None
    champion: tuple[str, Bundle] | None = None
    terms: Terms = field(default_factory=Terms)
    earlier: int = 0
    valid: Journeys | None = None


def evaluate(candidates: Mapping[str, Policy], setting: Setting, seed: int = 0, story: Story | None = None) -> Report:
    """Judge each candidate. Raises TrainingError when the test customers cannot judge anybody."""
    story = story or Story(Console(quiet=True))
    likely: tuple[str, ...] = ()
    if setting.valid is not None:
        with story.stage("asking who is most likely to be worth promoting"):
            question = Question(len(setting.test.customer_ids), setting.terms.contacts, seed)
            likely = liked(candidates, setting.spec, setting.valid, setting.model, question)
    error, favourite = error_of(setting.terms.look), next(iter(likely), None)
    shares, choosing = shares_of(candidates, favourite, error), shares_of_choosing(candidates, likely, error)
    judge = Judge(setting.spec, setting.test, setting.behaviour, seed, min(shares.values()), setting.model)
    found = list[Evaluation]()
    with story.stage("estimating what the candidates are worth") as progress:
        judged = judge_all(judge, candidates, errors_of(shares), lambda done, total: progress(done, 2 * total))
        constants = alike(setting.spec, setting.test, judge, candidates, judged)
        reigning, side = _reigning(setting, judge)
        others = {name: c.side for name, c in constants.items() if c.side}
        for done, (name, policy) in enumerate(candidates.items()):
            progress(len(candidates) + done, 2 * len(candidates))
            mine = judged[name].side
            own, alone = choosing.get(name, shares[name]), shares[name] / abreast(name, candidates)
            over = [difference(mine, theirs, other, own, seed, judge.luck) for other, theirs in others.items() if mine]
            over += [difference(mine, side, CHAMPION, alone, seed, judge.luck)] if mine and side else []
            found.append(_evaluate((name, policy), judged[name], tuple(over), setting, seed))
    return Report(
        currency=setting.spec.currency,
        customers=judge.customers,
        decisions=len(setting.test),
        logged=judge.logged(),
        evaluations=tuple(found),
        estimated=judge.estimated,
        error=error,
        held_out=setting.held_out,
        champion=reigning,
        alike={name: c.gain for name, c in constants.items()},
        excused=tuple(name for name, c in constants.items() if not _rival(c, setting.terms)),
        look=setting.terms.look,
        earlier=setting.earlier,
        favourite=favourite,
        ends=max(1, ends(candidates)),
        choosing=next((n for n in likely if n in choosing), None) if len(set(choosing.values())) > 1 else None,
    )


def _rival(constant: Judged, terms: Terms) -> bool:
    """Does nobody pass who does not beat this action for everybody? It does no harm, and gains for certain itself."""
    harms = limited(constant.harms, terms.contacts)
    return constant.bound is not None and constant.bound > 0.0 and harmless(harms, constant.segments)


def _reigning(setting: Setting, judge: Judge) -> tuple[Reigning | None, Side | None]:
    """The champion on the same customers; it may have learned from them, which favours it."""
    if setting.champion is None:
        return None, None
    model, bundle = setting.champion
    if bundle.spec.digest != setting.spec.digest:
        return Reigning(model, bundle.version, refused("none", 0.0, "it was made with another spec")), None
    judged = judge.judge(bundle.policy)
    return Reigning(model, bundle.version, judged.gain), judged.side


def _evaluate(
    candidate: tuple[str, Policy], judged: Judged, over: tuple[Difference, ...], setting: Setting, seed: int
) -> Evaluation:
    name, policy = candidate
    return Evaluation(
        candidate=name,
        version=policy.version,
        support=_numbers(judged.support),
        values=judged.values,
        gains=judged.gains,
        bound=judged.bound,
        harms=limited(judged.harms, setting.terms.contacts),
        holds=judged.holds,
        environment=_environment(policy, setting, seed) if setting.model else None,
        truth=setting.oracle.truth(name, policy) if setting.oracle else None,
        segments=judged.segments,
        tail=judged.tail,
        over=over,
    )


def _environment(policy: Policy, setting: Setting, seed: int) -> Estimate:
    """The learned environment's own answer, along held-out journeys."""
    assert setting.model is not None
    replay = setting.test.replay().some(FOLLOWED, seed)
    earned = returns(setting.spec, setting.model, replay, policy, seed)
    note = "a model's answer: no interval"
    return Estimate(float(earned.mean()), None, None, float(len(earned)), "environment", note=note)


def run(
    run_id: str | None = None,
    candidates: Sequence[Path] = (),
    logs: tuple[str | None, str | None] = (None, None),
    model: str | None = None,
    terms: Terms | None = None,
    store: Path = Path("mlruns"),
) -> Report:
    """The `evaluate` verb.

    Without options: the candidates of a training (default: the latest) on the held-out customers of its log;
    everything is kept in its MLflow run. `model`: the registered model (default: the spec's name) whose champion is
    judged beside them, if it has one. `logs`: another log instead, all of its customers; and a log that the first
    bundle's policy (of a training: the behaviour clone's) wrote itself, the truth. `candidates`: bundle folders instead
    of a training, with a log. `terms`: what is asked of them. Raises LogError, BundleError, StoreError,
    TrainingError.
    """
    one_thread()
    (log, truth), terms = logs, terms or Terms()
    story = Story(Console())
    if candidates:
        if log is None:
            raise TrainingError("found bundles to evaluate, expected the log to evaluate them on as well (--log)")
        named = _named([Bundle.load(folder) for folder in candidates])
        setting = replace(_elsewhere(named, (log, truth), next(iter(named)), story), terms=terms)
        report = evaluate({name: b.policy for name, b in named.items()}, setting, story=story)
        summary.show(report, story.console)
        summary.caution(named.values(), story.console)
        return report
    trained = Trained.of(Tracking(store), run_id)
    story.say(f"{trained.spec.name}: {trained.title}, run {trained.run}")
    if log is None:
        with story.stage("reading the log"):
            setting = _as_trained(trained, model or trained.spec.name)
    else:
        setting = _elsewhere(trained.bundles, (log, truth), CLONE, story)
    earlier = 0 if terms.look else trained.tracking.evaluated_before(trained.run)
    setting = replace(setting, terms=terms, earlier=earlier)
    report = evaluate({name: b.policy for name, b in trained.bundles.items()}, setting, trained.seed, story)
    summary.show(report, story.console)
    summary.caution(trained.bundles.values(), story.console)
    if log is None:
        summary.keep(report, trained)
        story.say(f"kept in run {trained.run}; next: [bold]nextbest promote[/]")
    return report


def _as_trained(trained: Trained, model: str) -> Setting:
    """The held-out customers of the training's own log, its environment, and the champion of `model`."""
    name = champion_of(trained.tracking, model)
    champion = (name, Bundle.load(trained.tracking.registered(name)[2])) if name else None
    spec, clone = trained.spec, trained.bundles.get(CLONE)
    behaviour = clone.policy if clone else None
    _, valid, test = trained.parts()
    oracle = world_of(trained.log, spec)
    return Setting(spec, test, True, behaviour, trained.model(), oracle, champion, valid=valid)


def _elsewhere(named: Mapping[str, Bundle], logs: tuple[str, str | None], about: str, story: Story) -> Setting:
    """All customers of another log; the second is a log that the policy `about` wrote."""
    spec, (log, truth) = next(iter(named.values())).spec, logs
    oracle: Oracle | None = world_of(log, spec)
    if truth is not None:
        oracle = LogOracle(_fit_to_judge(spec, truth, story, ON_POLICY), about)
    return Setting(spec, _fit_to_judge(spec, log, story), held_out=False, oracle=oracle)


def _fit_to_judge(spec: Spec, log: str, story: Story, excused: Collection[str] = ()) -> Journeys:
    """The journeys of a log that nobody has trained on, and so nobody has checked. excused: checks that are not asked.

    Raises LogError when its quality report holds an error: estimates of it would mislead.
    """
    with story.stage(f"reading the log {log}"):
        table = read_log(spec, log)
        everyone = Journeys.of(spec, table)
        found = [f for f in quality(spec, table, everyone).findings if f.level != "info" and f.check not in excused]
    tell(found, story.console)
    demand(found, log, "anybody is judged by it")
    return everyone


def _named(bundles: Sequence[Bundle]) -> dict[str, Bundle]:
    """By the name on the card; by version where two share one."""
    names = [str(b.card.get("name", b.version)) for b in bundles]
    return {n if names.count(n) == 1 else f"{n} {b.version}": b for n, b in zip(names, bundles, strict=True)}


def _numbers(support: Support) -> dict[str, float]:
    """Support as plain numbers: `ess` of the whole journey's weights, `decisions` that they can follow."""
    return {
        "unsupported": support.unsupported,
        "ess": float(support.ess.min()),
        "decisions": float(support.decisions),
        "largest": support.largest,
        "mean": support.mean,
    }
