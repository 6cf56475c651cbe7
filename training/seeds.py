"""PPO several times, more and less bold, and the one whose gain is certain where the log can still judge it.

What PPO finds depends on its luck and on how far it may go from the log. The environment's mean value prefers the one
that exploits the environment's errors best. The members of the ensemble do not share all errors: so each training's
gain over the clone is measured in every member alone, along validation journeys, and what its spread leaves certain is
compared. (A Sharpe ratio, gain over spread, asks the same of trainings of one size: Kiyohara et al., ICLR 2024; of
different ones it prefers the timid.) A policy that the validation customers cannot judge will hardly be judged by the
test customers, and never promoted: so it is kept only when there is no other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.policy import Policy
from engine.records import Bools, Floats
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from envs.replay import Replay
from training.clone import Progress
from training.expected import ExpectedOutcomes
from training.journeys import Journeys
from training.judge import LEAST_CUSTOMERS, Judge
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
    member of the ensemble. scores: Floats [S], what of it is certain. supported: Bools [S], the validation customers
    can judge it.
    """

    learned: Learned
    settings: PpoSettings
    gains: Floats
    scores: Floats
    supported: Bools


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
        return Several(found[0], first, np.zeros((1, 0)), np.zeros(1), np.ones(1, bool))
    attributes = spec.attributes.encode(spec.catalogue)
    replay = valid.replay().some(FOLLOWED, first.seed)
    base, *policies = (NetworkPolicy(network, attributes) for network in (clone, *(f.network for f in found)))
    level = _by_member(spec, model, replay, base, first)
    earned = [_by_member(spec, model, replay, policy, first) - level for policy in policies]
    gains, scores = np.stack([e.mean(axis=1) for e in earned]), np.array([certain(e) for e in earned])
    supported = _supported(spec, valid, model, base, policies)
    best = int(np.where(supported, scores, -np.inf).argmax())  # the closest where none is
    return Several(found[best], tried[best], gains, scores, supported)


def certain(gains: Floats) -> float:
    """Mean gain over all members and journeys [M, J], less the root of the variance between members plus that of their
    mean over journeys.
    """
    between = float(gains.mean(axis=1).var(ddof=1)) if len(gains) > 1 else 0.0
    luck = float(gains.mean(axis=0).var()) / gains.shape[1]
    return float(gains.mean()) - float(np.sqrt(between + luck))


def _supported(
    spec: Spec, valid: Journeys, model: EnsembleOutcomeModel, clone: Policy, policies: Sequence[Policy]
) -> Bools:
    """Which policies the validation customers can judge; all where there are too few of them to judge anybody."""
    if len(valid.customer_ids) < LEAST_CUSTOMERS:
        return np.ones(len(policies), bool)
    judge = Judge(spec, valid, clone, model=model)
    return np.array([judge.judge(policy).gain.supported for policy in policies], bool)


def _by_member(
    spec: Spec, model: EnsembleOutcomeModel, replay: Replay, policy: Policy, settings: PpoSettings
) -> Floats:
    """Expected returns [M, J] in each member alone, all with the same luck."""
    worlds = [ExpectedOutcomes(model, settings.pessimism, member) for member in range(model.members)]
    return np.stack([expected_returns(spec, world, replay, policy, settings.seed + 1) for world in worlds])


def share(progress: Progress, number: int, many: int) -> Progress:
    """Progress of one training among `many`."""
    return lambda done, total: progress(number * total + done, many * total)
