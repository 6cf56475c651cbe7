"""PPO from several seeds, and the one whose gain the members of the ensemble agree on.

What PPO finds depends on its luck, and the best of several by the environment's mean value is the one that exploits the
environment's errors best. The members of the ensemble do not share all errors. So each seed's gain over the clone is
measured in every member alone, along validation journeys, and divided by how much it varies: a Sharpe ratio (Sharpe
1966; as a score of policies under uncertainty: Kiyohara et al., "Towards assessing and benchmarking risk-return
tradeoff of off-policy evaluation", ICLR 2024).
"""

from dataclasses import dataclass, replace

import numpy as np

from engine.policy import Policy
from engine.records import Floats
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from envs.replay import Replay
from training.clone import Progress
from training.expected import ExpectedOutcomes
from training.journeys import Journeys
from training.network import NetworkPolicy, TwoTower
from training.ppo import Learned, PpoSettings, train_ppo
from training.rollout import expected_returns

FOLLOWED = 200
"""Validation journeys at most along which each member is asked."""


@dataclass(frozen=True, slots=True)
class Several:
    """learned: what was chosen; seed: its. gains: Floats [S, M], each seed's mean gain over the clone in each member of
    the ensemble. scores: Floats [S].
    """

    learned: Learned
    seed: int
    gains: Floats
    scores: Floats


def train_several(
    spec: Spec,
    model: EnsembleOutcomeModel,
    data: tuple[Journeys, Journeys],
    clone: TwoTower,
    settings: tuple[PpoSettings, int],
    progress: Progress | None = None,
) -> Several:
    """`settings`: of each training, and how many; the seeds count up from the one it names. Never looks at test
    customers.
    """
    first, many = settings
    found = []
    for number in range(many):
        own = replace(first, seed=first.seed + number)
        told = None if progress is None else _share(progress, number, many)
        found.append(train_ppo(spec, model, data, clone, own, told))
    if many == 1:
        return Several(found[0], first.seed, np.zeros((1, 0)), np.zeros(1))
    attributes = spec.attributes.encode(spec.catalogue)
    replay = data[1].replay().take(np.arange(min(FOLLOWED, len(data[1].customer_ids))))
    base = _by_member(spec, model, replay, NetworkPolicy(clone, attributes), first)
    earned = [_by_member(spec, model, replay, NetworkPolicy(f.network, attributes), first) - base for f in found]
    gains, scores = np.stack([e.mean(axis=1) for e in earned]), np.array([sharpe(e) for e in earned])
    best = int(scores.argmax())
    return Several(found[best], first.seed + best, gains, scores)


def sharpe(gains: Floats) -> float:
    """Mean gain over all members and journeys [M, J], over the root of the variance between members plus that of their
    mean over journeys. Negative for a loss; then less certain losses come first.
    """
    between = float(gains.mean(axis=1).var(ddof=1)) if len(gains) > 1 else 0.0
    luck = float(gains.mean(axis=0).var()) / gains.shape[1]
    return float(gains.mean()) / max(float(np.sqrt(between + luck)), 1e-9)


def _by_member(
    spec: Spec, model: EnsembleOutcomeModel, replay: Replay, policy: Policy, settings: PpoSettings
) -> Floats:
    """Expected returns [M, J] in each member alone, all with the same luck."""
    worlds = [ExpectedOutcomes(model, settings.pessimism, member) for member in range(model.members)]
    return np.stack([expected_returns(spec, world, replay, policy, settings.seed + 1) for world in worlds])


def _share(progress: Progress, number: int, many: int) -> Progress:
    """Progress of one training among `many`."""
    return lambda done, total: progress(number * total + done, many * total)
