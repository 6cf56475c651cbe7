"""Who has most of the error that may be made: whom the test customers are most likely to show to gain much.

All candidates share one chance of a false promotion. Shared out equally it is little for each, so that nobody is
clearly better than the log where one of many is. Customers who judge nobody say beforehand whom to look at: any shares
that the test customers have no say in are as safe as equal ones (weighted Bonferroni: Genovese, Roeder & Wasserman
2006, Biometrika 93). Whoever is wrong about the favourite loses little: the other half is for the others.

Error is spent where it decides something. So it is not asked who is worth most, but whose lower end will be highest:
what environment and validation customers together say of a candidate, less what the interval of the test customers,
who are of the same kind, will take from it. Far from the log it is wide, whatever is promised there.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from engine.policy import Policy
from engine.spec import Spec
from envs.outcomes import OutcomeModel
from training.blend import BOLD, WAY
from training.candidates import CLONE, CONSTANTS
from training.choice import Chooser
from training.intervals import Estimate
from training.journeys import Journeys
from training.pooled import pooled_gain
from training.rollout import returns

STAND_FOR_THE_WAY = ("ppo_50", BOLD)
"""Of those on the way to PPO: its end, and one that can be judged where that cannot."""

FOLLOWED = 500
"""Validation journeys at most that are followed in the learned environment."""


def liked(
    candidates: Mapping[str, Policy],
    spec: Spec,
    valid: Journeys,
    model: OutcomeModel | None,
    customers: int,
    seed: int = 0,
) -> tuple[str, ...]:
    """Candidates that are worth more than the clone by environment and validation customers together, less their doubt
    (training/pooled.py), those first whom so many test `customers` will likely show to gain most. Whom the validation
    customers cannot judge, the test customers can hardly either: error would be wasted on it. Nobody where there is no
    environment or behaviour clone, or nobody to choose from. STAND_FOR_THE_WAY are asked for all on the way to PPO.
    """
    asked = {name: policy for name, policy in candidates.items() if name not in WAY or name in STAND_FOR_THE_WAY}
    rivals = [name for name in asked if name != CLONE]
    if model is None or CLONE not in candidates or len(rivals) < 2:
        return ()
    chooser = Chooser(spec, valid, candidates[CLONE], seed, model)
    replay = valid.replay().some(FOLLOWED, seed)
    worth = {name: float(returns(spec, model, replay, policy, seed).mean()) for name, policy in asked.items()}
    fewer, lowest = len(valid.customer_ids) / max(customers, 1), dict[str, float]()
    told = chooser.consider_all({name: asked[name] for name in rivals})
    for name, gain in told.items():  # by gains: the environment's level may be off by more than what they differ by
        if gain is not None and gain.supported:
            value, error = pooled_gain(worth[name] - worth[CLONE], gain)
            if value - error > 0.0:
                lowest[name] = lower_end(value, gain, fewer)
    return tuple(sorted(lowest, key=lambda name: -lowest[name]))


def lower_end(value: float, gain: Estimate, fewer: float) -> float:
    """Where the interval of a gain will likely begin, if it is `value`. gain: as others told it, whose interval is
    scaled by the root of how many times `fewer` these are than who will be asked.
    """
    if gain.lower is None or gain.upper is None:
        return -np.inf
    return value - float(np.sqrt(fewer)) * (gain.upper - gain.lower) / 2


def errors_of(candidates: Collection[str], favourite: str | None, error: float) -> dict[str, float]:
    """What each candidate may err of `error`: half for the favourite, the rest for the others alike; equal shares
    without one. Those on the way to PPO have one share together, for they are asked in a fixed sequence
    (training/blend.py). The behaviour clone asks for nothing, and is told what one of the others is.
    """
    seats = {name: WAY if name in WAY else (name,) for name in candidates if name != CLONE}
    many = len(set(seats.values()))
    if favourite not in seats or many == 1:
        return dict.fromkeys(candidates, error / max(1, many))
    rest = error / 2 / (many - 1)
    return {name: error / 2 if seats.get(name) == seats[favourite] else rest for name in candidates}


def errors_of_choosing(candidates: Collection[str], likely: Sequence[str], error: float) -> dict[str, float]:
    """What each candidate that chooses for each customer may err when it is said to earn more than all actions for
    everybody: a statement of its own, in whose error those who treat all alike have no share. likely: as `liked` says.
    """
    who = [name for name in candidates if name not in CONSTANTS]
    return errors_of(who, next((name for name in likely if name in who), None), error)
