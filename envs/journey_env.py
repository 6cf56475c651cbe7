"""The customer journey as a `gymnasium.Env`: one customer at a time."""

from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from engine.errors import CatalogueError, TrainingError
from engine.records import Bools, Floats32
from engine.spec import Spec
from envs.batch import JourneyBatch, Step
from envs.draws import Draws
from envs.outcomes import OutcomeModel
from envs.replay import Replay


class JourneyEnv(gymnasium.Env[Floats32, np.int64]):
    """
    ## Description
    A customer's decisions come up one after another, at the instants at which they came up in a journey of the
    replay. At each, one action of the catalogue is taken: hold, or a content on a channel at a time. What the
    customer does until the next decision comes from the outcome model, learned from a log or known. Weather, stock
    and whatever else no action of ours changes is replayed.

    ## Observation Space
    `Box`, float32 `[d]`: the spec's encoder over the customer's history, the context and the local clock, as in
    serving. Raw features: normalising belongs to the policy. `spec.encoder.names` says what each column is.

    ## Action Space
    `Discrete(n)`: rows of the spec's catalogue; 0 is hold. `action_masks()` says which may be taken now. `illegal`
    says what becomes of the others: "replace" takes the first action that is allowed instead (hold, unless the spec
    has no hold), as Gymnasium wants every element of the action space to be accepted, and says so in `info`;
    "raise" raises TrainingError.

    ## Rewards
    The spec's reward of the events up to the next decision, less the action's cost, in the spec's currency.

    ## Starting State
    The first decision of a journey that the seed chooses, or `options={"journey": name or index}`; the history
    before it is known.

    ## Episode End
    Terminated: an event of a kind that ends the journey happened. Truncated: the replayed journey has no further
    decision; the customer would have gone on.

    ## Information
    `customer_id`, `journey` and `index` (place in the replay; number of the decision that comes up), `now` and
    `until` (epoch seconds, its window). After a step also `events` (name, epoch seconds, value), `action` (the row
    taken) and `replaced`.

    ## Arguments
    `spec`, `model` (OutcomeModel), `replay` (Replay), `illegal` ("replace" or "raise"). With the same seed it
    equals a row of `VectorJourneyEnv`: seed s + i here is row i there with seed s.

    ```python
    env = JourneyEnv(world.spec, world, world.replay(customers=100, days=28, seed=1))
    observation, info = env.reset(seed=7)
    action = env.action_space.sample(env.action_masks().astype("int8"))
    observation, reward, terminated, truncated, info = env.step(action)
    ```
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  as gymnasium declares it

    def __init__(
        self,
        spec: Spec,
        model: OutcomeModel,
        replay: Replay,
        illegal: Literal["replace", "raise"] = "replace",
        render_mode: None = None,
    ) -> None:
        self._spec, self.render_mode, self._illegal = spec, render_mode, illegal
        self._batch = JourneyBatch(spec, model, replay, Draws.seeded(0, 1))
        self._seeded = False
        self.observation_space = observation_space(spec)
        self.action_space = gymnasium.spaces.Discrete(len(spec.catalogue))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats32, dict[str, Any]]:
        """Start a journey. Raises TrainingError for a journey that the replay does not hold."""
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            key = seed if seed is not None else int(self.np_random.integers(2**63))
            self._batch.draws, self._seeded = Draws.seeded(key, 1), True
        journey = journey_of(self._batch.replay, options)
        self._batch.reset(journey=None if journey is None else np.array([journey]))
        return self._batch.observation[0].copy(), self._info()

    def step(self, action: np.int64) -> tuple[Floats32, float, bool, bool, dict[str, Any]]:
        """Take an action. CatalogueError: there is no such row. TrainingError: the journey is over."""
        row = int(action)
        if not 0 <= row < len(self._spec.catalogue):
            raise CatalogueError(f"action: found row {row}, expected 0 to {len(self._spec.catalogue) - 1}")
        allowed = self._batch.mask[0]
        replaced = self._illegal == "replace" and not self._batch.over[0] and not allowed[row]
        row = int(allowed.argmax()) if replaced else row
        step = self._batch.step(np.array([row]))
        info = self._info() | {"events": self._named(step), "action": row, "replaced": replaced}
        ended, cut = bool(step.terminated[0]), bool(step.truncated[0])
        return step.observation[0].copy(), float(step.reward[0]), ended, cut, info

    def action_masks(self) -> Bools:
        """Bools [n], True = may be taken now. The name is what sb3-contrib looks for."""
        allowed: Bools = self._batch.mask[0].copy()
        return allowed

    def _info(self) -> dict[str, Any]:
        batch = self._batch
        return {
            "customer_id": batch.replay.customer_id[int(batch.journey[0])],
            "journey": int(batch.journey[0]),
            "index": int(batch.index[0]),
            "now": float(batch.now[0]),
            "until": float(batch.until[0]),
        }

    def _named(self, step: Step) -> list[tuple[str, float, float]]:
        events = step.events
        rows = zip(events.kind, events.occurred_at, events.value, strict=True)
        return sorted(
            ((self._spec.kinds[k].name, float(at), float(v)) for k, at, v in rows), key=lambda event: event[1]
        )


def observation_space(spec: Spec) -> gymnasium.spaces.Space[Floats32]:
    """Finite float32 [d]. The bounds are the type's: counts, values and numbers of the context have none."""
    limit: NDArray[np.float32] = np.full(spec.encoder.size, np.finfo(np.float32).max, np.float32)
    box: gymnasium.spaces.Space[Any] = gymnasium.spaces.Box(-limit, limit, dtype=np.float32)
    return box


def journey_of(replay: Replay, options: dict[str, Any] | None) -> int | None:
    """The journey that reset's options ask for, by index or customer id. Raises TrainingError when there is none."""
    wanted = (options or {}).get("journey")
    if wanted is None:
        return None
    if isinstance(wanted, str) and wanted in replay.customer_id:
        return list(replay.customer_id).index(wanted)
    if isinstance(wanted, int | np.integer) and 0 <= wanted < len(replay):
        return int(wanted)
    raise TrainingError(
        f"options.journey: found {wanted!r}, expected a customer id of the replay or 0 to {len(replay) - 1}"
    )


def of_world(
    world: str,
    customers: int = 1000,
    days: int = 28,
    seed: int = 0,
    start: float | None = None,
    render_mode: None = None,
) -> JourneyEnv:
    """A world whose truth is known, by name: `gymnasium.make("nextbest/Retail-v0", customers=…, days=…, seed=…,
    start=…)`; there is one id for each of `envs.worlds.NAMES`. The arguments are those of `World.replay`.
    """
    from envs import worlds

    known = worlds.world(world)
    return JourneyEnv(known.spec, known, known.replay(customers, days, seed, start), render_mode=render_mode)
