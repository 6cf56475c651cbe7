"""Rewards without luck: what a decision earns on average in the learned environment, not what it happened to earn.

Orders are rare and dear, so the rewards of a journey are mostly luck: measured in the retail world, the standard
deviation of a decision's reward falls from 6.6 to 1.0, its mean stays. The learned environment knows the distributions
that its events are drawn from; PPO learns from the mean (Rao-Blackwellisation), while events are drawn as before to
move the customer on.
"""

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from engine.records import EventColumns, Floats, Floats32, Ints
from envs.disagreement import disagreement
from envs.draws import Draws
from envs.ensemble import EnsembleOutcomeModel
from envs.outcomes import Latent, Turn
from envs.replay import Replay
from envs.vector_env import VectorJourneyEnv


class ExpectedOutcomes:
    """The learned outcome model, and beside each batch of events their mean reward: `worth`, Floats [B].

    pessimism: how many standard deviations of the ensemble are taken from it (MOPO, Yu et al. 2020); 0 = none.
    member: who speaks for all customers; None = one drawn for each.
    """

    def __init__(self, model: EnsembleOutcomeModel, pessimism: float = 0.0, member: int | None = None) -> None:
        self._model, self._pessimism, self._member = model, pessimism, member
        self.worth: Floats = np.zeros(0)

    def begin(self, replay: Replay, journey: Ints, draws: Draws) -> Latent:
        if self._member is not None:
            return self._model.begin_as(np.full(len(journey), self._member, np.int64))
        return self._model.begin(replay, journey, draws)

    def outcomes(self, latent: Latent, turn: Turn, draws: Draws) -> EventColumns:
        doubt = self._pessimism * disagreement(self._model, turn) if self._pessimism else 0.0
        events, worth = self._model.outcomes_and_worth(latent, turn, draws)
        self.worth = worth - doubt
        return events

    def evolve(self, latent: Latent, turn: Turn, replayed: Floats, draws: Draws) -> Floats:
        return self._model.evolve(latent, turn, replayed, draws)


class ExpectedRewards(VecEnvWrapper):
    """The environment with mean rewards, times `scale`; what its infos say of episodes is what was drawn."""

    def __init__(self, env: VectorJourneyEnv, outcomes: ExpectedOutcomes, scale: float) -> None:
        super().__init__(env)
        self._outcomes, self._scale = outcomes, scale

    def reset(self) -> Floats32:
        return np.asarray(self.venv.reset(), np.float32)

    def step_wait(self) -> VecEnvStepReturn:
        observation, _, done, infos = self.venv.step_wait()
        worth: Any = (self._outcomes.worth * self._scale).astype(np.float32)
        return observation, worth, done, infos
