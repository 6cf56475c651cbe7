"""What the environment expects of each action, beside what followed it: at once, and after more of it than usual.

Where the laws are right, reward minus expected reward has mean zero on any choice of held-out decisions that looks at
nothing but their past and the action taken (multicalibration: Hébert-Johnson, Kim, Reingold & Rothblum, ICML 2018).
So no propensity and no estimate is needed to hold a model against the decisions that matter when a policy changes:
those on which an action was taken, and those before which customers happened to get more of it than the log gave
to others like them. The latter are weighed as a tilted policy would weigh them, over a few decisions instead of the
journey, so nearly all customers still count: a model that reads customers from what they were sent is found here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engine.policy import Policy
from engine.records import HOLD, Bools, Floats, Floats32
from engine.spec import Spec
from envs.disagreement import member_worths
from envs.ensemble import EnsembleOutcomeModel
from training.agreement import ENOUGH, Check, Comparison, agreement, luck
from training.comparisons import SHARE
from training.evidence import evidence_of, turns
from training.journeys import Journeys
from training.probes import KEPT, TILTS
from training.sequential import pad
from training.support import effective_sample_size
from training.tilted import favoured

LATELY = 7
"""Decisions before the present one over which a customer may have got more of something."""
TELLS = 3.0
"""Standard errors that the expected worth must be from nothing for a group to be judged: rare orders tell little."""
CONTENTS = 6
"""So many contents are looked at, those that the log used most; as many channels."""


@dataclass(frozen=True, slots=True)
class Aftermath:
    """Mean reward until the next decision, held out and expected, with its standard error (customers as clusters).

    where: "after", on the decisions that took the action; "lately", on those before which customers got more of it.
    usual: what a decision earns on average; differences are judged by it, or by what these earn where that is more.
    """

    where: str
    found: Comparison
    usual: float


def aftermaths(spec: Spec, model: EnsembleOutcomeModel, test: Journeys, clone: Policy) -> list[Aftermath]:
    """Of hold, the channels and the contents that the log used most. Those with fewer than ENOUGH decisions, that were
    never taken in excess, or after which the log cannot tell the expected worth from nothing are left out.
    """
    turn = turns(spec, test)
    told = evidence_of(spec, test, turn, model.inputs, model.streams).told[:, : model.layout.told]
    expected = member_worths(model, turn, told).mean(axis=0)
    usual = float(np.abs(test.reward + spec.reward.cost[test.action]).mean())
    spread = _spread(test, expected, spec.reward.cost[test.action])
    chances, found = clone.probabilities(test.observation, test.mask), list[Aftermath]()
    for name, members in _groups(spec, test).items():
        taken = members[test.action]
        if min(taken.sum(), (~taken).sum()) < ENOUGH:
            continue
        weights = {"after": taken.astype(np.float64), "lately": _lately(test, chances, members)}
        for where, weight in weights.items():
            compared = _compared(f"{where} {name}", test, (expected, spread), weight)
            worth = float(np.average(expected + spec.reward.cost[test.action], weights=weight))
            if weight.std() > 0 and abs(worth) > TELLS * compared.error:
                found.append(Aftermath(where, compared, usual))
    return found


def aftermath_checks(found: Sequence[Aftermath]) -> Iterator[Check]:
    """Groups `after` and `lately`."""
    for where in ("after", "lately"):
        mine = [a for a in found if a.where == where]
        for one in mine:
            what = one.found.what.partition(" ")[2]
            noun = f"reward until the next decision after {what}"
            if where == "lately":
                noun = f"reward until the next decision where customers lately happened to get more of {what}"
            tolerated = SHARE * max(one.usual, abs(one.found.real))
            yield agreement(f"{where}:{what}", one.found, tolerated, luck(len(mine)), noun)


def _groups(spec: Spec, test: Journeys) -> dict[str, Bools]:
    """Which actions belong to each group, Bools [n], by name."""
    catalogue, contact = spec.catalogue, test.action[test.action != HOLD]
    groups = {"hold": np.arange(len(catalogue)) == HOLD}
    for names, of_action in (
        ([c.name for c in catalogue.channels], catalogue.channel),
        ([c.id for c in catalogue.contents], catalogue.content),
    ):
        used = np.bincount(of_action[contact], minlength=len(names))
        for i in np.argsort(-used, kind="stable")[:CONTENTS]:
            groups.setdefault(names[i], of_action == i)
    return groups


def _lately(test: Journeys, chances: Floats32, members: Bools) -> Floats:
    """[N]: how many times as often a policy that favours the members would have done what was done in the last LATELY
    decisions, as strongly tilted as leaves KEPT of the customers; all alike where none does.
    """
    rows = np.arange(len(test))
    for tilt in TILTS:
        after = favoured(chances, tilt, members.astype(np.float64))[rows, test.action].astype(np.float64)
        ratio = np.log(np.maximum(after, 1e-9)) - np.log(np.maximum(chances[rows, test.action], 1e-9))
        upto = np.cumsum(pad(ratio, test.customer, test.step, 0.0), axis=1)
        before = np.pad(upto, ((0, 0), (1, 0)))[:, :-1]  # without the present decision
        earlier = np.pad(before, ((0, 0), (LATELY, 0)))[:, : before.shape[1]]
        weight = np.exp(before - earlier)[test.customer, test.step]
        of_customer = np.bincount(test.customer, weights=weight).astype(np.float64)
        if effective_sample_size(of_customer) >= KEPT * len(of_customer):
            return np.asarray(weight, np.float64)
    return np.ones(len(test))


def _spread(test: Journeys, expected: Floats, cost: Floats) -> Floats:
    """Standard deviation of each reward [N], were its variance in proportion to its expected worth: that of events so
    rare that they come one at a time (quasi-Poisson: Wedderburn 1974).
    """
    worth = np.maximum(np.abs(expected + cost), 1e-12)
    return np.asarray(np.sqrt(worth * ((test.reward - expected) ** 2).sum() / worth.sum()), np.float64)


def _compared(what: str, test: Journeys, expected: tuple[Floats, Floats], weight: Floats) -> Comparison:
    """`expected`: the mean and the spread of each reward. The error is the larger of that seen, customers as clusters,
    and that to be expected: few customers who happened to buy nothing show no spread.
    """
    mean, spread = expected
    real, made = (float(np.average(x, weights=weight)) for x in (test.reward, mean))
    gap = test.reward - mean
    pull = np.bincount(test.customer, weights=weight * (gap - np.average(gap, weights=weight)))
    seen, due = np.sqrt((pull**2).sum()), np.sqrt(((weight * spread) ** 2).sum())
    return Comparison(what, real, made, float(max(seen, due) / weight.sum()))
