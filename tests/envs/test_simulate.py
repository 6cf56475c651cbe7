import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.clock import zone_id
from engine.errors import BundleError, LogError, TrainingError
from engine.records import DAY, HOLD, Bools, EventColumns, Floats, Floats32, Ints, Value
from envs.draws import Draws
from envs.retail import RetailWorld
from envs.simulate import by_asking, by_policy, gather, run, simulate, steps, value, write_log
from envs.simulated_log import Simulated
from training.journeys import Journeys
from training.logs import read_log

WORLD = RetailWorld()
SPEC = WORLD.spec


class Hold:
    version = "hold"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        chances = np.zeros(mask.shape, np.float32)
        chances[:, HOLD] = 1.0
        return chances


def simulated(seed: int = 1, customers: int = 40, days: int = 8, masks: bool = False) -> Simulated:
    replay = WORLD.replay(customers, days, seed)
    decide = by_policy(WORLD.logging_policy(), customers, seed)
    return simulate(WORLD, replay, decide, SPEC, seed, masks)


def test_the_same_seed_gives_the_same_log_and_another_one_another() -> None:
    one, again, other = simulated(), simulated(), simulated(seed=2)
    np.testing.assert_array_equal(one.action, again.action)
    np.testing.assert_array_equal(one.events.occurred_at, again.events.occurred_at)
    np.testing.assert_array_equal(one.propensity, again.propensity)
    assert len(other.events) != len(one.events)
    assert set(one.replay.customer_id).isdisjoint(other.replay.customer_id)


def test_a_customer_lives_the_same_life_in_company() -> None:
    few, many = simulated(customers=5), simulated(customers=40)
    for name in ("action", "decided_at", "reward", "propensity"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[many.journey < 5])
    np.testing.assert_array_equal(few.returns(SPEC), many.returns(SPEC)[:5])


def test_every_decision_is_there_until_the_customer_goes() -> None:
    log = simulated(customers=300)
    churned = np.zeros(300, bool)
    churned[log.events.row[log.events.kind == SPEC.fold.kind_index("churn")]] = True
    decisions = np.bincount(log.journey, minlength=300)
    assert (decisions[~churned] == log.replay.length[~churned]).all()
    assert (decisions[churned] <= log.replay.length[churned]).all()
    np.testing.assert_array_equal(log.decided_at, log.replay.decided_at[log.journey, log.index])
    assert (np.isnan(log.send_at) == (log.action == HOLD)).all()
    assert (log.send_at[log.action != HOLD] >= log.decided_at[log.action != HOLD]).all()


def test_returns_are_the_discounted_money_of_the_log() -> None:
    log = simulated(customers=60)
    worth = np.zeros(60)
    for journey in range(60):
        mine = np.flatnonzero(log.journey == journey)
        mine = mine[np.argsort(log.index[mine])]
        first = log.decided_at[mine[0]]
        for i in mine:
            until = log.replay.until[journey, log.index[i]]
            at = log.events.occurred_at
            inside = (log.events.row == journey) & (at > log.decided_at[i]) & (at <= until)
            events = log.events.take(inside)
            money = SPEC.reward.each[events.kind].sum() + (SPEC.reward.per_value[events.kind] * events.value).sum()
            money -= SPEC.catalogue.cost[log.action[i]]
            worth[journey] += money * 0.99 ** ((log.decided_at[i] - first) / DAY)
    np.testing.assert_allclose(log.returns(SPEC), worth, atol=1e-9)


def test_value_shares_luck_between_policies() -> None:
    hold, again = (value(WORLD, Hold(), 200, 6, seed=3) for _ in range(2))
    np.testing.assert_array_equal(hold, again)
    log = value(WORLD, WORLD.logging_policy(), 200, 6, seed=3)
    alone = value(WORLD, WORLD.logging_policy(), 200, 6, seed=4)
    assert np.corrcoef(hold, log)[0, 1] > 0.4
    assert abs(np.corrcoef(hold, alone)[0, 1]) < 0.25


def test_propensities_are_the_shares_in_which_actions_come_up() -> None:
    """Σ (1[action = a] − p(a)) over many decisions has mean 0 and variance Σ p (1 − p); seen through `hold`."""
    replay = WORLD.replay(400, 10, seed=6)
    chance: list[Floats] = []
    policy = WORLD.logging_policy()

    class Watched:
        version = policy.version

        def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
            found = policy.probabilities(observation, mask)
            chance.append(found[:, HOLD].astype(np.float64))
            return found

    log = simulate(WORLD, replay, by_policy(Watched(), 400, 6), SPEC, 6)
    p, held = np.concatenate(chance), log.action == HOLD
    assert abs((held - p).sum()) < 4.0 * np.sqrt((p * (1.0 - p)).sum())
    np.testing.assert_allclose(log.propensity[held], p[held], rtol=1e-6)


def test_asking_somebody_else_is_the_same_as_a_policy() -> None:
    """What goes out is all that a caller has: ids, contexts, times, zones. What comes back is played."""
    replay = WORLD.replay(20, 5, seed=7)
    asked: list[tuple[list[str], list[dict[str, Value]], Floats, list[str]]] = []
    state, draws = replay.initial.take(np.arange(20)), Draws.independent(7, 20, salt=7)
    place = {c: i for i, c in enumerate(replay.customer_id)}

    def ask(names: list[str], contexts: list[dict[str, Value]], now: Floats, zones: list[str]) -> Ints:
        asked.append((names, contexts, now, zones))
        rows, zone = np.array([place[c] for c in names]), np.array([zone_id(z) for z in zones])
        context = np.stack([SPEC.context.row(c) for c in contexts])
        mine = state.take(rows)
        observation = SPEC.encoder.observe(mine, context, now, zone)
        mask = SPEC.guardrails.mask(mine, context, now, zone)
        luck = draws.take(rows)
        action = (np.cumsum(policy.probabilities(observation, mask), axis=1) < luck.uniform(1)).sum(axis=1)
        draws.put(rows, luck)
        send_at = SPEC.catalogue.send_at_of(action, now, zone)
        SPEC.fold.add_contacts(state, rows, action, now, send_at)
        return np.asarray(action, np.int64)

    policy = WORLD.logging_policy()
    parts = []
    for step, propensity in steps(WORLD, replay, by_asking(ask, SPEC, replay), SPEC, 7):
        told = EventColumns(
            step.journey[step.events.row],
            step.events.kind,
            step.events.occurred_at,
            step.events.value,
            step.events.channel,
            step.events.content,
        )
        SPEC.fold.add_events(state, told)
        parts.append((step, propensity))
    log = gather(replay, parts)
    direct = simulate(WORLD, replay, by_policy(policy, 20, 7), SPEC, 7)
    np.testing.assert_array_equal(log.action, direct.action)
    np.testing.assert_array_equal(log.reward, direct.reward)
    assert np.isnan(log.propensity).all()
    assert set(asked[0][1][0]) == {f.name for f in SPEC.context.features}


def test_an_action_that_the_rules_forbid_is_refused() -> None:
    replay = WORLD.replay(5, 3, seed=1)
    agent = SPEC.catalogue.row("agent", "agent_call", "now")
    decide = by_asking(lambda names, *_: np.full(len(names), agent), SPEC, replay)
    with pytest.raises(TrainingError, match="agent_call"):
        simulate(WORLD, replay, decide, SPEC, 1)


def test_the_written_log_says_what_happened(tmp_path: Path) -> None:
    log = simulated(masks=True)
    write_log(tmp_path / "log", SPEC, log, "some-policy", {"world": "retail", "seed": 1})
    decisions = pq.read_table(tmp_path / "log" / "decisions.parquet").to_pylist()
    events = pq.read_table(tmp_path / "log" / "events.parquet").to_pylist()
    customers = pq.read_table(tmp_path / "log" / "customers.parquet").to_pylist()
    assert len(decisions) == len(log.action)
    assert len(events) == len(log.events) + len(log.replay.history)
    assert [c["customer_id"] for c in customers] == list(log.replay.customer_id)
    order = np.lexsort((log.index, log.journey))
    for row, i in zip(decisions, order, strict=True):
        action = SPEC.catalogue.actions[log.action[i]]
        assert (row["channel"], row["content"], row["timing"]) == (action.channel, action.content, action.timing)
        assert row["decided_at"].timestamp() == log.decided_at[i]
        assert (row["send_at"] is None) == action.is_hold
        assert row["propensity"] == log.propensity[i]
        assert row["policy"] == "some-policy"
        assert str(action) in row["eligible"]
        context = {f.name: row[f.name] for f in SPEC.context.features}
        assert context == SPEC.context.mapping(log.context[i])
    assert len({d["decision_id"] for d in decisions}) == len(decisions)
    assert all((e["value"] is None) == (SPEC.kinds[SPEC.fold.kind_index(e["kind"])].value is None) for e in events)
    assert all(e["channel"] for e in events if e["kind"] in ("open", "click", "unsubscribe", "consent_granted"))
    about = json.loads((tmp_path / "log" / "world.json").read_text())
    assert about == {"world": "retail", "seed": 1}
    assert (tmp_path / "log" / "nextbest.toml").read_text() == SPEC.text


def test_training_reads_back_the_very_journeys_that_were_simulated(tmp_path: Path) -> None:
    """Observations, masks and money: to the last bit, from the files alone."""
    replay = WORLD.replay(60, 28, seed=9)
    decide = by_policy(WORLD.logging_policy(), 60, 9)
    played = list(steps(WORLD, replay, decide, SPEC, 9))
    log = gather(replay, played)
    write_log(tmp_path / "log", SPEC, log, "p", {"world": "retail"})
    journeys = Journeys.of(SPEC, read_log(SPEC, tmp_path / "log"))
    order = np.lexsort((log.index, log.journey))
    seen = np.concatenate([step.turn.observation for step, _ in played])[order]
    masks = np.concatenate([step.mask for step, _ in played])[order]
    np.testing.assert_allclose(journeys.observation, seen, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(journeys.mask, masks)
    np.testing.assert_array_equal(journeys.action, log.action[order])
    np.testing.assert_allclose(journeys.returns(), log.returns(SPEC), atol=1e-9)


def test_the_folded_log_gives_the_states_of_the_simulation(tmp_path: Path) -> None:
    log = simulated(customers=30)
    write_log(tmp_path / "log", SPEC, log, "p", {"world": "retail"})
    table = pq.read_table(tmp_path / "log" / "events.parquet").to_pydict()
    place = {c: i for i, c in enumerate(log.replay.customer_id)}
    kinds, channels = [k.name for k in SPEC.kinds], [c.name for c in SPEC.catalogue.channels]
    contents = [c.id for c in SPEC.catalogue.contents]
    read = EventColumns(
        np.array([place[c] for c in table["customer_id"]]),
        np.array([kinds.index(k) for k in table["kind"]]),
        np.array([t.timestamp() for t in table["occurred_at"]]),
        np.array([v or 0.0 for v in table["value"]]),
        np.array([-1 if c is None else channels.index(c) for c in table["channel"]]),
        np.array([-1 if c is None else contents.index(c) for c in table["content"]]),
    )
    true, found = SPEC.fold.empty(30), SPEC.fold.empty(30)
    SPEC.fold.add_events(true, EventColumns.concat([log.replay.history, log.events]))
    SPEC.fold.add_events(found, read)
    np.testing.assert_allclose(found.decayed, true.decayed, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(found.consent, true.consent)
    np.testing.assert_allclose(found.last, true.last, atol=1e-6)


def test_eligible_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    write_log(tmp_path / "log", SPEC, simulated(), "p", {"world": "retail"})
    assert "eligible" not in pq.read_table(tmp_path / "log" / "decisions.parquet").column_names


def test_the_verb_writes_a_log_tells_where_and_can_do_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "log"
    run("retail", out, customers=30, days=5, seed=1)
    first = (out / "events.parquet").read_bytes()
    run("retail", out, customers=30, days=5, seed=1)
    assert (out / "events.parquet").read_bytes() == first
    said = capsys.readouterr().out.replace("\n", " ")
    assert "30 customers" in said
    assert "per customer" in said
    assert sorted(p.name for p in out.parent.iterdir()) == ["log"]


def test_nothing_of_yours_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("dear")
    with pytest.raises(LogError, match="no simulated log"):
        run("retail", tmp_path, customers=3, days=2, seed=1)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="cannot be written"):
        run("retail", tmp_path / "file" / "log", customers=3, days=2, seed=1)


def test_a_bundle_that_is_none_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        run("retail", tmp_path / "log", customers=3, days=2, seed=1, policy=tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []
