"""What a policy should do no more of than the log: contacts, withdrawals of consent, complaints, journeys that
customers end.
"""

from dataclasses import dataclass

import numpy as np

from engine.records import DAY, HOLD, Floats
from engine.spec import Spec
from training.intervals import Estimate
from training.journeys import Journeys


@dataclass(frozen=True, slots=True)
class Harm:
    """Something of which a policy should not do more, per customer and week: the log's rate and the policy's
    excess.
    """

    logged: float
    excess: Estimate

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
    found = {"contacts": (test.action != HOLD).astype(np.float64)}
    return found | {name: test.counts[:, kinds].sum(axis=1) for name, kinds in counted.items() if kinds}


def weeks_of(test: Journeys) -> float:
    """Weeks that a customer was observed, on average."""
    seen = np.bincount(test.customer, weights=test.until - test.decided_at, minlength=len(test.customer_ids))
    return max(float(seen.mean()) / (7 * DAY), 1e-9)
