"""PPO several times, more and less bold, and the one that the validation customers speak for.

What PPO finds depends on its luck and on how far it may go from the log. The environment prefers the boldest: it
flatters whoever learned in it, the more so the further from the log. The gate will ask what the test customers leave
certain of a gain; so the validation customers are asked the same, as for all other learners (training/choice.py). A
policy that they cannot judge is kept only where they can judge none: then it is the one closest to the log.

Where there are too few customers to judge anybody, the members of the ensemble speak, which do not share all errors:
each training's gain over the clone in every member alone, less its spread. (A Sharpe ratio, gain over spread, asks the
same of trainings of one size: Kiyohara et al., ICLR 2024; of different ones it prefers the timid.)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from engine.policy import Policy
from engine.records import Floats
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from envs.replay import Replay
from training.choice import Chooser
from training.clone import Progress
from training.expected import ExpectedOutcomes
from training.journeys import Journeys
from training.network import NetworkPolicy, TwoTower
from training.ppo import Learned, PpoSettings
from training.rollout import expected_returns

COURAGE = (1.0, 1 / 3, 1 / 10)
"""How close each training in turn is held to the log, as a share of `PpoSettings.closeness`."""
FOLLOWED = 200
"""Validation journeys at most along which each member is asked."""


@dataclass(frozen=True, slots=True)
class Several:
    """learned: what was chosen; settings: its. gains: Floats [S, M], each training's mean gain over the clone in each
    member of the ensemble; certain: Floats [S], what the members leave of it. scores: Floats [S], what the validation
    customers leave of its gain over the log, NaN = they cannot judge it.
    """

    learned: Learned
    settings: PpoSettings
    gains: Floats
    certain: Floats
    scores: Floats


def train_several(
    spec: Spec,
    model: EnsembleOutcomeModel,
    valid: Journeys,
    clone: TwoTower,
    settings: tuple[PpoSettings, int],
    train: Callable[[int, PpoSettings], Learned],
) -> Several:
    """`settings`: of the first training, and how many; seeds count up from its, closeness follows COURAGE. train: does
    the one with this number and these settings. Never looks at test customers.
    """
    first, many = settings
    tried = [
        replace(first, seed=first.seed + n, closeness=first.closeness * COURAGE[n % len(COURAGE)]) for n in range(many)
    ]
    found = [train(number, own) for number, own in enumerate(tried)]
    if many == 1:
        return Several(found[0], first, np.zeros((1, 0)), np.full(1, np.nan), np.full(1, np.nan))
    attributes = spec.attributes.encode(spec.catalogue)
    replay = valid.replay().some(FOLLOWED, first.seed)
    base, *policies = (NetworkPolicy(network, attributes) for network in (clone, *(f.network for f in found)))
    level = _by_member(spec, model, replay, base, first)
    earned = [_by_member(spec, model, replay, policy, first) - level for policy in policies]
    gains, sure = np.stack([e.mean(axis=1) for e in earned]), np.array([certain(e) for e in earned])
    chooser = Chooser(spec, valid, base, model=model)
    for number, policy in enumerate(policies):
        chooser.consider(str(number), policy)
    pick = chooser.best()
    best = int(pick.name) if chooser.judges else int(sure.argmax())
    scores = np.array([np.nan if s is None else s for s in pick.scores.values()])
    return Several(found[best], tried[best], gains, sure, scores)


def certain(gains: Floats) -> float:
    """Mean gain over all members and journeys [M, J], less the root of the variance between members plus that of their
    mean over journeys.
    """
    between = float(gains.mean(axis=1).var(ddof=1)) if len(gains) > 1 else 0.0
    luck = float(gains.mean(axis=0).var()) / gains.shape[1]
    return float(gains.mean()) - float(np.sqrt(between + luck))


def _by_member(
    spec: Spec, model: EnsembleOutcomeModel, replay: Replay, policy: Policy, settings: PpoSettings
) -> Floats:
    """Expected returns [M, J] in each member alone, all with the same luck."""
    worlds = [ExpectedOutcomes(model, settings.pessimism, member) for member in range(model.members)]
    return np.stack([expected_returns(spec, world, replay, policy, settings.seed + 1) for world in worlds])


def share(progress: Progress, number: int, many: int) -> Progress:
    """Progress of one training among `many`."""
    return lambda done, total: progress(number * total + done, many * total)
