from dataclasses import replace

import numpy as np
import pytest

from engine.records import HOLD, Bools, EventColumns, Floats32
from envs.draws import Draws
from envs.ensemble import EnsembleOutcomeModel
from envs.laws import chance
from envs.networks import Networks
from envs.outcomes import Latent, Turn
from tests.envs.tiny import TinyWorld, tiny_replay, tiny_spec
from tests.training.played import play
from training import regressions
from training.evidence import Evidence, evidence_of, turns
from training.fit import fit_outcome_model
from training.innovations import innovations_of
from training.journeys import Journeys
from training.members import OutcomeSettings
from training.regressions import polished

SPEC = tiny_spec()
ORDER = [kind.name for kind in SPEC.kinds].index("order")
OFTEN = SPEC.encoder.names.index("event:visit@1d")
CONTACTS = SPEC.encoder.names.index("contact@7d")
QUICK = OutcomeSettings(members=2, hidden=8, least_steps=20, most_steps=60, penalty=8.0)
TIRING = -0.15


class Tiring(TinyWorld):
    """Keen customers visit and order more, which nothing says but their visits; each contact of late takes 0.15 off the
    log-odds of an order.
    """

    def outcomes(self, latent: Latent, turn: Turn, draws: Draws) -> EventColumns:
        keen = np.asarray(latent["keen"], np.float64) < 0.5
        u, place = draws.uniform(2), draws.uniform(2)
        tired = TIRING * np.expm1(turn.observation[:, CONTACTS])
        order = chance(np.where(keen, -0.5, -3.0) + tired)
        row, what = np.nonzero(np.stack([u[:, 0] < np.where(keen, 0.8, 0.1), u[:, 1] < order], axis=1))
        kind = np.where(what == 0, self.index["visit"], ORDER)
        at = turn.now[row] + (0.01 + 0.98 * place[row, what]) * (turn.until - turn.now)[row]
        none = np.full(len(row), -1)
        return EventColumns(row, kind, at, np.where(what == 0, 10.0, 20.0), none, none)


class WhoVisited:
    """Contacts four in five of those who visited of late, one in five of the others."""

    version = "who visited"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        contact = np.where(observation[:, OFTEN] > 0.3, 0.8, 0.2)[:, None]
        others = mask.copy()
        others[:, HOLD] = False
        chances = contact * others / others.sum(axis=1, keepdims=True)
        chances[:, HOLD] = 1.0 - contact[:, 0]
        return np.asarray(chances, np.float32)


@pytest.fixture(scope="module")
def targeted() -> Journeys:
    replay = tiny_replay(SPEC, 2_500, longest=20, shortest=20)
    return play(SPEC, Tiring(SPEC), replay, 0, WhoVisited())


@pytest.fixture(scope="module")
def ignorant(targeted: Journeys) -> EnsembleOutcomeModel:
    """All it says is how often things happen."""
    model = fit_outcome_model(SPEC, targeted, targeted, QUICK)
    *hidden, last = model.outcome.weights
    nothing = replace(model.outcome, links=np.zeros_like(model.outcome.links), effects=None)
    networks = replace(nothing, weights=(*hidden, np.zeros_like(last)))
    return with_networks(model, polished(networks, evidence(model, targeted), model.streams))


def with_networks(model: EnsembleOutcomeModel, networks: Networks) -> EnsembleOutcomeModel:
    return EnsembleOutcomeModel(SPEC, model.streams, model.evolutions, model.inputs, networks, model.context)


def evidence(model: EnsembleOutcomeModel, log: Journeys) -> Evidence:
    return evidence_of(SPEC, log, turns(SPEC, log), model.inputs, list(model.streams))


def stream_of(model: EnsembleOutcomeModel, kind: int) -> int:
    return next(s for s, law in enumerate(model.streams) if law.kind == kind)


def test_members_that_disagree_say_the_logs_share_together(targeted: Journeys, ignorant: EnsembleOutcomeModel) -> None:
    """With the mean of their scores right, orders come a tenth too often where members are 1.5 apart."""
    biases = ignorant.outcome.biases[-1].copy()
    biases[:, stream_of(ignorant, ORDER)] += [-0.75, 0.75]
    apart = replace(ignorant.outcome, biases=(*ignorant.outcome.biases[:-1], biases))
    turn, found = turns(SPEC, targeted), evidence(ignorant, targeted)
    told, share = found.told[:, : ignorant.layout.told], (targeted.counts[:, ORDER] > 0).mean()
    means = [
        with_networks(ignorant, networks).probabilities(turn, told)[:, ORDER].mean()
        for networks in (apart, polished(apart, found, ignorant.streams))
    ]
    assert means[0] > 1.08 * share
    assert means[1] == pytest.approx(share, rel=0.005)


def test_what_contacts_do_is_not_who_was_contacted(targeted: Journeys, ignorant: EnsembleOutcomeModel) -> None:
    """Who has a history of contacts is keen, and orders more; what the contacts did is told by their luck."""
    order, found = stream_of(ignorant, ORDER), evidence(ignorant, targeted)
    luck = innovations_of(SPEC, targeted, WhoVisited(), ignorant.inputs.attributes)
    misled = replace(luck, surprise=luck.counts)
    effects = []
    for told in (misled, luck):
        carryover = polished(ignorant.outcome, found, ignorant.streams, told).carryover
        assert carryover is not None
        effects.append(float(carryover.effect[:, order].sum()))
    assert effects[0] > 0.0
    assert effects[1] == pytest.approx(TIRING, abs=0.06)


def test_equations_far_from_the_level_are_solved(targeted: Journeys, ignorant: EnsembleOutcomeModel) -> None:
    """Instrumental equations are not the slopes of anything: once a step counted as too far that was just right."""
    order, found = stream_of(ignorant, ORDER), evidence(ignorant, targeted)
    luck = innovations_of(SPEC, targeted, WhoVisited(), ignorant.inputs.attributes)
    biases = ignorant.outcome.biases[-1].copy()
    biases[:, order] += 0.5
    off = replace(ignorant.outcome, biases=(*ignorant.outcome.biases[:-1], biases))
    one, two = (polished(networks, found, ignorant.streams, luck) for networks in (ignorant.outcome, off))
    assert one.carryover is not None
    assert two.carryover is not None
    np.testing.assert_allclose(two.carryover.effect[:, order], one.carryover.effect[:, order], atol=0.01)
    np.testing.assert_allclose(two.biases[-1][:, order], one.biases[-1][:, order], atol=0.02)


def test_an_action_is_not_who_gets_it(targeted: Journeys, ignorant: EnsembleOutcomeModel) -> None:
    """A contact does nothing at once to orders, but the keen get more of them."""
    order, found = stream_of(ignorant, ORDER), evidence(ignorant, targeted)
    luck = innovations_of(SPEC, targeted, WhoVisited(), ignorant.inputs.attributes)
    gains = []
    for told in (None, luck):
        networks = polished(ignorant.outcome, found, ignorant.streams, told)
        of_action = ignorant.inputs.attributes @ networks.links[0, ignorant.layout.told :, order]
        gains.append(float(of_action[1:].mean() - of_action[HOLD]))
    assert gains[0] > 0.4
    assert gains[1] == pytest.approx(0.0, abs=0.15)


def test_what_luck_cannot_settle_is_left(
    targeted: Journeys, ignorant: EnsembleOutcomeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regressions, "FURTHEST", 0.0)
    luck = innovations_of(SPEC, targeted, WhoVisited(), ignorant.inputs.attributes)
    found = evidence(ignorant, targeted)
    without, left = (polished(ignorant.outcome, found, ignorant.streams, told) for told in (None, luck))
    assert left.carryover is not None
    assert not left.carryover.effect.any()
    np.testing.assert_array_equal(left.links, without.links)


def test_without_luck_nothing_is_carried_over(targeted: Journeys, ignorant: EnsembleOutcomeModel) -> None:
    assert ignorant.outcome.carryover is None
    assert polished(ignorant.outcome, evidence(ignorant, targeted), ignorant.streams).carryover is None
