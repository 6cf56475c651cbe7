"""What a policy should do no more of than the log: contacts, withdrawals of consent, complaints, journeys that
customers end.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from engine.records import DAY, HOLD, Floats
from engine.spec import Spec
from training.intervals import Estimate
from training.journeys import Journeys

CONTACTS = "contacts"
MOST_CONTACTS = 2.0
"""How many times the log's contacts a policy may make, where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class Harm:
    """Something of which a policy should not do more, per customer and week: the log's rate and the policy's
    excess. allowed: how many times the log's rate its own may be.
    """

    logged: float
    excess: Estimate
    allowed: float = 1.0

    @property
    def limit(self) -> float:
        """The highest rate that is allowed."""
        return self.allowed * self.logged

    @property
    def passes(self) -> bool:
        """Is its rate within the limit, or, where the log's rate is allowed, not for certain (one-sided, 2.5 %) above
        that? Not without support.
        """
        if self.rate is None or self.excess.lower is None:
            return False
        return self.rate <= self.limit or (self.allowed >= 1.0 and self.excess.lower <= 0.0)

    @property
    def rate(self) -> float | None:
        """The policy's own rate; None where it has no support."""
        return None if self.excess.value is None else self.logged + self.excess.value


def harms_of(spec: Spec, test: Journeys) -> dict[str, Floats]:
    """How much of each happened after each decision, [N]; what the spec has no kinds for is left out."""
    counted = {
        "withdrawals": [i for i, kind in enumerate(spec.kinds) if kind.consent == "withdrawn"],
        "complaints": [i for i, kind in enumerate(spec.kinds) if kind.complaint],
        "endings": [i for i, kind in enumerate(spec.kinds) if kind.ends_journey],
    }
    found = {CONTACTS: (test.action != HOLD).astype(np.float64)}
    return found | {name: test.counts[:, kinds].sum(axis=1) for name, kinds in counted.items() if kinds}


def limited(harms: Mapping[str, Harm], contacts: float) -> dict[str, Harm]:
    """The same, where so many times the log's contacts are allowed."""
    return {n: replace(h, allowed=contacts) if n == CONTACTS else h for n, h in harms.items()}


def weeks_of(test: Journeys) -> float:
    """Weeks that a customer was observed, on average."""
    seen = np.bincount(test.customer, weights=test.until - test.decided_at, minlength=len(test.customer_ids))
    return max(float(seen.mean()) / (7 * DAY), 1e-9)
