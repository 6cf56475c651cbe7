"""The customer journey as an SB3 `VecEnv`: a thousand customers moved on together with array code."""

import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from engine.records import Bools, Floats, Floats32, Ints
from engine.spec import Spec
from envs.batch import JourneyBatch, Step
from envs.draws import Draws
from envs.journey_env import journey_of, observation_space
from envs.outcomes import OutcomeModel
from envs.replay import Replay


class VectorJourneyEnv(VecEnv):
    """`JourneyEnv` for B customers at once, reset by itself at each journey's end, as Stable-Baselines3 expects.

    Row i with seed s goes through what `JourneyEnv` with seed s + i goes through. Forbidden actions raise
    TrainingError: train with a policy that takes `env_method("action_masks")` into account, such as sb3-contrib's
    MaskablePPO.

    It keeps the accounts of `VecMonitor` itself: the info of a row whose journey ended holds `episode` with `r`,
    the sum of its rewards in the spec's currency (not scaled), `discounted`, the same with the spec's discount per
    day, `l`, its decisions, and `t`, seconds since the environment was made. Rewards are multiplied by
    `reward_scale`, so that a value network may learn numbers near one. Infos of rows that go on are empty and
    reused.
    """

    def __init__(
        self, spec: Spec, model: OutcomeModel, replay: Replay, customers: int, seed: int, reward_scale: float = 1.0
    ) -> None:
        """`customers`: B, rows stepped together; they may be more or fewer than the replay's journeys."""
        self.spec, self.reward_scale = spec, reward_scale
        self._batch = JourneyBatch(spec, model, replay, Draws.seeded(seed, customers))
        self._action: Ints = np.zeros(customers, np.int64)
        self._nothing: list[dict[str, Any]] = [{} for _ in range(customers)]
        self._started = time.monotonic()
        self._forget(np.arange(customers))
        super().__init__(customers, observation_space(spec), gymnasium.spaces.Discrete(len(spec.catalogue)))

    def reset(self) -> Floats32:
        """Start all rows on journeys that the seed chooses, or on `set_options({"journey": …})`, one for all or one
        each.
        """
        if self._seeds[0] is not None:
            self._batch.draws = Draws.seeded(self._seeds[0], self.num_envs)
        wanted = [journey_of(self._batch.replay, options) for options in self._options]
        chosen = np.array([-1 if j is None else j for j in wanted])
        for rows, journey in ((np.flatnonzero(chosen < 0), None), (np.flatnonzero(chosen >= 0), chosen[chosen >= 0])):
            if len(rows):
                self._batch.reset(rows, journey)
        self._forget(np.arange(self.num_envs))
        self._reset_seeds()
        self._reset_options()
        return self._batch.observation.copy()

    def step_async(self, actions: NDArray[Any]) -> None:
        self._action = np.asarray(actions, np.int64).reshape(self.num_envs)

    def step_wait(self) -> tuple[Floats32, Floats32, Bools, list[dict[str, Any]]]:
        """Observations [B, d] (of the next journey where one ended), scaled rewards [B], ends [B], infos."""
        step = self._batch.step(self._action)
        self._count(step)
        infos, ended = self._nothing.copy(), np.flatnonzero(step.done)
        for row in ended:
            infos[row] = self._final_info(step, int(row))
        if len(ended):
            self._batch.reset(ended)
            self._forget(ended)
        return self._batch.observation.copy(), (step.reward * self.reward_scale).astype(np.float32), step.done, infos

    def action_masks(self) -> Bools:
        """Bools [B, n], True = may be taken now."""
        return self._batch.mask.copy()

    def close(self) -> None:
        """Nothing is held open."""

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """What the rows' own method returns. A row has one: `action_masks`. Raises AttributeError for another."""
        if method_name != "action_masks" or method_args or method_kwargs:
            raise AttributeError(f"found {method_name}, expected action_masks(): rows of a batch have no other method")
        return list(self._batch.mask[self._rows(indices)])

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the environment, which all rows share, once per row. Raises AttributeError when there is
        none.
        """
        value = None if attr_name == "render_mode" else getattr(self, attr_name)
        return [value] * len(self._rows(indices))

    def has_attr(self, attr_name: str) -> bool:
        return attr_name == "render_mode" or hasattr(self, attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute for all rows. Raises AttributeError for some rows only: they share it."""
        if len(self._rows(indices)) != self.num_envs:
            raise AttributeError(
                f"{attr_name}: found some rows, expected all: the rows of a batch share their attributes"
            )
        setattr(self, attr_name, value)

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """True for SB3's Monitor, whose accounts it keeps."""
        return [issubclass(wrapper_class, Monitor)] * len(self._rows(indices))

    def _rows(self, indices: VecEnvIndices) -> Sequence[int]:
        return list(self._get_indices(indices))

    def _forget(self, rows: Ints) -> None:
        if len(rows) == len(self._batch):
            self._sum: Floats = np.zeros(len(rows))
            self._discounted: Floats = np.zeros(len(rows))
            self._start: Floats = np.zeros(len(rows))
        self._sum[rows] = self._discounted[rows] = 0.0
        self._start[rows] = self._batch.now[rows]

    def _count(self, step: Step) -> None:
        days = (step.turn.now - self._start) / 86_400.0
        self._sum += step.reward
        self._discounted += step.reward * self.spec.reward.discount(days)

    def _final_info(self, step: Step, row: int) -> dict[str, Any]:
        return {
            "terminal_observation": step.observation[row],
            "TimeLimit.truncated": bool(step.truncated[row]) and self.spec.reward.discount_per_day < 1.0,
            "episode": {
                "r": float(self._sum[row]),
                "discounted": float(self._discounted[row]),
                "l": int(step.index[row]) + 1,
                "t": round(time.monotonic() - self._started, 6),
            },
        }
