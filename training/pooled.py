"""What is a policy worth by the environment and by the log together? Each is believed as far as it can be.

The environment can follow any policy to the end of the journey, but nobody knows how far it is wrong. The log has seen
few customers who were treated like that, and says how far it may be wrong. They are averaged with the inverse of their
variances as weights.
"""

import numpy as np

from training.intervals import Estimate

TOLERATED = 0.1
"""Standard error of the environment's values, as a share of what the log earned: what its certificate tolerates."""

FLATTERED = 0.5
"""Standard error of a gain that the environment sees, as a share of it: for who learned in it, it was up to twice the
true one.
"""


def pooled(
    environment: float, average: float, gain: Estimate | None, doubt: float | None = None
) -> tuple[float, float]:
    """Value and standard error of the environment's value and the log's `average` + gain; the environment's alone where
    the log has no support. doubt: of the environment's value, None = as TOLERATED says.
    """
    doubt = max(TOLERATED * abs(average) if doubt is None else doubt, 1e-9)
    if gain is None or gain.value is None or gain.lower is None or gain.upper is None:
        return environment, doubt
    error = max((gain.upper - gain.lower) / (2 * 1.96), 1e-9)
    trust = doubt**2 / (doubt**2 + error**2)
    value = (1 - trust) * environment + trust * (average + gain.value)
    return value, float(np.hypot((1 - trust) * doubt, trust * error))


def pooled_gain(environment: float, gain: Estimate | None) -> tuple[float, float]:
    """As `pooled`, of gains over the clone and over the log. What the environment says of a gain is doubted by a share
    of it, so that nothing hangs on where rewards have their zero.
    """
    return pooled(environment, 0.0, gain, FLATTERED * abs(environment))
