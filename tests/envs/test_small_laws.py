"""What each small world exists for, from its formulas and from the logs that come out of it."""

import numpy as np
import pytest

from engine.records import DAY, HOLD, Floats, Ints
from envs.simulate import by_asking, by_policy, simulate, value
from envs.simulated_log import Simulated
from envs.small import confounded, drift, new_content
from envs.small.solve import Problem
from envs.small.world import START, SmallWorld
from tests.envs.small_worlds import agrees, logged, small

DISCOUNT = 0.99 ** np.arange(28)


def row(place: SmallWorld, channel: str, content: str) -> int:
    return place.spec.catalogue.row(channel, content, "now")


def mean_reward(log: Simulated, actions: int) -> Floats:
    """[n], the mean reward until the next decision of those who got each action."""
    return np.bincount(log.action, log.reward, actions) / np.bincount(log.action, minlength=actions)


def test_fatigue_greedy_loses_to_patience_by_the_computed_gap() -> None:
    """Greedy writes every day: its value is a geometric sum. Patience wins more than what is between them."""
    place = small("fatigue")
    problem = Problem.of(place, 28)
    readiness = np.r_[1.0, np.full(27, 1.0 / 7.0)]
    by_hand = (30.0 * (0.02 + 0.09) * readiness - 0.5 * (0.05 + 0.02)) @ DISCOUNT
    assert problem.value(problem.greedy()) == pytest.approx(by_hand, abs=1e-9)
    hold = problem.value(problem.constant(HOLD))
    assert hold == pytest.approx(0.02 * 30.0 * DISCOUNT.sum(), abs=1e-9)
    assert by_hand < hold < problem.value(problem.optimum())
    gap = problem.value(problem.optimum()) - by_hand
    assert gap > 0.4 * by_hand
    n = 3000
    measured = value(place, problem.optimum(), n, 28, 12) - value(place, problem.greedy(), n, 28, 12)
    assert agrees(measured, gap)


def test_fatigue_whoever_looks_one_day_ahead_writes_every_day() -> None:
    place = small("fatigue")
    log = logged(place, 300, 2, policy=Problem.of(place, 28).greedy())
    assert (log.action != HOLD).all()
    patient = logged(place, 300, 2, policy=Problem.of(place, 28).optimum())
    assert 0.1 < (patient.action != HOLD).mean() < 0.3


def test_null_every_contact_loses_exactly_its_cost() -> None:
    """Customer by customer: the same orders, whatever was done."""
    place = small("null")
    problem = Problem.of(place, 28)
    assert (problem.optimum().table.argmax(axis=2) == HOLD).all()
    held = logged(place, 300, 7, policy=problem.constant(HOLD))
    busy = logged(place, 300, 7, policy=problem.evenly())
    np.testing.assert_array_equal(busy.events.occurred_at, held.events.occurred_at)
    spent = place.spec.catalogue.cost[busy.action] * DISCOUNT[busy.index]
    lost = held.returns(place.spec) - busy.returns(place.spec)
    np.testing.assert_allclose(lost, np.bincount(busy.journey, spent), atol=1e-9)
    assert (place.spec.catalogue.cost[1:] > 0.0).all()


def test_null_the_log_looks_as_if_contacts_worked() -> None:
    """Those who buy more are written to more: naively a contact seems to bring 0.3 EUR and more."""
    place = small("null")
    log = logged(place, 4000, 3)
    naive = mean_reward(log, len(place.spec.catalogue))
    assert (naive[1:] > naive[HOLD]).all()


def test_confounded_naive_means_name_the_wrong_action_and_weighting_the_right_one() -> None:
    place = small("confounded")
    n = len(place.spec.catalogue)
    log = logged(place, 4000, 9)
    voucher, advice = row(place, "email", "voucher"), row(place, "email", "advice")
    truth = np.array(confounded.SHARES) @ place.law.chance[0, 0] * 20.0 - place.spec.catalogue.cost
    assert truth.argmax() == advice
    assert truth.argmin() == voucher
    assert mean_reward(log, n).argmax() == voucher
    assert mean_reward(log, n)[voucher] > 2.0 * mean_reward(log, n)[advice]
    for action in range(n):
        weighted = np.where(log.action == action, log.reward / log.propensity, 0.0)
        by_customer = np.bincount(log.journey, weighted) / 28.0
        assert agrees(by_customer, truth[action]), action
    weighted_means = [np.where(log.action == a, log.reward / log.propensity, 0.0).mean() for a in range(n)]
    assert int(np.argmax(weighted_means)) == advice


def test_delayed_the_next_day_ranks_the_causing_content_last() -> None:
    place = small("delayed")
    log = logged(place, 6000, 4)
    naive = mean_reward(log, len(place.spec.catalogue))
    flash = row(place, "email", "flash_sale")
    guides = [row(place, "email", "guide"), row(place, "push", "guide")]
    assert naive[guides].max() < naive[HOLD] < naive[flash]
    problem = Problem.of(place, 28)
    always = [problem.value(problem.constant(action)) for action in range(len(place.spec.catalogue))]
    assert min(always[guide] for guide in guides) > always[flash] > always[HOLD]
    assert (problem.greedy().table.argmax(axis=2) == flash).all()


def test_delayed_the_optimum_is_a_guide_until_it_would_come_too_late() -> None:
    place = small("delayed")
    best = Problem.of(place, 28).optimum().table.argmax(axis=2)
    guides = np.array([row(place, "email", "guide"), row(place, "push", "guide")])
    assert (best[:21] == guides).all()
    assert (best[21:] == row(place, "email", "flash_sale")).all()


def test_who_is_best_while_customers_stay_does_not_spend_the_last_days() -> None:
    """In `delayed` he writes guides to the end, in `fatigue` he lets customers rest to the end; both cost him a part of
    what is counted. Where nothing follows a decision he is the optimum.
    """
    for name, share in (("delayed", 0.89), ("fatigue", 0.80), ("rare", 1.0)):
        problem = Problem.of(small(name), 28)
        logging, steady, best = map(problem.value, (small(name).logging_policy(), problem.steady(), problem.optimum()))
        assert (steady - logging) / (best - logging) == pytest.approx(share, abs=0.01)
        assert len(problem.steady().table) == 28
        longer = Problem.of(small(name), 60)
        assert longer.value(problem.steady()) == pytest.approx(longer.value(longer.steady()))
    place = small("delayed")
    guides = np.array([row(place, "email", "guide"), row(place, "push", "guide")])
    assert (Problem.of(place, 28).steady().table.argmax(axis=2) == guides).all()


def test_delayed_orders_come_a_week_after_their_guide() -> None:
    """One guide on the first day, the same luck: orders are lost on that day, won on the eighth."""
    place = small("delayed")
    n, replay = 4000, small("delayed").replay(4000, 12, 5)
    guide, asked = row(place, "push", "guide"), [0]

    def on_the_first_day(names: list[str], *_: object) -> Ints:
        asked[0] += 1
        return np.full(len(names), guide if asked[0] == 1 else HOLD)

    held = logged(place, n, 5, days=12, policy=Problem.of(place, 12).constant(HOLD)).events
    guided = simulate(place, replay, by_asking(on_the_first_day, place.spec, replay), place.spec, 5).events
    days = [np.ceil((events.occurred_at - START) / DAY).astype(int) for events in (held, guided)]
    more = np.subtract(*[np.bincount(day, minlength=13)[1:] for day in reversed(days)])
    assert more[0] < 0
    assert more[7] > 150
    assert (np.delete(more, [0, 7]) == 0).all()


def test_rare_two_decisions_in_a_thousand_convert() -> None:
    place = small("rare")
    log = logged(place, 4000, 6)
    orders, decisions = len(log.events), len(log.action)
    assert abs(orders - 0.002 * decisions) < 3.0 * np.sqrt(0.002 * decisions)
    logging = place.logging_policy().on(place.calendar(1), place.eligible(1))[0]
    np.testing.assert_allclose((logging * place.law.chance[0, 0]).sum(axis=1), 0.002)


def test_drift_the_best_action_changes_at_half_time() -> None:
    place = small("drift")
    best = Problem.of(place, 28).optimum().table.argmax(axis=2)
    assert (best[:14] == [row(place, "email", "coats"), row(place, "push", "coats")]).all()
    assert (best[14:] == [row(place, "email", "shirts"), row(place, "push", "shirts")]).all()
    assert place.law.era(np.array([drift.CHANGE - 1.0, drift.CHANGE])).tolist() == [0, 1]
    log = logged(place, 6000, 2)
    halves = [mean_reward(half, len(place.spec.catalogue)) for half in split_at(log, drift.CHANGE)]
    coats, shirts = row(place, "email", "coats"), row(place, "email", "shirts")
    assert halves[0][coats] > halves[0][HOLD] > halves[0][shirts]
    assert halves[1][shirts] > halves[1][HOLD] > halves[1][coats]


def split_at(log: Simulated, instant: float) -> tuple[Simulated, Simulated]:
    """The decisions before an instant and those from it on."""
    columns = ("journey", "index", "action", "decided_at", "send_at", "propensity", "reward", "context")
    early, late = (
        Simulated(log.replay, **{name: getattr(log, name)[which] for name in columns}, mask=None, events=log.events)
        for which in (log.decided_at < instant, log.decided_at >= instant)
    )
    return early, late


def test_drift_what_the_first_half_teaches_loses_to_hold_in_the_second() -> None:
    place = small("drift")
    late = Problem.of(place, 14, START + 14 * DAY)
    stale = place.plan("stale", Problem.of(place, 14).optimum().table[:1])
    assert late.value(stale) < late.value(late.constant(HOLD)) < late.value(late.optimum())


def test_new_content_no_log_of_the_default_length_has_seen_it() -> None:
    place = small("new_content")
    fresh = [x.id for x in place.spec.catalogue.contents if x.valid_from is not None]
    assert len(fresh) == 3
    rows = [row(place, "email", content) for content in fresh]
    early = logged(place, 400, 3)
    assert early.mask is not None
    assert not early.mask[:, rows].any()
    crossing = logged(place, 400, 3, days=42)
    assert set(rows) <= set(crossing.action[crossing.index >= 28].tolist())
    assert not set(rows) & set(crossing.action[crossing.index < 28].tolist())
    replay = place.replay(400, 28, 3, new_content.APPEAR)
    late = simulate(place, replay, by_policy(place.logging_policy(), 400, 3), place.spec, 3, masks=True)
    assert late.mask is not None
    assert late.mask.all()


def test_new_content_what_the_log_has_seen_is_enough_to_tell_the_best_new_one() -> None:
    """Five numbers fitted to the old contents by their attributes predict the new ones exactly; identity does not."""
    place = small("new_content")
    catalogue, schema = place.spec.catalogue, place.spec.attributes
    columns = schema.encode(catalogue)
    known = [i for i in range(schema.size) if i < schema.identity.start]
    old = place.eligible(1)[0]
    for segment in (0, 1):
        truth = place.law.chance[0, 0, segment]
        fitted = np.linalg.lstsq(columns[old][:, known], truth[old], rcond=None)[0]
        np.testing.assert_allclose(columns[:, known] @ fitted, truth, atol=1e-6)
        assert not old[truth.argmax()]
    later = Problem.of(place, 28, START + 28 * DAY)
    knew = Problem.of(place, 28).optimum()
    assert later.value(later.optimum()) > 1.25 * later.value(knew)
