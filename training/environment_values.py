"""Q̂ of a policy from the learned environment: what marginal DR needs a value model for, at little noise.

Fitted to the log of the judged customers, Q̂ has the luck of a few orders to learn from. The environment has learned
from others, and a policy can be followed in it as long as one likes, for *mean* rewards (`expected.py`). There the
behaviour clone acts until a random decision, and the policy from then on: so what follows that decision is what its
state and action are worth to the policy, where the log's customers are. What the environment has wrong, the weights of
the log correct (a control variate: Jiang & Li 2016; Thomas & Brunskill 2016): as far as they reach.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from engine.policy import Policy, draw
from engine.records import DAY, Bools, Floats, Floats32, Ints
from engine.spec import Spec
from envs.draws import Draws
from envs.ensemble import EnsembleOutcomeModel
from envs.simulate import Question, steps
from training.advantages import Growth, ridge_by_gcv, telling_columns
from training.expected import ExpectedOutcomes
from training.fitted import Basis, Fitted, Panel
from training.journeys import Journeys
from training.panels import worth_ahead

DECISIONS, EACH, LEAST, MOST = (20_000, 60_000), 4, 500, 8_000
"""The least and most decisions that are simulated for a policy, how many for each that it is judged by in between, and
the least and most journeys that they are spread over. What fewer of them leave unsure is little beside the log's luck.
"""

COLUMNS = 32
"""Columns of the observation that trees look at, at most."""

STATE = Growth(trees=50, leaves=31, least=30)
"""The trees of V. Twice as many take longer and leave no less noise."""

BELIEVED = (0.001, 0.999)
"""Quantiles of the advantages of simulated decisions, beyond which none is believed."""

ROUNDS = 2
"""How often V and A take turns."""

EARLY = 1.5
"""How much rather the policy takes over early in a journey: the power of a chance between 0 and 1. With 1, any decision
alike, V of the first decision has a tenth of the rows that V of the last one has. With 2 and more the log's own
states are met too seldom late in a journey, and advantages there are wrong.
"""


@dataclass(frozen=True, slots=True)
class _Played:
    """M decisions of the policy, or one before it: observation Floats32 [M, d], left [M], action [M], the policy's mean
    attributes Floats32 [M, k'], and what followed, discounted [M].
    """

    observation: Floats32
    left: Floats
    action: Ints
    mean: Floats32
    followed: Floats


class EnvironmentValues:
    """Q̂ = V(s) + A(s, a) of any policy, from what it earns in the environment along the judged customers' journeys.

    Nothing that they did or earned is looked at, so there is nothing to cross-fit. V is boosted trees, A a ridge on the
    products of `Basis`, 0 in the policy's mean. Wrong wherever the environment is.
    """

    def __init__(
        self, spec: Spec, model: EnsembleOutcomeModel, journeys: Journeys, behaviour: Policy, panel: Panel, basis: Basis
    ) -> None:
        """behaviour: the clone. panel, basis: of `journeys`."""
        self._spec, self._outcomes, self._behaviour = spec, ExpectedOutcomes(model), behaviour
        self._panel, self._basis = panel, basis
        replay = journeys.replay()
        decisions = np.clip(EACH * len(panel), *DECISIONS)
        many = int(np.clip(decisions / max(float(replay.length.mean()), 1.0), LEAST, MOST))
        order = np.random.default_rng(0).permutation(np.resize(np.arange(len(replay)), many))
        self._replay = replay.take(order)
        self._ends = self._replay.until[np.arange(many), self._replay.length - 1]
        self._gamma = journeys.discount_per_day
        usual = self._played(behaviour)
        targets = (usual.followed,)
        self._columns = telling_columns(usual.observation, targets, spec.encoder.context_columns, COLUMNS, 0)

    def of(self, policy: Policy, chances: Floats32) -> Fitted:
        """q and v at the panel's decisions, where the policy's probabilities are `chances` [N, n]."""
        played, panel, table = self._played(policy), self._panel, self._basis.table
        seen = self._seen(played.observation, played.left)
        products = self._products(played.observation, played.left, table[played.action] - played.mean)
        advantage = np.zeros(len(seen))
        for turn in range(ROUNDS):
            state = STATE.grown(seen, played.followed - advantage, turn)
            theta = ridge_by_gcv(products, played.followed - state.predict(seen))
            advantage = products @ theta
        v = _predicted(state, self._seen(panel.observation, panel.left))
        z = table[panel.action] - chances @ table
        known = np.quantile(advantage, BELIEVED)  # an action that nobody took there can be given any advantage
        return Fitted(v + np.clip(self._products(panel.observation, panel.left, z) @ theta, *known), v)

    def _products(self, observation: Floats32, left: Floats, z: Floats32) -> Floats32:
        return Basis.products(self._basis.state(observation, left)[1], z)

    def _seen(self, observation: Floats32, left: Floats) -> Floats32:
        return np.concatenate([observation[:, self._columns], left[:, None].astype(np.float32)], axis=1)

    def _played(self, policy: Policy) -> _Played:
        """Until a random decision, rather an early one, the clone acts, at it one of both, then the policy; decisions
        before it are dropped. Some journeys are the policy's from the first.
        """
        replay, seed = self._replay, 1
        length = replay.length
        turned = np.floor(np.random.default_rng(seed).random(len(replay)) ** EARLY * (length + 1)).astype(np.int64) - 1
        luck = Draws.independent(seed, len(replay), salt=7)
        asked: list[tuple[Ints, Ints, Floats32, Ints, Floats32, Floats]] = []

        def decide(question: Question) -> tuple[Ints, Floats]:
            own = luck.take(question.journey)
            u = own.uniform(1)[:, 0]
            luck.put(question.journey, own)
            wanted, usual = (p.probabilities(question.observation, question.mask) for p in (policy, self._behaviour))
            share = np.clip(question.index - turned[question.journey] + 1, 0, 2)[:, None] / np.float32(2)
            action, chance = draw(share * wanted + (1 - share) * usual, u, question.mask)
            mean = wanted @ self._basis.table
            asked.append(
                (question.journey, question.index, question.observation.copy(), action, mean, question.now.copy())
            )
            return action, chance

        worth = [self._outcomes.worth for _ in steps(self._outcomes, replay, decide, self._spec, seed)]
        journey, index, observation, action, mean, now = (np.concatenate(x) for x in zip(*asked, strict=True))
        order = np.lexsort((index, journey))
        days = (now - replay.decided_at[journey, 0])[order] / DAY
        followed = _followed(journey[order], self._gamma**days * np.concatenate(worth)[order]) / self._gamma**days
        kept = (index >= turned[journey])[order]
        rows = order[kept]
        left = worth_ahead((self._ends[journey[rows]] - now[rows]) / DAY, self._gamma) / self._panel.horizon
        return _Played(observation[rows], left, action[rows], mean[rows], followed[kept])


def _predicted(model: HistGradientBoostingRegressor, seen: Floats32) -> Floats:
    return np.asarray(model.predict(seen), np.float64)


def _followed(journey: Ints, reward: Floats) -> Floats:
    """The sum of `reward` from each row to its journey's end; rows by journey, then time."""
    total = np.cumsum(reward)
    last: Bools = np.append(journey[1:] != journey[:-1], True)
    ends = total[last]
    return np.asarray(ends[np.cumsum(last) - last] - total + reward, np.float64)
