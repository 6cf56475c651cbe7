"""Whom a candidate that chooses for each customer is compared with: one action for everybody, whichever is best.

Where the catalogue is small each of its actions is tried, so that it does not matter which of them the training took
for the best one. In a large one the best of many would be the luckiest; there the one that the validation customers
chose has to stand for all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engine.policy import Policy
from engine.records import HOLD, Bools, Floats32
from engine.spec import Spec
from training.candidates import CONSTANTS
from training.journeys import Journeys
from training.judge import Judge
from training.judged import Judged
from training.judging import judge_all
from training.panels import probabilities_of

MOST_ACTIONS = 16
"""A catalogue of more actions, hold among them, is large."""


def alike(
    spec: Spec, test: Journeys, judge: Judge, candidates: Mapping[str, Policy], judged: Mapping[str, Judged]
) -> dict[str, Judged]:
    """Each constant that the log supports, by its name: that of its action (`email/tips/now`, `hold`), or in a large
    catalogue of its candidate.

    test: the judge's own journeys. judged: what is known of the candidates; who does the same as an action for
    everybody is not judged again.
    """
    known = {name: found for name, found in judged.items() if name in CONSTANTS}
    actions = spec.catalogue.actions
    if len(actions) <= MOST_ACTIONS:
        chances = {name: probabilities_of(candidates[name], test.observation, test.mask) for name in known}
        everybody = {str(actions[row]): Always(int(row)) for row in np.flatnonzero(test.mask.any(axis=0))}
        same = dict[str, Judged]()
        for name, mine in everybody.items():
            wanted = mine.probabilities(test.observation, test.mask)
            found = next((known[n] for n, has in chances.items() if np.allclose(has, wanted, atol=1e-6)), None)
            same |= {name: found} if found else {}
        same |= judge_all(judge, {name: mine for name, mine in everybody.items() if name not in same})
        known = {name: same[name] for name in everybody}
    return {name: found for name, found in known.items() if found.side}


@dataclass(frozen=True, slots=True)
class Always:
    """The `Policy` of one action, a row of the catalogue, wherever it may be taken, else hold, else any."""

    row: int

    @property
    def version(self) -> str:
        return f"always {self.row}"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:  # noqa: ARG002, whoever it is
        """P(action) [B, n] for masks [B, n]."""
        may, still = mask[:, self.row], mask[:, HOLD]
        found = (mask & ~(may | still)[:, None]).astype(np.float32)
        found /= np.maximum(found.sum(axis=1, keepdims=True), 1.0)
        found[may, self.row] = 1.0
        found[~may & still, HOLD] = 1.0
        return found
