"""Learners that others wrote, in a Python of their own: one learns from a log, then scores actions. Imports nothing of
ours.

Started with the peer's name and the log, a file of arrays (see `Log`). When it has learned it writes the line
`{"seconds": s}`. Then a line in, `{"rows": B}`, followed by observations float32 [B, d] and masks bool [B, n] as they
lie in memory, and out come scores float32 [B, n], higher is better; where the mask is False they mean nothing.
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Log:
    """N decisions, each customer's one after the other: observation [N, d], mask [N, n], action [N], propensity [N],
    reward [N] until the next decision, decided_at [N], terminal [N], timeout [N] (the log ends, the journey does not).

    attributes [n, k]: of the actions. discount: γ per decision. steps: of who counts them. seed: of who draws.
    """

    observation: Array
    mask: Array
    action: Array
    propensity: Array
    reward: Array
    decided_at: Array
    terminal: Array
    timeout: Array
    attributes: Array
    discount: float
    steps: int
    seed: int

    @staticmethod
    def read(file: Path) -> "Log":
        with np.load(file) as found:
            told: dict[str, Any] = {name: found[name] if found[name].ndim else found[name].item() for name in found}
            return Log(**told)


class Ridge:
    """A peer for tests that needs nothing: a ridge regression of the reward for each action."""

    def __init__(self, log: Log) -> None:
        seen = self._with_one(log.observation)
        self._weights = np.zeros((len(log.attributes), seen.shape[1]))
        for action in range(len(log.attributes)):
            own = seen[log.action == action]
            gram = own.T @ own + np.eye(seen.shape[1])
            self._weights[action] = np.linalg.solve(gram, own.T @ log.reward[log.action == action])

    def scores(self, observation: Array, mask: Array) -> Array:
        return np.asarray(self._with_one(observation) @ self._weights.T)

    @staticmethod
    def _with_one(observation: Array) -> Array:
        return np.concatenate([observation, np.ones((len(observation), 1))], axis=1).astype(np.float64)


class VowpalWabbit:
    """The contextual bandit of the command line, off-line, by files: the observation is shared, attributes are the
    actions', and each of the one meets each of the other (`-q`). One pass in the order of time; everything else is as
    VowpalWabbit has it. Only eligible actions are shown to it.
    """

    def __init__(self, log: Log, kind: str) -> None:
        self._workspace = import_module("vowpalwabbit").Workspace
        self._folder = TemporaryDirectory()
        self._model = Path(self._folder.name) / "model"
        self._actions = [_features(row) for row in log.attributes]
        order = np.argsort(log.decided_at, kind="stable")
        examples = self._file("train")
        with examples.open("w", encoding="ascii") as out:
            for i in order:
                label = f"0:{-log.reward[i]:.6g}:{log.propensity[i]:.6g} "
                out.write(self._example(log.observation[i], log.mask[i], {int(log.action[i]): label}))
        told = f"--cb_adf --cb_type {kind} -q sa --random_seed {log.seed} --quiet"
        self._workspace(f"{told} -d {examples} -f {self._model}").finish()
        examples.unlink()

    def scores(self, observation: Array, mask: Array) -> Array:
        """1 for what it takes, 0 for all others."""
        asked, answered = self._file("asked"), self._file("answered")
        with asked.open("w", encoding="ascii") as out:
            for row, allowed in zip(observation, mask, strict=True):
                out.write(self._example(row, allowed, {}))
        self._workspace(f"-i {self._model} -t -d {asked} -p {answered} --quiet").finish()
        found = np.zeros(mask.shape)
        lines = answered.read_text("ascii").split()
        for i, best in enumerate(lines):  # its place among those it was shown
            found[i, np.flatnonzero(mask[i])[int(best)]] = 1.0
        assert len(lines) == len(mask), f"found {len(lines)} answers, expected {len(mask)}"
        return found

    def _example(self, observation: Array, mask: Array, labels: dict[int, str]) -> str:
        actions = [f"{labels.get(a, '')}|a {self._actions[a]}" for a in np.flatnonzero(mask).tolist()]
        return "\n".join([f"shared |s {_features(observation)}", *actions, "", ""])

    def _file(self, name: str) -> Path:
        return Path(self._folder.name) / name


def _features(row: Array) -> str:
    """`place:number` of what is not 0."""
    return " ".join(f"{i}:{row[i]:.6g}" for i in np.flatnonzero(row).tolist())


class D3rlpy:
    """An algorithm of d3rlpy with its default settings, observations and rewards standardised, for `log.steps` steps.

    An episode a customer. It knows actions by their numbers only and no masks: neither learning nor its bootstrap has
    them. Columns that never change in the log are left out, which spares it what standardising does to them later.
    """

    def __init__(self, log: Log, name: str) -> None:
        d3rlpy, self._torch = import_module("d3rlpy"), import_module("torch")
        self._torch.set_num_threads(1)
        d3rlpy.seed(log.seed)
        self._columns = np.flatnonzero(log.observation.std(axis=0) > 1e-6)
        dataset = d3rlpy.dataset.MDPDataset(
            observations=log.observation[:, self._columns],
            actions=log.action,
            rewards=log.reward.astype(np.float32),
            terminals=log.terminal.astype(np.float32),
            timeouts=log.timeout.astype(np.float32),
            action_space=d3rlpy.ActionSpace.DISCRETE,
            action_size=len(log.attributes),
        )
        scalers = d3rlpy.preprocessing
        config = getattr(d3rlpy.algos, f"{name}Config")(
            gamma=log.discount,
            observation_scaler=scalers.StandardObservationScaler(),
            reward_scaler=scalers.StandardRewardScaler(),
        )
        self._algorithm = config.create(device=False)
        self._algorithm.fit(
            dataset,
            n_steps=log.steps,
            n_steps_per_epoch=log.steps,
            logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
            show_progress=False,
        )

    def scores(self, observation: Array, mask: Array) -> Array:
        """Q of each action, or the logits of the imitator."""
        torch, made = self._torch, self._algorithm
        with torch.no_grad():
            seen = made.config.observation_scaler.transform(torch.from_numpy(observation[:, self._columns]))
            modules = made.impl.modules
            if hasattr(modules, "imitator"):
                return np.asarray(modules.imitator(seen).logits.numpy())
            return np.asarray(torch.stack([q(seen).q_value for q in modules.q_funcs]).mean(dim=0).numpy())


def learned(name: str, log: Log) -> Any:
    """A peer by name, when it has learned."""
    if name == "ridge":
        return Ridge(log)
    library, _, what = name.partition(" ")
    return VowpalWabbit(log, what) if library == "VW" else D3rlpy(log, what)


def main(name: str, file: Path) -> None:
    """Learn, then answer until the input ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the libraries print is no answer
    log, started = Log.read(file), time.process_time()
    peer = learned(name, log)
    out.write(json.dumps({"seconds": round(time.process_time() - started, 1)}).encode() + b"\n")
    out.flush()
    width, actions = log.observation.shape[1], len(log.attributes)
    asking = sys.stdin.buffer
    for line in asking:
        rows = int(json.loads(line)["rows"])
        observation = np.frombuffer(asking.read(4 * rows * width), np.float32).reshape(rows, width)
        mask = np.frombuffer(asking.read(rows * actions), np.bool_).reshape(rows, actions)
        out.write(np.ascontiguousarray(peer.scores(observation, mask), np.float32).tobytes())
        out.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
