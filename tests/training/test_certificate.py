import copy
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

from engine.errors import TrainingError
from engine.records import HOLD, Bools, EventColumns, Floats32
from envs.draws import Draws
from envs.ensemble import EnsembleOutcomeModel
from envs.laws import BINS, log_odds
from envs.outcomes import Latent, Turn
from envs.replay import Replay
from tests.envs.tiny import TinyWorld, tiny_replay, tiny_spec
from tests.training.played import play
from training.certificate import Certificate, certificate
from training.certificate_page import page
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.members import OutcomeSettings

torch.set_num_threads(1)

SPEC = tiny_spec()
SETTINGS = OutcomeSettings(members=2, hidden=24)


class Uniform:
    """What `play` does, so a perfect behaviour clone."""

    version = "uniform"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        return np.asarray(mask / mask.sum(axis=1, keepdims=True), np.float32)


class TiringWorld(TinyWorld):
    """Every contact makes the next visits rarer: 0.8 e^(−0.35 contacts)."""

    def begin(self, replay: Replay, journey: np.ndarray, draws: Draws) -> Latent:
        return super().begin(replay, journey, draws) | {"contacts": np.zeros(len(journey))}

    def outcomes(self, latent: Latent, turn: Turn, draws: Draws) -> EventColumns:
        events = super().outcomes(latent, turn, draws)
        visits = 1.6 * np.exp(-0.35 * latent["contacts"].astype(float))
        kept = (events.kind != self.index["visit"]) | (draws.uniform(1)[events.row, 0] < visits[events.row] / 1.6)
        latent["contacts"] = latent["contacts"] + (turn.action != HOLD)
        return events.take(kept)


def journeys(customers: int, seed: int, world: type[TinyWorld] = TinyWorld) -> Journeys:
    return play(SPEC, world(SPEC), tiny_replay(SPEC, customers, seed=seed), seed)


@pytest.fixture(scope="module")
def model() -> EnsembleOutcomeModel:
    return fit_outcome_model(SPEC, journeys(1500, 0), journeys(400, 1), SETTINGS)


@pytest.fixture(scope="module")
def test() -> Journeys:
    return journeys(700, 2)


@pytest.fixture(scope="module")
def good(model: EnsembleOutcomeModel, test: Journeys) -> Certificate:
    return certificate(SPEC, model, test, Uniform(), seed=0)


def test_a_good_model_passes(good: Certificate, test: Journeys) -> None:
    assert good.passed, good.failures()
    groups = {"slope", "ece", "rate", "pace", "place", "amount", "value", "after", "lately", "two_sample", "probe"}
    assert {c.group for c in good.checks} == groups
    assert {c.outcome for c in good.calibrations} == {k.name for k in SPEC.kinds}
    by_name = {c.outcome: c for c in good.calibrations}
    assert by_name["open"].skill > 0.4
    assert by_name["visit"].skill == pytest.approx(0.0, abs=0.02)
    assert good.customers == good.followed == 700
    assert good.value.real == pytest.approx(test.returns().mean())
    assert abs(good.two_sample.auc - 0.5) < 0.08
    assert all(len(pace.parts) > 1 for pace in good.comparisons.paces)


def test_it_is_plain_json_and_fits_on_a_card(good: Certificate) -> None:
    told = json.loads(json.dumps(good.to_json(), allow_nan=False))
    assert told["passed"] is True
    assert len(told["calibrations"][0]["predicted"]) == 10
    card = json.loads(json.dumps(good.card(), allow_nan=False))
    assert card["passed"] is True
    assert card["failed"] == []
    assert list(card["values"]) == ["behaviour clone"]  # a state that our actions change: logged actions would not fit
    assert card["values"]["behaviour clone"][1] == pytest.approx(good.value.real, rel=1e-3)


def test_the_page_names_every_check(good: Certificate) -> None:
    text = page(good, "EUR per journey")
    assert all(f"| {check.name} |" in text for check in good.checks)


def test_the_same_seed_gives_the_same_certificate(model: EnsembleOutcomeModel) -> None:
    few = journeys(100, 3)
    assert certificate(SPEC, model, few, Uniform(), 1) == certificate(SPEC, model, few, Uniform(), 1)
    assert certificate(SPEC, model, few, Uniform(), 1) != certificate(SPEC, model, few, Uniform(), 2)


def test_progress_ends_where_it_says(model: EnsembleOutcomeModel) -> None:
    told: list[tuple[int, int]] = []
    certificate(SPEC, model, journeys(100, 3), Uniform(), 0, lambda *at: told.append(at))
    assert len(told) > 5
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]


def stream_of(model: EnsembleOutcomeModel, kind: str) -> int:
    return [SPEC.kinds[s.kind].name for s in model.streams].index(kind)


def _twice_as_often(model: EnsembleOutcomeModel) -> None:
    """Odds of a visit times e: 0.5 becomes 0.73."""
    model.outcome.biases[-1][:, stream_of(model, "visit")] += 1.0


def _too_early(model: EnsembleOutcomeModel) -> None:
    """Visits move to the first half of their window."""
    first = model.layout.part + stream_of(model, "visit") * BINS
    model.outcome.biases[-1][:, first : first + BINS // 2] += 2.0


def _too_dear(model: EnsembleOutcomeModel) -> None:
    """Orders of about 1.6 times the value."""
    place = int(np.searchsorted(model.layout.valued, stream_of(model, "order")))
    model.outcome.biases[-1][:, model.layout.value[0] + place] += 1.5


def _more_orders(model: EnsembleOutcomeModel) -> None:
    model.outcome.biases[-1][:, stream_of(model, "order")] += 1.0


@pytest.mark.parametrize(
    ("spoil", "checks"),
    [
        (_twice_as_often, {"rate:visit", "ece:visit"}),
        (_too_early, {"place:visit"}),
        (_too_dear, {"amount:order"}),
        (_more_orders, {"rate:order", "value:behaviour clone"}),
    ],
)
def test_a_model_that_is_wrong_fails_the_checks_made_for_it(
    model: EnsembleOutcomeModel, test: Journeys, spoil: Callable[[EnsembleOutcomeModel], None], checks: set[str]
) -> None:
    wrong = copy.deepcopy(model)
    spoil(wrong)
    wrong = EnsembleOutcomeModel(SPEC, wrong.streams, wrong.evolutions, wrong.inputs, wrong.outcome, wrong.context)
    verdict = certificate(SPEC, wrong, test, Uniform(), seed=0)
    assert not verdict.passed
    failed = {c.name for c in verdict.failures()} | {c.group for c in verdict.failures()}
    assert checks <= failed, [(c.name, round(c.strain, 2)) for c in verdict.checks]


def silence(model: EnsembleOutcomeModel, stream: int) -> None:
    """Nothing but its bias says any more whether a stream happens."""
    model.outcome.weights[-1][:, :, stream] = 0.0
    model.outcome.links[:, :, stream] = 0.0
    assert model.outcome.effects is not None
    query = model.outcome.effects.query
    query.reshape(*query.shape[:2], model.outcome.effects.streams, -1)[:, :, stream] = 0.0


def test_a_model_that_is_deaf_fails_the_probes(model: EnsembleOutcomeModel) -> None:
    """Orders as often as in the log, whatever is sent: only a change of policy shows it."""
    log, order = journeys(2000, 5), stream_of(model, "order")
    deaf = copy.deepcopy(model)
    silence(deaf, order)
    deaf.outcome.biases[-1][:, order] = log_odds((log.counts[:, SPEC.fold.kind_index("order")] > 0).mean())
    deaf = EnsembleOutcomeModel(SPEC, deaf.streams, deaf.evolutions, deaf.inputs, deaf.outcome, deaf.context)
    failed = {c.group for c in certificate(SPEC, deaf, log, Uniform(), seed=0).failures()}
    assert "probe" in failed
    assert not {"rate", "pace", "value", "amount"} & failed


def test_a_model_without_memory_fails_over_journey_time() -> None:
    """Visits as often as in the log on the whole, but at the same rate early and late."""
    log, later = journeys(1500, 10, TiringWorld), journeys(800, 12, TiringWorld)
    model = fit_outcome_model(SPEC, log, journeys(400, 11, TiringWorld), SETTINGS)
    assert certificate(SPEC, model, later, Uniform(), seed=0).passed
    visit = stream_of(model, "visit")
    rate = (later.counts[:, SPEC.fold.kind_index("visit")] > 0).mean()
    silence(model, visit)
    model.outcome.biases[-1][:, visit] = log_odds(np.array(rate))
    wrong = EnsembleOutcomeModel(SPEC, model.streams, model.evolutions, model.inputs, model.outcome, model.context)
    failed = {c.name for c in certificate(SPEC, wrong, later, Uniform(), seed=0).failures()}
    assert "pace:visit" in failed
    assert "rate:visit" not in failed


def test_no_customers_is_said(model: EnsembleOutcomeModel) -> None:
    with pytest.raises(TrainingError, match="no decisions"):
        certificate(SPEC, model, journeys(3, 0).take(np.zeros(0, np.int64)), Uniform(), 0)


def test_a_few_customers_are_judged_by_what_they_can_tell(model: EnsembleOutcomeModel) -> None:
    few = certificate(SPEC, model, journeys(6, 4), Uniform(), 0)
    assert few.passed
    assert few.probes == ()
    json.dumps(few.to_json(), allow_nan=False)
    json.dumps(few.card(), allow_nan=False)
    assert "None: the log cannot follow" in page(few, "EUR")
