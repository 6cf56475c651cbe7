"""How far is one policy from another, where customers are? KL, the mean over decisions."""

import numpy as np

from engine.records import Floats32

TINY = 1e-12
"""A chance below this counts as this."""


def divergence(chances: Floats32, usual: Floats32) -> float:
    """KL(policy ‖ usual) in nats, mean over decisions, from their probabilities [N, n]; never below 0."""
    terms = chances * (np.log(chances + TINY) - np.log(usual + TINY))
    return max(0.0, float(terms.sum(axis=1, dtype=np.float64).mean()))
