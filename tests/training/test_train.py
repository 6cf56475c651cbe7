import json
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.bundle import Bundle
from engine.errors import LogError, TrainingError
from engine.policy import Policy
from engine.records import HOLD
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from envs.vector_env import VectorJourneyEnv
from tests.training.small_log import SPEC, random_log, write
from training import ppo, rollout, start, train
from training.alike import Always
from training.certificate import Certificate, Progress, certificate
from training.clone import FitSettings, clone_behaviour
from training.constants import best_constant
from training.expected import ExpectedOutcomes, ExpectedRewards
from training.fit import fit_outcome_model
from training.greedy import GreedySettings, train_greedy
from training.journeys import Journeys, shares_of
from training.logs import read_log
from training.members import OutcomeSettings
from training.network import NetworkPolicy
from training.seeds import COURAGE, best_of, tries
from training.side_by_side import side_by_side
from training.threads import WORKERS
from training.tracking import Tracking
from training.trained import EARLIER, Trained

ATTRIBUTES = SPEC.attributes.encode(SPEC.catalogue)
FAST = FitSettings(epochs=2, batch=64)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log without propensities and with nothing in it that the quality report calls an error."""
    frames = random_log(0, customers=60, decisions=600, events=1500)
    frames["decisions"] = frames["decisions"].drop(columns="propensity").replace({"timing": {"evening": "now"}})
    frames["events"] = frames["events"].drop(columns="decision_id")
    return write(frames, tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="module")
def journeys(folder: Path) -> tuple[Journeys, Journeys, Journeys]:
    return Journeys.of(SPEC, read_log(SPEC, folder)).split(0)


@pytest.fixture(scope="module")
def model(journeys: tuple[Journeys, Journeys, Journeys]) -> EnsembleOutcomeModel:
    return fit_outcome_model(SPEC, journeys[0], journeys[1], OutcomeSettings(members=2, hidden=8, epochs=2))


def test_the_clone_learns_what_the_log_did(journeys: tuple[Journeys, Journeys, Journeys]) -> None:
    settings = FitSettings(epochs=25, batch=64, patience=5)
    fitted = clone_behaviour(SPEC, journeys[0], journeys[1], settings)
    uniform = np.log(journeys[1].mask.sum(1)).mean()
    assert min(fitted.valid_loss) < fitted.valid_loss[0]
    assert min(fitted.valid_loss) < uniform
    assert fitted.network.epsilon > 0  # calibrated: an estimate of propensities needs a floor
    assert (fitted.network.known == 1).all()
    shares = NetworkPolicy(fitted.network, ATTRIBUTES).probabilities(journeys[0].observation, journeys[0].mask)
    assert abs(shares[:, HOLD].mean() - (journeys[0].action == HOLD).mean()) < 0.1


def test_greedy_takes_what_earned_most_at_once(journeys: tuple[Journeys, Journeys, Journeys]) -> None:
    row = SPEC.catalogue.row("email", "tips", "now")
    paid = [_paid(part, row) for part in journeys[:2]]
    clone = clone_behaviour(SPEC, journeys[0], journeys[1], FAST).network
    longer = FitSettings(epochs=60, batch=64, patience=20)
    fitted = train_greedy(SPEC, (paid[0], paid[1]), clone, GreedySettings(reward=longer, policy=longer))
    chances = NetworkPolicy(fitted.network, ATTRIBUTES).probabilities(paid[1].observation, paid[1].mask)
    allowed = paid[1].mask[:, row]
    assert allowed.sum() > 10
    assert chances[allowed, row].mean() > 0.6


def test_mean_rewards_have_the_mean_of_the_drawn_ones(
    journeys: tuple[Journeys, Journeys, Journeys], model: EnsembleOutcomeModel
) -> None:
    outcomes = ExpectedOutcomes(model)
    env = ExpectedRewards(VectorJourneyEnv(SPEC, outcomes, journeys[0].replay(), 400, 0), outcomes, 1.0)
    plain = VectorJourneyEnv(SPEC, model, journeys[0].replay(), 400, 0)
    mean: list[np.ndarray] = []
    drawn: list[np.ndarray] = []
    for it, found in ((env, mean), (plain, drawn)):
        it.reset()
        for _ in range(10):
            it.step_async(np.zeros(400, np.int64))
            found.append(it.step_wait()[1])
    means, draws = np.concatenate(mean), np.concatenate(drawn)
    error = draws.std() / np.sqrt(len(draws))
    assert abs(means.mean() - draws.mean()) < 4 * error
    assert means.std() < 0.7 * draws.std()


def test_ppo_learns_is_reproducible_and_keeps_its_best(
    journeys: tuple[Journeys, Journeys, Journeys], model: EnsembleOutcomeModel
) -> None:
    clone = clone_behaviour(SPEC, journeys[0], journeys[1], FAST).network
    settings = ppo.PpoSettings(steps=600, customers=32, rollout=4, batch=64, passes=2, judge_every=2, judged=20)
    first, again = (ppo.train_ppo(SPEC, model, journeys[:2], clone, settings) for _ in range(2))
    assert first.valid_value == again.valid_value == max(first.curve.valid_value)
    assert first.curve.judged_steps[0] == 0
    assert first.network.epsilon == settings.epsilon
    assert (first.network.known == 1).all()
    assert first.curve.divergence[-1] > 0


def test_of_several_trainings_the_validation_customers_keep_one(
    journeys: tuple[Journeys, Journeys, Journeys], model: EnsembleOutcomeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processes of their own they learn what they learn one after the other."""
    clone = clone_behaviour(SPEC, journeys[0], journeys[1], FAST).network
    settings = ppo.PpoSettings(steps=300, customers=32, rollout=4, batch=64, passes=1, judge_every=2, judged=10)
    asked = tries(settings, 2)
    jobs = {str(own.seed): partial(ppo.train_ppo, SPEC, model, journeys[:2], clone, own) for own in asked}
    monkeypatch.setenv(WORKERS, "2")
    learned = {one.name: one.result for one in side_by_side(jobs, lambda done, total: None)}
    trainings = [(own, learned[str(own.seed)]) for own in asked]
    found = best_of(SPEC, model, journeys[1], clone, trainings)
    assert found.gains.shape == (2, model.members)
    assert np.isfinite(found.certain).all()
    assert np.isnan(found.together).all()  # too few customers to judge anybody, so the members speak
    best = int(found.certain.argmax())
    assert (found.settings.seed, found.settings.closeness) == (best, settings.closeness * COURAGE[best])
    own = ppo.train_ppo(SPEC, model, journeys[:2], clone, found.settings)
    assert own.curve == found.learned.curve
    weights = own.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in found.learned.network.state_dict().items())


def test_closeness_holds_ppo_near_the_clone(
    journeys: tuple[Journeys, Journeys, Journeys], model: EnsembleOutcomeModel
) -> None:
    clone = clone_behaviour(SPEC, journeys[0], journeys[1], FAST).network
    small = {"steps": 2000, "customers": 32, "rollout": 8, "batch": 64, "judge_every": 50, "judged": 5}
    free, held = (
        ppo.train_ppo(SPEC, model, journeys[:2], clone, ppo.PpoSettings(**small, learning_rate=3e-3, closeness=weight))
        for weight in (0.0, 30.0)
    )
    assert held.curve.divergence[-1] < 0.5 * free.curve.divergence[-1]


def test_the_critic_learns_alone_first(
    journeys: tuple[Journeys, Journeys, Journeys], model: EnsembleOutcomeModel
) -> None:
    """KL(π ‖ clone) is measured before each update: after two of the critic's there is none."""
    clone = clone_behaviour(SPEC, journeys[0], journeys[1], FAST).network
    small = {"steps": 12 * 32 * 8, "customers": 32, "rollout": 8, "batch": 64, "judge_every": 50, "judged": 5}
    at_once, warm = (
        ppo.train_ppo(SPEC, model, journeys[:2], clone, ppo.PpoSettings(**small, forget=0.0, warm_up=rollouts))
        for rollouts in (0, 2)
    )
    assert at_once.curve.divergence[1] > 1e-4
    assert max(warm.curve.divergence[:3]) < 1e-6
    assert warm.curve.divergence[-1] > 1e-4


def test_a_journey_of_one_decision_has_no_future(journeys: tuple[Journeys, Journeys, Journeys]) -> None:
    assert ppo.gamma_of(SPEC, journeys[0].take(np.arange(3))) < 1.0
    one = _one_step(journeys[0])
    assert ppo.gamma_of(SPEC, one) == 0.0


def test_nobody_plans_further_than_a_journey_is_long(journeys: tuple[Journeys, Journeys, Journeys]) -> None:
    """0.99 a day looks a hundred days ahead; who saw a week of it bootstraps from what no journey reached."""
    typical = float(np.median(np.bincount(journeys[0].customer)[journeys[0].customer]))
    assert ppo.gamma_of(SPEC, journeys[0]) == pytest.approx(1 - 1 / typical)
    assert ppo.gamma_of(_discounted(0.5), journeys[0]) < 1 - 1 / typical
    assert ppo.gamma_of(_discounted(1.0), journeys[0]) == 1.0


def _discounted(per_day: float) -> Spec:
    return replace(SPEC, reward=replace(SPEC.reward, discount_per_day=per_day))


def test_the_best_constant_is_one_that_the_log_tried(
    journeys: tuple[Journeys, Journeys, Journeys], model: EnsembleOutcomeModel
) -> None:
    clone = clone_behaviour(SPEC, journeys[0], journeys[1], FAST).network
    found = best_constant(SPEC, model, journeys[1], clone, seed=0)
    row = found.row
    assert row in set(journeys[1].action) - {HOLD}
    replay = journeys[1].replay()
    # All constants side by side, one journey's luck each: the value is that of the policy that always does it.
    values = rollout.constant_values(SPEC, model, replay, np.array([row]), seed=0)
    assert values[0] == pytest.approx(rollout.returns(SPEC, model, replay, Always(row), 0).mean())
    assert np.isfinite(found.score).all()
    assert list(found.logged) == [None] * len(found.rows)  # too few customers to judge anybody


def failing(
    spec: Spec, model: EnsembleOutcomeModel, test: Journeys, clone: Policy, seed: int, progress: Progress
) -> Certificate:
    found = certificate(spec, model, test, clone, seed, progress)
    return replace(found, checks=(replace(found.checks[0], strain=1.5), *found.checks[1:]))


def test_a_failed_certificate_refuses_unless_allowed_and_nothing_is_registered(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nextbest.toml").write_text(SPEC.text)
    monkeypatch.setattr("training.certified.certificate", failing)
    with pytest.raises(TrainingError, match="failed its certificate"):
        train.run(tmp_path / "nextbest.toml", str(folder), wishes=train.Wishes(steps=2048))
    tracking = Tracking(tmp_path / "mlruns")
    assert tracking.client.search_runs(["1"])[0].info.status == "FAILED"
    run_id = start.run(None, None, None, {"allow_uncertified": True}, resume=start.LATEST)
    assert tracking.latest() == run_id
    found = {c.name: Bundle.load(c.bundle) for c in tracking.candidates(run_id)}
    assert {"behaviour_cloning", "ppo", "fitted_q", "offline_dqn", "greedy", "hold", "uniform"} <= set(found)
    assert all(b.card["parity"] < 1e-5 for b in found.values())
    record = tracking.record(run_id)
    assert record.data.tags["propensities"] == "estimated"
    assert record.data.params["seed"] == "0"
    trained = Trained.of(tracking, run_id)
    whole = Journeys.of(SPEC, read_log(SPEC, trained.log))
    assert trained.shares == shares_of(len(whole.customer_ids))
    assert trained.held_out().customer_ids == whole.split(0)[2].customer_ids
    earlier = replace(trained, shares=tuple(json.loads(EARLIER))).held_out()
    assert earlier.customer_ids == whole.split(0, (0.6, 0.2, 0.2))[2].customer_ids
    model = Trained.of(tracking, run_id).model()
    assert isinstance(model, EnsembleOutcomeModel)
    assert model.outcome.carryover is not None  # it was fitted with what the clone says was luck
    assert tracking.artifact(run_id, "plots/calibration.png").exists()
    told = capsys.readouterr().out
    _said_to_be_uncertified(tracking, run_id, told)
    assert "100% of the decisions have no propensity" in told
    assert "nextbest evaluate" in told


def test_a_log_with_an_error_in_it_stops_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = random_log(1)
    frames["decisions"] = frames["decisions"].iloc[:0]
    source = write(frames, tmp_path / "log")
    (tmp_path / "nextbest.toml").write_text(SPEC.text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LogError):
        train.run(tmp_path / "nextbest.toml", str(source), wishes=train.Wishes(steps=2048))
    assert not (tmp_path / "mlruns").exists()


def _said_to_be_uncertified(tracking: Tracking, run_id: str, told: str) -> None:
    """Everywhere a bundle of this training is shown."""
    assert "UNCERTIFIED environment" in told
    record = tracking.record(run_id)
    assert record.data.tags["certificate"] == "failed"
    assert "**Uncertified environment**: failed" in record.data.tags["mlflow.note.content"]
    assert "| `checks_failed` |" in record.data.tags["mlflow.note.content"]
    for child in tracking.candidates(run_id):
        bundle, tags = Bundle.load(child.bundle), tracking.record(child.run_id).data.tags
        assert bundle.caution.startswith("Uncertified: the environment of its training failed ")
        assert tags["certificate"] == "failed"
        assert bundle.caution in tags["mlflow.note.content"]
        assert bundle.card["certificate"]["customers"] > 0
    page = tracking.artifact(run_id, "environment/certificate.md").read_text("utf-8")
    assert "**failed" in page.partition("\n")[0]
    for name in ("environment/certificate.json", "plots/events_over_the_journey.png"):
        assert tracking.artifact(run_id, name).exists()


def _paid(part: Journeys, row: int) -> Journeys:
    """The same journeys, where one action earns much more at once than all others."""
    return replace(part, reward=np.where(part.action == row, 10.0, 0.0) + 0.01 * part.reward)


def _one_step(part: Journeys) -> Journeys:
    """Only each customer's first decision."""
    first = part.step == 0
    names = {f.name for f in fields(part)} & {"customer", "step", "decided_at"}
    return replace(part, **{name: getattr(part, name)[first] for name in names})
