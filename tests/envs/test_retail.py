"""Laws of the retail world: its windows, rules and consents; fatigue lasts, and information pays later."""

import numpy as np
import pytest

from engine.errors import SpecError, TrainingError
from engine.journey import WITHDRAWN
from engine.records import DAY, HOLD, EventColumns, Floats, Ints
from envs.batch import JourneyBatch
from envs.draws import Draws
from envs.outcomes import Latent, Turn
from envs.replay import Replay
from envs.retail import RetailWorld
from envs.simulate import by_policy, simulate
from envs.simulated_log import Simulated
from envs.worlds import world
from tests.envs.retail_play import SPEC, WORLD, Always, Evenly, count, play


@pytest.fixture(scope="module")
def logged() -> Simulated:
    return play(WORLD.logging_policy(), 400, 11)


def test_the_world_has_what_it_promises() -> None:
    catalogue = SPEC.catalogue
    assert {c.name for c in catalogue.channels} == {"email", "whatsapp", "sms", "push", "web", "ads", "agent"}
    assert [t.name for t in catalogue.timings] == ["now", "in_two_hours", "this_evening", "tomorrow_morning"]
    assert len(catalogue.contents) >= 20
    assert 100 <= len(catalogue) <= 140
    assert world("retail").spec.digest == SPEC.digest
    with pytest.raises(SpecError, match="retail"):
        world("retial")


def test_every_event_lies_in_its_window_and_nothing_follows_churn(logged: Simulated) -> None:
    order = np.lexsort((logged.index, logged.journey))
    journey, decided = logged.journey[order], logged.decided_at[order]
    until = logged.replay.until[journey, logged.index[order]]
    first = np.flatnonzero(np.r_[True, journey[1:] != journey[:-1]])
    last = np.r_[first[1:], len(journey)] - 1
    at, whose = logged.events.occurred_at, logged.events.row
    assert (at > decided[first][whose]).all()
    assert (at <= until[last][whose]).all()
    churn = logged.events.take(logged.events.kind == SPEC.fold.kind_index("churn"))
    assert len(churn)
    for row, end in zip(churn.row, churn.occurred_at, strict=True):
        assert at[whose == row].max() == end
        assert decided[last[row]] < end


def test_outcomes_stay_inside_the_window_of_the_step() -> None:
    replay = WORLD.replay(300, 10, seed=2)
    inside: list[bool] = []

    class Watched(RetailWorld):
        def outcomes(self, latent: Latent, turn: Turn, draws: Draws) -> EventColumns:
            events = super().outcomes(latent, turn, draws)
            at = events.occurred_at
            inside.append(bool(((at > turn.now[events.row]) & (at <= turn.until[events.row])).all()))
            return events

    simulate(Watched(), replay, by_policy(Evenly(), 300, 2), SPEC, 2)
    assert inside
    assert all(inside)


def test_rules_hold_in_every_decision(logged: Simulated) -> None:
    assert logged.mask is not None
    assert logged.mask[np.arange(len(logged.action)), logged.action].all()
    assert (logged.propensity > 0.0).all()
    assert (logged.propensity <= 1.0).all()


def test_nobody_hears_from_us_on_a_channel_they_have_left() -> None:
    log = play(Evenly(), 500, 4)
    assert count(log.events, "unsubscribe") > 20
    everything = EventColumns.concat([log.replay.history, log.events])
    leaves = everything.take(everything.kind == SPEC.fold.kind_index("unsubscribe"))
    left = np.full((500, len(SPEC.catalogue.channels)), np.inf)
    np.minimum.at(left, (leaves.row, leaves.channel), leaves.occurred_at)
    contact = log.action != HOLD
    channel = SPEC.catalogue.channel[log.action[contact]]
    assert (log.decided_at[contact] <= left[log.journey[contact], channel]).all()
    opt_in = np.array([c.consent == "opt_in" for c in SPEC.catalogue.channels])
    granted = np.zeros_like(left, bool)
    grants = everything.take(everything.kind == SPEC.fold.kind_index("consent_granted"))
    granted[grants.row, grants.channel] = True
    assert (granted[log.journey[contact], channel] | ~opt_in[channel]).all()
    assert (log.replay.initial.consent == WITHDRAWN).any()


def test_who_is_left_alone_answers_nothing_and_keeps_every_channel() -> None:
    log = play(Always(HOLD), 300, 5)
    for kind in ("open", "click", "redemption", "unsubscribe", "survey_answer"):
        assert count(log.events, kind) == 0, kind
    for kind in ("page_view", "product_view", "search", "add_to_cart", "order"):
        assert count(log.events, kind) > 0, kind


def test_the_logging_policy_gives_every_eligible_action_a_chance(logged: Simulated) -> None:
    assert logged.mask is not None
    replay = logged.replay
    observation = SPEC.encoder.observe(replay.initial, replay.context[:, 0], replay.decided_at[:, 0], replay.zone)
    mask = SPEC.guardrails.mask(replay.initial, replay.context[:, 0], replay.decided_at[:, 0], replay.zone)
    chances = WORLD.logging_policy().probabilities(observation, mask)
    assert (chances[mask] > 2e-4).all()
    assert (chances[~mask] == 0.0).all()
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, atol=1e-5)
    assert 0.6 < (logged.action == HOLD).mean() < 0.75


def test_the_basket_of_the_context_is_the_basket_of_the_events(logged: Simulated) -> None:
    basket = logged.context[:, SPEC.context.index["basket_value"]]
    assert (basket >= 0.0).all()
    assert 0.02 < (basket > 0.0).mean() < 0.6
    carts = EventColumns.concat([logged.replay.history, logged.events])
    carts = carts.take(carts.kind == SPEC.fold.kind_index("add_to_cart"))
    filled = np.full(len(logged.replay), np.inf)
    np.minimum.at(filled, carts.row, carts.occurred_at)
    assert (filled[logged.journey[basket > 0.0]] <= logged.decided_at[basket > 0.0]).all()


def test_a_replay_from_elsewhere_is_refused() -> None:
    replay = WORLD.replay(3, 2, seed=1)
    foreign = Replay(
        replay.customer_id,
        replay.zone,
        replay.length,
        replay.decided_at,
        replay.until,
        replay.context,
        replay.initial,
    )
    with pytest.raises(TrainingError, match="its customers"):
        WORLD.begin(foreign, np.array([0]), Draws.seeded(0, 1))
    with pytest.raises(TrainingError, match="at least one"):
        WORLD.replay(0, 5, seed=1)


def turn_of(replay: Replay, day: int, action: Ints) -> Turn:
    """A day's window that starts `day` days after each first decision, for the customers as they are there."""
    now = replay.decided_at[:, 0] + day * DAY
    return Turn(
        observation=np.zeros((len(replay), SPEC.encoder.size), np.float32),
        context=replay.context[:, 0],
        action=action,
        last_contact=np.zeros(len(replay), np.int64),
        now=now,
        send_at=SPEC.catalogue.send_at_of(action, now, replay.zone),
        until=now + DAY,
        zone=replay.zone,
    )


def test_fatigue_lasts() -> None:
    """Ten contacts in ten days, then five days of silence: the next contact is noticed less, and more people leave."""
    n = 1500
    replay, draws = WORLD.replay(n, 1, seed=8), Draws.independent(8, n)
    pressed, spared = (WORLD.begin(replay, np.arange(n), draws) for _ in range(2))
    email = SPEC.catalogue.row("email", "newsletter", "tomorrow_morning")
    survey = np.full(n, SPEC.catalogue.row("email", "survey", "now"))
    none = np.full(n, HOLD)
    for day in range(10):
        luck = draws.take(np.arange(n))
        WORLD.outcomes(pressed, turn_of(replay, day, np.full(n, email)), luck)
        WORLD.outcomes(spared, turn_of(replay, day, none), draws)
    gone, stay = 0, 0
    for day in range(10, 15):
        luck = draws.take(np.arange(n))
        gone += count(WORLD.outcomes(pressed, turn_of(replay, day, none), luck), "churn")
        stay += count(WORLD.outcomes(spared, turn_of(replay, day, none), draws), "churn")
    luck = draws.take(np.arange(n))
    then = turn_of(replay, 15, survey)
    tired, rested = WORLD.outcomes(pressed, then, luck), WORLD.outcomes(spared, then, draws)
    assert count(tired, "open") < 0.75 * count(rested, "open")
    assert gone > stay


def test_information_pays_later_and_discounts_at_once() -> None:
    """Margins from a single contact: a guide's come after the first day, a discount's on it."""
    n = 4000
    replay = WORLD.replay(n, 1, seed=9)
    explorers = replay.take(np.flatnonzero(replay.hidden["kind"] == 1))
    thrifty = replay.take(np.flatnonzero(replay.hidden["kind"] == 0))
    guide = lift(explorers, SPEC.catalogue.row("email", "buying_guide", "now"))
    discount = lift(thrifty, SPEC.catalogue.row("email", "discount_10", "now"))
    assert guide[1:].sum() > 4.0 * abs(guide[0])
    assert guide.sum() > 0.2
    assert discount[0] > 0.0
    assert discount[0] > discount[1:].sum()


def lift(replay: Replay, action: int) -> Floats:
    """What one contact on the first day adds to the reward of each of ten days, EUR per customer, same luck."""
    n = len(replay)
    draws = Draws.independent(1, n)
    added = np.zeros(10)
    latents = [WORLD.begin(replay, np.arange(n), draws) for _ in range(2)]
    for day in range(10):
        same = draws.take(np.arange(n))
        for sign, latent, stream in ((1.0, latents[0], same), (-1.0, latents[1], draws)):
            row = np.full(n, action if day == 0 and sign > 0 else HOLD)
            events = WORLD.outcomes(latent, turn_of(replay, day, row), stream)
            added[day] += sign * SPEC.reward.of_events(events, row).mean()
    return added


def test_a_logged_contact_whose_hour_had_passed_went_out_at_once() -> None:
    shop = world("retail")
    batch = JourneyBatch(shop.spec, shop, shop.replay(60, 2, 5), Draws.seeded(3, 60))
    batch.reset(journey=np.arange(60))
    evening = shop.spec.catalogue.row("email", "newsletter", "this_evening")
    planned = shop.spec.catalogue.send_at_of(np.full(60, evening), batch.now, batch.zone)
    assert np.isnan(planned).any()
    step = batch.step(np.full(60, evening), enforce=False)
    np.testing.assert_array_equal(step.turn.send_at, np.where(np.isnan(planned), step.turn.now, planned))
