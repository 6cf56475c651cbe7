"""A simulator that somebody else wrote as an outcome model of ours: it runs in another Python, at the end of a pipe.

So its logs, its rollouts and its true values come from the same step loop as all others, and a policy meets it only as
it would meet a customer: through the fold, the encoder and the mask.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.clock import zone_id
from engine.policy import Policy
from engine.records import DAY, Bools, EventColumns, Floats, Floats32, Ints
from engine.spec import Spec
from envs.draws import Draws
from envs.outcomes import Latent, Turn
from envs.replay import Replay
from envs.simulate import by_policy, simulate
from envs.simulated_log import decisions_table
from tests.benchmarks.quality.interpreters import Interpreter

DRIVER = Path(__file__).with_name("simulator_driver.py")
PYTHON = Interpreter(
    "scope-rl-0.2.1",
    (
        ("numpy==1.26.4", "scipy==1.17.1", "scikit-learn==1.9.1", "gym==0.26.2", "pandas==3.0.6"),
        ("--no-deps", "scope-rl==0.2.1"),
    ),
)
"""What RECGym and RTBGym import; the other dependencies of scope-rl are for its own learners."""
START = 1_767_225_600.0
"""2026-01-01, 00:00 UTC: customers arrive from then on, in the course of four weeks."""


class Simulator:
    """The other end of the pipe, as an `OutcomeModel`; use it as a context. Its rows are places in the last replay.

    horizon: steps after which it is always done. discount: γ per step; a step is a day.
    """

    def __init__(self, name: str, structure: int, horizon: int, discount: float = 1.0) -> None:
        python = Path(sys.executable) if name == "jar" else PYTHON.path()
        self._process = subprocess.Popen(
            [python, "-W", "ignore", str(DRIVER), name, str(structure)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        told = self._answer()
        self.horizon, self.columns, self.actions = horizon, tuple(told["state"]), int(told["actions"])
        self.spec = Spec.parse(self._spec(name, discount), name)
        self._state: Floats = np.zeros((0, len(self.columns)))
        self._end: Floats = np.zeros(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *why: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def replay(self, journeys: int, seed: int) -> Replay:
        """Fresh customers, ready to be met once. No two seeds share one."""
        self._state = np.array(self._ask({"seeds": [1_000_000 * seed + j for j in range(journeys)]})["state"])
        first = START + DAY * np.random.default_rng(seed).integers(0, 28, journeys)
        decided_at = first[:, None] + DAY * np.arange(self.horizon)
        self._end = decided_at[:, -1] + DAY
        context = np.full((journeys, self.horizon, len(self.columns)), np.nan)
        context[:, 0] = self._state
        return Replay(
            customer_id=[f"c{j:05d}" for j in range(journeys)],
            zone=np.full(journeys, zone_id("UTC")),
            length=np.full(journeys, self.horizon),
            decided_at=decided_at,
            until=decided_at + DAY,
            context=context,
            initial=self.spec.fold.empty(journeys),
        )

    def begin(self, replay: Replay, journey: Ints, draws: Draws) -> Latent:
        return {"slot": journey.copy()}

    def outcomes(self, latent: Latent, turn: Turn, draws: Draws) -> EventColumns:
        """A reward unless it is 0, and the end where the simulator is done before its horizon; both at once after the
        decision. At the horizon nobody's journey ends: it is where looking stops.
        """
        slot = np.asarray(latent["slot"], np.int64)
        found = self._ask({"slots": slot.tolist(), "actions": (turn.action - 1).tolist()})
        reward, over = np.array(found["reward"], np.float64), np.array(found["done"], bool)
        going, done = np.flatnonzero(~over), over & (turn.until < self._end[slot])
        self._state[slot[going]] = np.array([found["state"][i] for i in going]).reshape(len(going), len(self.columns))
        row = np.concatenate([np.flatnonzero(reward), np.flatnonzero(done)])
        kind = np.repeat([0, 1], [np.count_nonzero(reward), np.count_nonzero(done)])
        value, action, catalogue = np.where(kind == 0, reward[row], 0.0), turn.action[row], self.spec.catalogue
        return EventColumns(
            row, kind, turn.now[row] + 1e-6, value, catalogue.channel[action], catalogue.content[action]
        )

    def evolve(self, latent: Latent, turn: Turn, replayed: Floats, draws: Draws) -> Floats:
        return self._state[np.asarray(latent["slot"], np.int64)]

    def value(self, policy: Policy, journeys: int, seed: int) -> Floats:
        """True returns [journeys] of fresh customers; the same seed, the same customers with the same luck."""
        replay = self.replay(journeys, seed)
        return simulate(self, replay, by_policy(policy, journeys, seed), self.spec, seed).returns(self.spec)

    def write_log(self, folder: Path, policy: Policy, journeys: int, seed: int) -> Floats:
        """`nextbest.toml` and decisions with reward and end in columns, as the log of a slot. Returns the returns."""
        replay = self.replay(journeys, seed)
        log = simulate(self, replay, by_policy(policy, journeys, seed), self.spec, seed)
        table = decisions_table(self.spec, log, policy.version)
        order = np.lexsort((log.index, log.journey))
        happened = np.bincount(log.events.row[log.events.kind == 1], minlength=journeys)
        last = np.append(log.journey[order][1:] != log.journey[order][:-1], True)
        done = last & (happened[log.journey[order]] > 0)
        table = table.append_column("reward", pa.array(log.reward[order])).append_column("done", pa.array(done))
        folder.mkdir(parents=True)
        pq.write_table(table, folder / "decisions.parquet")
        (folder / "nextbest.toml").write_text(self.spec.text, "utf-8")
        return log.returns(self.spec)

    def _spec(self, name: str, discount: float) -> str:
        lines = [f'name = "{name}"', "[journey]", f"discount_per_day = {discount}", f"horizon_days = {self.horizon}"]
        lines += ["hold = false"]
        for column in self.columns:
            lines += [f"[context.{column}]", 'type = "number"', 'evolves = "endogenous"']
        lines += ["[events.reward]", 'value = "points"', 'column = "reward"']
        lines += ["[events.done]", "ends_journey = true", 'column = "done"']
        lines += ["[channels.slot]", 'consent = "none"']
        for action in range(self.actions):
            lines += ["[[contents]]", f'id = "a{action}"']
        return "\n".join([*lines, "[reward.events.reward]", "per_value = 1.0", ""])

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the simulator stopped with status {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found


class SoftPolicy:
    """Half uniform, half a softmax of random weights of the state, standardised by what a pilot saw."""

    version = "half uniform, half softmax"

    def __init__(self, simulator: Simulator, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._columns = simulator.spec.encoder.context_columns
        replay = simulator.replay(200, seed)
        pilot = simulate(simulator, replay, by_policy(Uniform(), 200, seed), simulator.spec, seed).context
        self._centre, self._spread = pilot.mean(axis=0), np.maximum(pilot.std(axis=0), 1e-9)
        self._weights = rng.normal(size=(len(self._columns), simulator.actions))

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        """Never holds."""
        logits = (observation[:, self._columns] - self._centre) / self._spread @ self._weights
        soft = np.exp(logits - logits.max(axis=1, keepdims=True))
        chosen = 0.5 * soft / soft.sum(axis=1, keepdims=True) + 0.5 / soft.shape[1]
        return np.concatenate([np.zeros((len(chosen), 1)), chosen], axis=1).astype(np.float32)


class Uniform:
    """Every action that may be taken, with the same chance."""

    version = "uniform"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        return np.asarray(mask / mask.sum(axis=1, keepdims=True), np.float32)
