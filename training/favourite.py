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
from dataclasses import dataclass

import numpy as np

from engine.policy import Policy
from engine.spec import Spec
from envs.outcomes import OutcomeModel
from training.blend import BOLD, WAY, ends, seat_of
from training.candidates import CLONE, CONSTANTS
from training.harms import MOST_CONTACTS, limited
from training.intervals import Estimate
from training.journeys import Journeys
from training.judge import LEAST_CUSTOMERS, Judge
from training.judging import judge_all
from training.pooled import pooled_gain
from training.rollout import returns
from training.verdicts import harmless

STAND_FOR_THE_WAY = ("ppo_50", BOLD)
"""Of those on the way to PPO: its end, and one that can be judged where that cannot."""

FOLLOWED = 500
"""Validation journeys at most that are followed in the learned environment."""


@dataclass(frozen=True, slots=True)
class Question:
    """What the test customers will be asked. customers: how many there are. contacts: as in `Terms`. seed: of luck."""

    customers: int
    contacts: float = MOST_CONTACTS
    seed: int = 0


def liked(
    candidates: Mapping[str, Policy], spec: Spec, valid: Journeys, model: OutcomeModel | None, question: Question
) -> tuple[str, ...]:
    """Candidates that are worth more than the clone by environment and validation customers together, less their doubt
    (training/pooled.py), those first whom the test customers will likely show to gain most. Whom the validation
    customers cannot judge, or find to do harm, the test customers will hardly let through either: error would be
    wasted on it. Nobody where there is no environment or behaviour clone, too few customers, or nobody to choose from.
    STAND_FOR_THE_WAY are asked for all on the way to PPO.
    """
    asked = {name: policy for name, policy in candidates.items() if name not in WAY or name in STAND_FOR_THE_WAY}
    rivals = {name: policy for name, policy in asked.items() if name != CLONE}
    enough = len(valid.customer_ids) >= LEAST_CUSTOMERS
    if model is None or CLONE not in candidates or len(rivals) < 2 or not enough:
        return ()
    replay, seed = valid.replay().some(FOLLOWED, question.seed), question.seed
    worth = {name: float(returns(spec, model, replay, policy, seed).mean()) for name, policy in asked.items()}
    fewer, lowest = len(valid.customer_ids) / max(question.customers, 1), dict[str, float]()
    told = judge_all(Judge(spec, valid, candidates[CLONE], seed, model=model), rivals)
    for name, found in told.items():  # by gains: the environment's level may be off by more than what they differ by
        if found.gain.supported and harmless(limited(found.harms, question.contacts), found.segments):
            value, error = pooled_gain(worth[name] - worth[CLONE], found.gain)
            if value - error > 0.0:
                lowest[name] = lower_end(value, found.gain, fewer)
    return tuple(sorted(lowest, key=lambda name: -lowest[name]))


def lower_end(value: float, gain: Estimate, fewer: float) -> float:
    """Where the interval of a gain will likely begin, if it is `value`. gain: as others told it, whose interval is
    scaled by the root of how many times `fewer` these are than who will be asked.
    """
    if gain.lower is None or gain.upper is None:
        return -np.inf
    return value - float(np.sqrt(fewer)) * (gain.upper - gain.lower) / 2


def shares_of(candidates: Collection[str], favourite: str | None, error: float) -> dict[str, float]:
    """What each candidate may err of `error`: half for the favourite, the rest for the others alike; equal shares
    without one. Those on the way to PPO have one share together. The behaviour clone asks for nothing, and is told what
    one of the others is.
    """
    seats = {name: seat_of(name) for name in candidates if name != CLONE}
    many = len(set(seats.values()))
    if favourite not in seats or many == 1:
        return dict.fromkeys(candidates, error / max(1, many))
    rest = error / 2 / (many - 1)
    return {name: error / 2 if seats.get(name) == seats[favourite] else rest for name in candidates}


def errors_of(shares: Mapping[str, float]) -> dict[str, float]:
    """What each candidate may err when it is said to gain: its share; on the way to PPO, which is asked in fixed
    sequences, a part of it for each end (training/blend.py).
    """
    parts = max(1, ends(shares))
    return {name: share / parts if name in WAY else share for name, share in shares.items()}


def shares_of_choosing(candidates: Collection[str], likely: Sequence[str], error: float) -> dict[str, float]:
    """What each candidate that chooses for each customer may err when it is said to earn more than all actions for
    everybody: a statement of its own, in whose error those who treat all alike have no share. On the way to PPO it is
    asked from one end. likely: as `liked` says.
    """
    who = [name for name in candidates if name not in CONSTANTS]
    return shares_of(who, next((name for name in likely if name in who), None), error)
