"""Which of several policies do the validation customers speak for? The off-policy estimate, less its own doubt.

Learners have knobs that their own loss cannot set: how many rounds, how far from the log, which seed. The environment
flatters whoever was trained in it, so these customers' log decides, as the test customers' log decides at the gate. The
winner's estimate is too high (it was chosen for it); the test customers, whom nobody has looked at, say what it is
worth.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.errors import TrainingError
from engine.policy import Policy
from engine.records import Floats32
from engine.spec import Spec
from envs.outcomes import OutcomeModel
from training.intervals import Estimate
from training.journeys import Journeys
from training.judge import LEAST_CUSTOMERS, Judge
from training.judging import judge_all
from training.panels import probabilities_of
from training.tilted import tilt

DOUBT = 1.0
"""Standard errors that are taken from an estimated gain before policies are compared."""


@dataclass(frozen=True, slots=True)
class Pick:
    """name: what was chosen. gain: its estimated gain over the log, in the currency; None = the log cannot tell.
    scores: the gain of all that were considered, less its doubt; None = no support.
    """

    name: str
    gain: float | None
    scores: Mapping[str, float | None]

    @property
    def told(self) -> bool:
        """Did the log say anything of anybody?"""
        return self.gain is not None


class Chooser:
    """Considers policies one after the other; `best` is the one with the highest score, the first of equals.

    Where the log supports none of them, or there are fewer than LEAST_CUSTOMERS: the first that was considered, so
    begin with the most careful.
    """

    def __init__(
        self, spec: Spec, valid: Journeys, behaviour: Policy, seed: int = 0, model: OutcomeModel | None = None
    ) -> None:
        """behaviour: the clone; its probabilities are the base of tilted policies, and propensities where there are
        none. model: as of `Judge`, for those that `consider` is asked of.
        """
        enough = len(valid.customer_ids) >= LEAST_CUSTOMERS
        self._judge = Judge(spec, valid, behaviour, seed, model=model) if enough else None
        self._valid, self._base = valid, probabilities_of(behaviour, valid.observation, valid.mask)
        self._gains: dict[str, Estimate | None] = {}

    @property
    def judges(self) -> bool:
        """Are there enough customers to judge anybody?"""
        return self._judge is not None

    def consider(self, name: str, policy: Policy) -> Estimate | None:
        """The estimated gain of a policy over the log; None where nobody can be judged."""
        self._gains[name] = self._judge.judge(policy).gain if self._judge else None
        return self._gains[name]

    def consider_all(self, policies: Mapping[str, Policy]) -> dict[str, Estimate | None]:
        """As `consider` of each, by its name, side by side."""
        told = judge_all(self._judge, policies) if self._judge else {}
        found = {name: told[name].gain if told else None for name in policies}
        self._gains |= found
        return found

    def consider_tilt(self, name: str, advantage: Floats32, temperature: float, epsilon: float) -> Estimate | None:
        """As `consider`, of the clone tilted by these advantages [N, n] at the validation decisions."""
        table = tilt(self._base, advantage, self._valid.mask, temperature, epsilon)
        self._gains[name] = self._judge.of(table).gain if self._judge else None
        return self._gains[name]

    def best(self) -> Pick:
        """Raises TrainingError when nothing was considered."""
        if not self._gains:
            raise TrainingError("found no policy to choose from, expected at least one")
        scores = {name: score(gain) for name, gain in self._gains.items()}
        told = {name: found for name, found in scores.items() if found is not None}
        name = max(told, key=lambda key: told[key]) if told else next(iter(scores))
        gain = self._gains[name]
        return Pick(name, gain.value if gain is not None else None, scores)


def score(gain: Estimate | None) -> float | None:
    """The gain less DOUBT standard errors; None without support."""
    if gain is None or gain.value is None or gain.lower is None or gain.upper is None:
        return None
    return gain.value - DOUBT * (gain.upper - gain.lower) / (2 * 1.96)
