"""Journeys as what the fitted evaluators take, how their customers are told apart, and what a policy would do there."""

import numpy as np

from engine.policy import Policy
from engine.records import DAY, Bools, Floats, Floats32
from engine.spec import Spec
from training.fitted import Panel
from training.journeys import Journeys
from training.segments import Split, split_by

BLOCK = 8_192
"""Decisions whose probabilities are asked for at once."""


def probabilities_of(policy: Policy, observation: Floats32, mask: Bools) -> Floats32:
    """The policy's probabilities [N, n] at N decisions, asked for in blocks."""
    blocks = [slice(i, i + BLOCK) for i in range(0, max(len(observation), 1), BLOCK)]
    return np.concatenate([policy.probabilities(observation[b], mask[b]) for b in blocks])


def panel_of(spec: Spec, test: Journeys) -> Panel:
    """Their decisions, discounted from each journey's first, with what of the horizon is still to come."""
    first = test.decided_at[test.step == 0]
    gamma = test.discount_per_day
    elapsed = (test.decided_at - first[test.customer]) / DAY
    worth = worth_ahead((_planned_end(test, first)[test.customer] - test.decided_at) / DAY, gamma)
    horizon = max(float(worth.max()), 1e-9)
    return Panel(
        customer=test.customer,
        step=test.step,
        action=test.action,
        reward=test.reward,
        discount=gamma**elapsed,
        left=worth / horizon,
        observation=test.observation,
        attributes=spec.attributes.encode(spec.catalogue),
        horizon=horizon,
    )


def worth_ahead(days: Floats, gamma: float) -> Floats:
    """So many days ahead, each discounted from now: the days themselves where nothing is."""
    return days if gamma == 1 else (1 - gamma**days) / (1 - gamma)


def splits_of(spec: Spec, test: Journeys) -> tuple[Split, ...]:
    """Customers by every context feature, as it was at their first decision."""
    first = test.context[test.step == 0]
    return tuple(split_by(feature, first[:, i]) for i, feature in enumerate(spec.context.features))


def _planned_end(test: Journeys, first: Floats) -> Floats:
    """When each journey would have ended [J]. One that was ended by its customer is given the usual length."""
    last = np.append(test.customer[1:] != test.customer[:-1], True)
    end, cut = test.until[last], test.ended[last]
    usual = float(np.median((end - first)[~cut])) if (~cut).any() else float((end - first).max())
    return np.asarray(np.where(cut, np.maximum(end, first + usual), end), np.float64)
