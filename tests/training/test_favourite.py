"""Whoever is likeliest to be worth promoting has half of the error, and the error is never more than it may be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.policy import Policy
from envs.worlds import world
from tests.training.known_logs import logged
from tests.training.test_choice import Fixed
from training import evaluate as verb
from training.blend import WAY
from training.candidates import CLONE
from training.clone import FitSettings, clone_behaviour
from training.evaluation import ERROR
from training.favourite import Question, errors_of, liked, lower_end, shares_of, shares_of_choosing
from training.fit import fit_outcome_model
from training.intervals import Estimate, refused
from training.journeys import Journeys
from training.members import OutcomeSettings
from training.network import NetworkPolicy

PLACE = world("confounded")
NAMES = st.sets(st.sampled_from([CLONE, *WAY, "greedy", "constant", "hold", "uniform"]), min_size=1)


@given(NAMES, st.sampled_from(["ppo", "ppo_50", "hold", "nobody", None]))
def test_shares_of_the_error_never_add_up_to_more(names: set[str], favourite: str | None) -> None:
    """The way to PPO, asked in a fixed sequence from each end, spends what one candidate does."""
    shares = shares_of(names, favourite, 0.05)
    found = errors_of(shares)
    assert set(found) == names
    way = [name for name in names if name in WAY]
    others = [name for name in names if name not in (CLONE, *WAY)]
    assert len({found[name] for name in way}) <= 1
    sequences = way[:2]  # of one alone there is one
    assert sum(found[name] for name in (*sequences, *others)) <= 0.05 + 1e-12
    assert all(share > 0.0 for share in found.values())
    assert {name: share for name, share in shares.items() if name not in way} == {n: found[n] for n in names - {*way}}
    assert sum(shares[name] for name in (*way[:1], *others)) <= 0.05 + 1e-12
    if favourite in (*way, *others) and len(others) + bool(way) > 1:
        assert found[favourite] == pytest.approx(0.025 / (max(1, len(sequences)) if favourite in way else 1))
        seat = way if favourite in way else [favourite]
        rest = {
            name: found[name] * (max(1, len(sequences)) if name in way else 1) for name in names if name not in seat
        }
        assert len({round(share, 9) for name, share in rest.items() if name != CLONE}) == 1


def test_who_treats_all_alike_takes_nothing_from_those_who_choose() -> None:
    names = [CLONE, *WAY, "greedy", "fitted_q", "constant", "hold"]
    found = shares_of_choosing(names, ("hold", "greedy", "ppo"), 0.05)
    assert set(found) == set(names) - {"constant", "hold"}
    assert found["greedy"] == pytest.approx(0.025)
    assert found["ppo"] == found["ppo_25"] == found["fitted_q"] == pytest.approx(0.0125)


def test_a_great_promise_that_nobody_can_check_is_less_than_a_small_one_that_all_will_see() -> None:
    """Sixteen times as many customers tell an interval of a quarter: only these show the bold one's gain."""
    bold, careful = (Estimate(6.0, 1.0, 11.0, 500.0, "DR"), 6.0), (Estimate(3.0, 2.0, 4.0, 500.0, "DR"), 3.0)
    few, many = ([lower_end(value, gain, fewer) for gain, value in (bold, careful)] for fewer in (1.0, 1 / 16))
    assert few == pytest.approx([1.0, 2.0])
    assert many == pytest.approx([4.75, 2.75])
    assert lower_end(6.0, refused("DR", 2.0, "nobody was treated like that"), 1.0) == -np.inf


@pytest.fixture(scope="module")
def parts() -> tuple[Journeys, Journeys]:
    train, valid = logged(PLACE, 1_000, days=6)
    return train, valid


def test_the_favourite_is_who_environment_and_log_like_best_and_its_bound_is_higher(
    parts: tuple[Journeys, Journeys], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this world e-mail with advice helps everybody, and to write the other way helps nobody."""
    monkeypatch.setattr("training.environment_values.DECISIONS", (4_000, 4_000))
    train, valid = parts
    spec = PLACE.spec
    clone = clone_behaviour(spec, train, valid, FitSettings(seed=1, epochs=5))
    settings = OutcomeSettings(seed=1, members=1, hidden=16, epochs=4)
    model = fit_outcome_model(spec, train, valid, settings)
    policies: dict[str, Policy] = {
        CLONE: NetworkPolicy(clone.network, spec.attributes.encode(spec.catalogue)),
        "advice": Fixed(0.2, 0.1, 0.6, 0.1),
        "less": Fixed(0.9, 0.1 / 3, 0.1 / 3, 0.1 / 3),
        "like the log": PLACE.logging_policy(),
    }
    assert liked(policies, spec, valid, model, Question(1_000))[0] == "advice"
    assert "less" not in liked(policies, spec, valid, model, Question(1_000))
    assert liked(policies, spec, valid, None, Question(1_000)) == ()
    assert liked({n: p for n, p in policies.items() if n != CLONE}, spec, valid, model, Question(1_000)) == ()
    assert liked({n: policies[n] for n in (CLONE, "less")}, spec, valid, model, Question(1_000)) == ()

    sparing = Question(1_000, contacts=0.5)
    assert "advice" not in liked(policies, spec, valid, model, sparing)  # it would be refused for its contacts

    asked = verb.Setting(spec, train, True, policies[CLONE], model, valid=valid)
    told, alike = (verb.evaluate(policies, s) for s in (asked, verb.Setting(spec, train, True, policies[CLONE], model)))
    assert (told.favourite, alike.favourite) == ("advice", None)
    assert told.error == alike.error == ERROR
    for mine, theirs in zip(told.evaluations, alike.evaluations, strict=True):
        assert mine.gain == theirs.gain
        if mine.bound is None or theirs.bound is None or mine.candidate == CLONE:
            continue
        assert (mine.bound > theirs.bound) == (mine.candidate == "advice")
    assert next(e.bound for e in told.evaluations if e.candidate == "advice") is not None
