"""Parts of the way to a bold policy, asked in a fixed sequence."""

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from engine.records import Floats32
from envs.worlds import world
from tests.training.known_logs import logged
from tests.training.test_gate import evaluation, harm, over, report
from training import gate
from training.blend import BOLD, PARTS, WAY, abreast, bolder, ends, forerunners, parts, stopped
from training.candidates import CLONE
from training.clone import FitSettings, Fitted, clone_behaviour
from training.distil import DistilSettings, distil
from training.divergence import divergence
from training.evaluation import Report
from training.favourite import errors_of, shares_of
from training.network import NetworkPolicy, TwoTower, blended, linear
from training.panels import probabilities_of
from training.tilted import Favouring

PLACE = world("confounded")
SPEC = PLACE.spec
ATTRIBUTES = SPEC.attributes.encode(SPEC.catalogue)
TRAIN, VALID = logged(PLACE, 900, days=8)
ADVICE = 2
BOUNDS = st.dictionaries(st.sampled_from([*WAY, "greedy"]), st.one_of(st.none(), st.floats(-1.0, 1.0)), min_size=1)


@pytest.fixture(scope="module")
def clone() -> Fitted:
    return clone_behaviour(SPEC, TRAIN, VALID, FitSettings(seed=1, epochs=5))


def towards(clone: TwoTower, row: int, by: float) -> TwoTower:
    """The clone with the log-odds of one action raised."""
    teacher = Favouring(NetworkPolicy(clone, ATTRIBUTES), by, 1.0 * (np.arange(len(SPEC.catalogue)) == row))
    settings = DistilSettings(fit=FitSettings(epochs=30, batch=512, patience=5))
    return distil(SPEC, teacher, clone, (TRAIN, VALID), settings).network


def chances(network: TwoTower) -> Floats32:
    return probabilities_of(NetworkPolicy(network, ATTRIBUTES), VALID.observation, VALID.mask)


def test_each_part_goes_further_than_the_one_before(clone: Fitted) -> None:
    bold = towards(clone.network, ADVICE, 1.0)
    way = {CLONE: clone.network, **dict(parts(clone.network, bold, VALID, ATTRIBUTES)), BOLD: bold}
    assert list(way) == [CLONE, *WAY]
    taken = [chances(n)[:, ADVICE].mean() for n in way.values()]
    assert np.diff(taken).min() > 0.0


@pytest.mark.parametrize("by", [1.0, 30.0])
def test_a_quarter_of_the_way_is_one_whoever_is_at_its_end(clone: Fitted, by: float) -> None:
    """Of a policy that hardly doubts, a quarter of the logits would be nearly the whole."""
    bold = blended(clone.network, towards(clone.network, ADVICE, 1.0), 0.99)
    linear(bold.query_tower, -1).weight.data *= by
    linear(bold.query_tower, -1).bias.data *= by
    usual = chances(clone.network)
    gone = [divergence(chances(n), usual) ** 0.5 for _, n in parts(clone.network, bold, VALID, ATTRIBUTES)]
    whole = divergence(chances(bold), usual) ** 0.5
    np.testing.assert_allclose(gone, whole * np.array(list(PARTS.values())), rtol=0.01)
    half = divergence(chances(blended(clone.network, bold, 0.5)), usual) ** 0.5
    assert (half > 0.75 * whole) == (by > 1.0)


def test_no_way_leads_nowhere(clone: Fitted) -> None:
    for _, network in parts(clone.network, clone.network, VALID, ATTRIBUTES):
        np.testing.assert_allclose(chances(network), chances(clone.network), atol=1e-5)


@given(BOUNDS)
def test_nobody_is_believed_before_all_who_come_first_from_one_end(bounds: Mapping[str, float | None]) -> None:
    """A fixed sequence stops at the first that fails, so that each may err as much as one alone."""
    there = [name for name in WAY if name in bounds]
    gains = [(bounds[name] or 0.0) > 0.0 for name in there]
    for place, name in enumerate(there):
        assert forerunners(name, bounds) == tuple(there[:place])
        assert bolder(name, bounds) == tuple(reversed(there[place + 1 :]))
        assert (not stopped(name, bounds, 1)) == all(gains[:place])
        assert (not stopped(name, bounds, 2)) == (all(gains[:place]) or all(gains[place + 1 :]))
    assert not stopped("greedy", bounds, 2)
    assert forerunners("greedy", bounds) == ()
    assert (abreast(BOLD, bounds), abreast("greedy", bounds)) == (len({*there, BOLD} & set(bounds)), 1)


@pytest.mark.parametrize(
    "gains", [(0, 0, 0, 0), (2, 0, 0, 0), (0, 0, 0, 2), (3, 0, 0, 3), (3, 3, 0, 0), (-1, 0, 0, -1)]
)
@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_the_way_errs_no_more_often_than_one_candidate(gains: tuple[float, ...], alike: float) -> None:
    """True gains in standard errors, estimates with luck in common; wrong is who passes and gains nothing."""
    rng, logs, error = np.random.default_rng(1), 4_000, 0.05
    luck = np.sqrt(alike) * rng.normal(size=(logs, 1)) + np.sqrt(1.0 - alike) * rng.normal(size=(logs, len(WAY)))
    lower = np.array(gains) + luck - norm.isf(errors_of(shares_of([CLONE, *WAY], None, error))[BOLD])
    wrong = 0
    for found in lower:
        bounds = dict(zip(WAY, map(float, found), strict=True))
        passed = [name for name, b in bounds.items() if b > 0.0 and not stopped(name, bounds, ends(WAY))]
        wrong += any(gains[WAY.index(name)] <= 0 for name in passed)
    assert wrong / logs <= error + 3.0 * np.sqrt(error * (1.0 - error) / logs)


@pytest.mark.parametrize(
    ("bounds", "champion"),
    [
        ((0.2, 0.4, 0.3, 0.1), "ppo_50"),
        ((0.2, 0.3, 0.4, 0.5), "ppo"),
        ((0.2, 0.3, 0.4, -0.1), "ppo_75"),
        ((0.2, 0.3, 0.4, None), "ppo_75"),
        ((0.2, 0.3, None, -0.1), "ppo_50"),
        ((-0.1, 0.3, 0.4, 0.3), "ppo_75"),
        ((0.0, 0.3, -0.1, 0.2), "ppo"),
        ((0.0, 0.3, 0.4, -0.1), CLONE),
        ((-0.1, 0.3, 0.4, None), CLONE),
    ],
)
def test_the_gate_goes_as_far_as_the_log_can_follow(bounds: tuple[float | None, ...], champion: str) -> None:
    """From the log on, or back from the other end, where one small step was out of luck."""
    asked = [evaluation(name, bound) for name, bound in zip(WAY, bounds, strict=True)]
    found = gate.choose(replace(report(evaluation(CLONE, 0.0), *reversed(asked)), ends=2), certified=True)
    assert found.champion == champion
    refused = {v.candidate: v.why for v in found.verdicts if not v.passed}
    beyond = [name for name, b in zip(WAY, bounds, strict=True) if name in refused and (b or 0.0) > 0.0]
    weak = [n for n, b in zip(WAY, bounds, strict=True) if not (b or 0.0) > 0.0]
    assert all(f"way: neither {weak[0]} nor {weak[-1]}, before it on both" in refused[name] for name in beyond)


def test_an_evaluation_of_an_earlier_version_is_asked_from_one_end() -> None:
    """Its bounds spend all of the error of the way from the log on; nothing is left for the other end."""
    asked = [evaluation("ppo_25", -0.1), evaluation("ppo", 0.5)]
    told = json.loads(report(evaluation(CLONE, 0.0), *asked).to_json())
    del told["ends"]
    found = gate.choose(Report.from_json(json.dumps(told)), certified=True)
    assert found.champion == CLONE
    assert "way: ppo_25, which goes less far, does not gain for certain" in [v.why for v in found.verdicts]
    assert gate.choose(replace(Report.from_json(json.dumps(told)), ends=2), certified=True).champion == "ppo"


def test_one_who_goes_further_without_support_shows_nothing_for_the_others() -> None:
    asked = [over(evaluation("ppo_25", 1.0), constant=0.3), evaluation("ppo", None)]
    told = report(evaluation(CLONE, 0.0), *asked, evaluation("constant", 0.5))
    assert not told.personalises("ppo_25")
    assert gate.choose(told, certified=True).champion == "constant"


def test_others_are_not_held_back_by_the_way() -> None:
    asked = [evaluation("ppo_25", -1.0), evaluation("ppo", -2.0), evaluation("greedy", 0.5)]
    found = gate.choose(report(evaluation(CLONE, 0.0), *asked), certified=True)
    assert found.champion == "greedy"
    alone = gate.choose(report(evaluation(CLONE, 0.0), evaluation("ppo", 2.0)), certified=True)
    assert "way" not in [c.name for c in alone.verdicts[0].checks]


def test_harm_on_the_way_does_not_stop_who_does_none() -> None:
    """What the sequence spends is the error of the gain alone; each one's harms are its own."""
    harmful = evaluation("ppo_25", 0.5, {"contacts": harm(1.0, 9.0, 0.1)})
    found = gate.choose(report(evaluation(CLONE, 0.0), harmful, evaluation("ppo", 1.0)), certified=True)
    assert found.champion == "ppo"
    assert [v.candidate for v in found.verdicts if not v.passed] == ["ppo_25"]


@pytest.mark.parametrize(
    ("over_constant", "shown"),
    [
        ((0.1, 0.2, 0.3, 0.4), WAY),
        ((0.1, 0.2, -0.3, 0.4), ("ppo",)),
        ((0.1, 0.2, 0.3, -0.4), ()),
        ((-0.1, -0.2, 0.3, 0.4), ("ppo_75", "ppo")),
    ],
)
def test_who_beats_an_action_for_everybody_is_asked_from_the_other_end(
    over_constant: tuple[float, ...], shown: tuple[str, ...]
) -> None:
    """What differs most from that action is asked first; who goes less far is not believed without it."""
    asked = [over(evaluation(name, 1.0), constant=b) for name, b in zip(WAY, over_constant, strict=True)]
    told = report(evaluation(CLONE, 0.0), *asked, evaluation("constant", 0.5))
    assert tuple(name for name in WAY if told.personalises(name)) == shown
    found = gate.choose(told, certified=True)
    assert (found.champion in WAY) == bool(shown)
    assert {v.candidate for v in found.verdicts if v.passed} == {*shown, "constant"}
    held_back = [v for v in found.verdicts if v.candidate == "ppo_25" and not v.passed]
    assert all("who goes further on the same way" in v.why for v in held_back if over_constant[0] > 0.0)
    assert not told.personalises("constant")
