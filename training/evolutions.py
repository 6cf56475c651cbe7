"""What becomes of endogenous context, as far as a log tells it without a network: its values, its scale, its rules."""

import numpy as np

from engine.records import Floats, Ints
from engine.spec import Spec
from envs.laws import Evolution, Scale
from training.journeys import Journeys

FREQUENT = 0.02
"""A value of an endogenous number that is at least this share of its next values is an outcome of its own."""
FEWEST, CERTAIN = 20, 300
"""Transitions after an action, and after all of them, before a rule is read from them: what was seen so often without
an exception has one in a hundred at most (the rule of three).
"""


def evolutions_of(spec: Spec, journeys: Journeys) -> list[Evolution]:
    """The endogenous features, with what is learned of them without a network."""
    before, after = pairs_of(journeys)
    found = []
    for column, feature in enumerate(spec.context.features):
        if feature.evolves != "endogenous" or not len(before):
            continue
        then, now = journeys.context[after, column], journeys.context[before, column]
        missing = [np.nan] if bool(np.isnan(then).any()) else []
        if feature.type == "category":
            outcomes = np.arange(-1.0 if (then < 0).any() else 0.0, len(feature.categories))
            found.append(Evolution(column, outcomes, None))
        elif feature.type == "flag":
            found.append(Evolution(column, np.array([0.0, 1.0, *missing]), None))
        else:
            seen = np.concatenate([then, now])
            seen = seen[~np.isnan(seen)]
            level, count = np.unique(then[~np.isnan(then)], return_counts=True)
            often = level[count >= max(2.0, FREQUENT * len(then))]
            scale = Scale.of(seen if len(seen) else np.zeros(1))
            rule = rule_of(now, then, journeys.action[before], len(spec.catalogue))
            found.append(Evolution(column, np.concatenate([often, missing]), scale, *rule))
    return found


def rule_of(now: Floats, then: Floats, action: Ints, actions: int) -> tuple[float, Floats | None]:
    """`Evolution.own` and `given`, if every transition [R] of a number follows one such rule.

    An action counts after FEWEST transitions; rarer ones have no rule, nor has a number that may be missing. Errors of
    a learned law add up along a journey, and a clock that is a little wrong at each step is no clock.
    """
    if len(now) < CERTAIN or np.isnan(now).any() or np.isnan(then).any():
        return 0.0, None
    tolerance = 1e-6 * max(float(np.concatenate([now, then]).std()), 1e-9)
    often = np.bincount(action, minlength=actions) >= FEWEST
    for own in (1.0, 0.0):
        rest = then - own * now
        low, high = np.full(actions, np.inf), np.full(actions, -np.inf)
        np.minimum.at(low, action, rest)
        np.maximum.at(high, action, rest)
        follows = np.asarray(high - low <= tolerance, bool)
        if often.any() and follows[often].all():
            middle = np.full(actions, np.nan)
            middle[often] = (low[often] + high[often]) / 2
            return own, middle
    return 0.0, None


def pairs_of(journeys: Journeys) -> tuple[Ints, Ints]:
    """Decisions that have a next one, and that next one."""
    before = np.flatnonzero(journeys.customer[1:] == journeys.customer[:-1])
    return before, before + 1
