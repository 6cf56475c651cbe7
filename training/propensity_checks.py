"""What may be odd about the propensities of a log: missing, contradicted by what was done, of little reach."""

from collections.abc import Iterator, Sequence

import numpy as np

from engine.spec import Spec
from training.audits import Audit, audit, chance_of_acting, common_factor, parts_of, unexplained
from training.journeys import Journeys
from training.propensities import Reach
from training.tables import Finding

LITTLE = 100.0
"""An effective sample size under this is too little for an interval that says anything."""

SHOWN = 3
"""Actions that one finding names."""


def check_propensities(spec: Spec, journeys: Journeys, found: Reach | None) -> Iterator[Finding]:
    """`found`: None where no propensity is known."""
    if found is None:
        message = "no propensities: they will be estimated from the log, and every estimate will say so"
        yield Finding("warning", "propensities", message)
        return
    unknown = int(np.isnan(journeys.propensity).sum())
    if unknown:
        yield Finding("warning", "propensities", f"{unknown:,} decisions have none; those will be estimated")
    yield from _contradictions(spec, journeys)
    if found.uniform < LITTLE or found.uniform < 0.01 * found.decisions:
        message = f"for a policy that takes every eligible action alike, {found.decisions:,} decisions count as "
        message += f"{found.uniform:,.0f}; estimates far from the logging policy will be wide"
        yield Finding("warning", "overlap", message)


def _contradictions(spec: Spec, journeys: Journeys) -> Iterator[Finding]:
    """One finding for propensities that are too small, one for those that are too large: an error where they are too
    large in a way that a rule of the policy hardly makes.
    """
    audits = audit(journeys, parts_of(spec, journeys))
    whole = [one for one in audits if not one.part and one.suspect]
    small = [one for one in whole if one.ratio > 1]
    named = {one.action for one in small}
    small += [one for one in audits if one.part and one.suspect and one.ratio > 1 and one.action not in named]
    large = [one for one in whole if one.low]
    guess = _guess(journeys, audits)
    if small:
        yield Finding("error", "propensities", _told(spec, small) + _SMALL + guess)
    if large and guess and unexplained(audits):
        yield Finding("error", "propensities", _told(spec, large) + _LARGE + guess)
    elif large:
        yield Finding("warning", "propensities", _told(spec, large) + _LARGE)


_SMALL = "; they cannot be the probabilities with which it was chosen, which were larger"
_LARGE = "; they are too large, or it is never taken in some of the rows where it might be"
_RULE = " (or a rule forbids some actions: a column eligible says which were possible)"


def _guess(journeys: Journeys, audits: Sequence[Audit]) -> str:
    """What seems to have been written down instead, "" where nothing fits."""
    acted, held = chance_of_acting(journeys, audits)
    if acted and held:
        return f". They look like P(treatment), the chance of acting at all; expected P(the action taken){_RULE}"
    if acted:
        return (
            ". Where something was done they look like P(treatment), the chance of acting at all; expected P(the "
            f"action taken), which is smaller{_RULE}"
        )
    if held:
        return ". Where hold was taken they look like P(treatment): 1 − p fits; expected P(hold) there"
    factor = common_factor(audits)
    if factor is None:
        return ""
    size = f"too small by the factor {factor:.2f}" if factor > 1 else f"too large by the factor {1 / factor:.2f}"
    return f". All of them are {size}, in every part of the log" + ("" if factor > 1 else _RULE)


def _told(spec: Spec, group: Sequence[Audit]) -> str:
    """The worst of them, each with where it was found."""
    actions = spec.catalogue.actions
    names = list(dict.fromkeys(one.action for one in group))
    worst = "; ".join(
        f"{actions[one.action]}{f' where {one.part} is {one.value}' * bool(one.part)} {one.ratio:.2f} times as "
        f"often (z = {one.z:+.0f}, {one.rows:,} rows)"
        for one in group[:SHOWN]
    )
    verb = "actions were" if len(names) > 1 else "action was"
    return f"{len(names)} {verb} taken more or less often than the propensities say: {worst}"
