"""PPO several times, more and less bold, and the one that environment and validation customers together like best.

What PPO finds depends on its luck and on how far it may go from the log. The environment prefers the boldest, whom the
log can hardly judge; the log prefers the most timid, of whom it is sure. Each is believed as far as it can be
(training/pooled.py), and no doubt is taken off: who goes too far to be shown is followed part of the way
(training/blend.py), and the gate asks the test customers. A training that the validation customers cannot judge at all
is kept only where they can judge none: then it is the one that the environment likes best.

Where there are too few customers to judge anybody, the members of the ensemble speak, which do not share all errors:
each training's gain over the clone in every member alone, less its spread. (A Sharpe ratio, gain over spread, asks the
same of trainings of one size: Kiyohara et al., ICLR 2024; of different ones it prefers the timid.)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.policy import Policy
from engine.records import Floats
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from envs.replay import Replay
from training.choice import Chooser
from training.expected import ExpectedOutcomes
from training.journeys import Journeys
from training.network import NetworkPolicy, TwoTower
from training.pooled import pooled_gain
from training.ppo import Learned, PpoSettings
from training.rollout import expected_returns

COURAGE = (1.0, 1 / 3, 1 / 10)
"""How close each training in turn is held to the log, as a share of `PpoSettings.closeness`."""
FOLLOWED = 200
"""Validation journeys at most along which each member is asked."""


@dataclass(frozen=True, slots=True)
class Several:
    """learned: what was chosen; settings: its. gains: Floats [S, M], each training's mean gain over the clone in each
    member of the ensemble; certain: Floats [S], what the members leave of it. together: Floats [S], its gain over the
    log by environment and validation customers, NaN = these cannot judge it.
    """

    learned: Learned
    settings: PpoSettings
    gains: Floats
    certain: Floats
    together: Floats


def tries(first: PpoSettings, many: int) -> list[PpoSettings]:
    """The settings of each of so many trainings: seeds count up from the first's, closeness follows COURAGE."""
    return [
        replace(first, seed=first.seed + n, closeness=first.closeness * COURAGE[n % len(COURAGE)]) for n in range(many)
    ]


def best_of(
    spec: Spec,
    model: EnsembleOutcomeModel,
    valid: Journeys,
    clone: TwoTower,
    found: Sequence[tuple[PpoSettings, Learned]],
) -> Several:
    """The best of the trainings that were `found`, each with its settings. Never looks at test customers."""
    first = found[0][0]
    if len(found) == 1:
        return Several(found[0][1], first, np.zeros((1, 0)), np.full(1, np.nan), np.full(1, np.nan))
    attributes = spec.attributes.encode(spec.catalogue)
    replay = valid.replay().some(FOLLOWED, first.seed)
    base, *policies = (
        NetworkPolicy(network, attributes) for network in (clone, *(learned.network for _, learned in found))
    )
    level = _by_member(spec, model, replay, base, first)
    earned = [_by_member(spec, model, replay, policy, first) - level for policy in policies]
    gains, sure = np.stack([e.mean(axis=1) for e in earned]), np.array([certain(e) for e in earned])
    chooser = Chooser(spec, valid, base, model=model)
    told = chooser.consider_all({str(number): policy for number, policy in enumerate(policies)}).values()
    together = np.array(
        [
            pooled_gain(float(gain.mean()), by_log)[0] if by_log is not None and by_log.supported else np.nan
            for gain, by_log in zip(gains, told, strict=True)
        ]
    )
    best = _best(together, gains.mean(axis=1) if chooser.judges else sure)
    settings, learned = found[best]
    return Several(learned, settings, gains, sure, together)


def _best(together: Floats, otherwise: Floats) -> int:
    """The highest that is known; by the second where nothing is."""
    return int(np.nanargmax(together) if np.isfinite(together).any() else otherwise.argmax())


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
