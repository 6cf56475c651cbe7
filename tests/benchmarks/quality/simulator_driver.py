"""Runs simulators that others wrote, in a Python of their own, and answers in JSON lines. Imports nothing of ours.

Started with the simulator's name and the seed of its structure; then a line in, a line out:

- `{"seeds": [s, …]}` starts a journey for each seed: `{"state": [[…], …]}`
- `{"slots": [i, …], "actions": [a, …]}` goes on with some of them: `{"state": […], "reward": […], "done": […]}`

The first line out tells `{"state": [names], "actions": n}`. Structure (who there is, what they like) is the same in all
journeys; the noise of each follows its seed. A journey that is done keeps its last state: the simulators' own `step`
would have started the next one already.
"""

import copy
import json
import random
import sys
from importlib import import_module
from typing import Any


class Jar:
    """A simulator for tests: a jar of 3,000 coins, which big spoons empty long before the ten days are over.

    Spoon a of three takes 100, 400 or 1,600 coins, each worth less the more are taken at once. An empty jar ends it.
    """

    names = ("day", "coins")
    actions = 3

    def __init__(self) -> None:
        self._luck = random.Random(0)
        self._day, self._coins = 0, 3_000.0

    def start(self, seed: int) -> list[float]:
        self._luck = random.Random(seed)
        self._day, self._coins = 0, 3_000.0 * self._luck.uniform(0.8, 1.2)
        return [0.0, self._coins]

    def step(self, action: int) -> tuple[list[float], float, bool]:
        taken = min(self._coins, 100.0 * 4.0**action)
        self._coins -= taken
        self._day += 1
        return [float(self._day), self._coins], taken**0.5 + self._luck.gauss(0, 1), self._coins <= 0 or self._day == 10


class Gym:
    """A simulator with the interface of gym 0.26. Discrete actions only."""

    def __init__(self, env: Any, names: tuple[str, ...], own: tuple[Any, ...] = ()) -> None:
        """own: parts with a `random_` that a reset does not seed."""
        self.names, self.actions = names, int(env.action_space.n)
        self._env, self._own = env, own

    def start(self, seed: int) -> list[float]:
        for part in self._own:
            part.random_ = import_module("numpy").random.RandomState(seed)
        for space in (self._env.action_space, getattr(self._env, "env", self._env).action_space):
            space.seed(seed)  # RTBGym draws the first state's last bid from it
        return [float(x) for x in self._env.reset(seed=seed)[0]]

    def step(self, action: int) -> tuple[list[float], float, bool]:
        state, reward, done, _, _ = self._env.step(action)
        return [float(x) for x in state], float(reward), bool(done)


def made(name: str, structure: int) -> Any:
    """A simulator by name."""
    if name == "jar":
        return Jar()
    if name == "recgym":
        env = import_module("recgym").RECEnv(random_state=structure)
        names = tuple(f"taste_{i}" for i in range(env.user_feature_dim))
        return Gym(env, names, (env.user_model,))
    numpy, rtbgym = import_module("numpy"), import_module("rtbgym")
    bids = numpy.clip(
        numpy.logspace(-1, 1, 10), 0.1, 10.0
    )  # as by default, whose first is a rounding below its own 0.1
    env = rtbgym.CustomizedRTBEnv(rtbgym.RTBEnv(random_state=structure), action_meaning=bids)
    return Gym(env, ("timestep", "budget", "consumed", "cost_per_mille", "winning_rate", "won", "adjust_rate"))


def main(name: str, structure: int) -> None:
    """Answer until the input ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # whatever the simulators print is no answer
    simulator = made(name, structure)
    print(json.dumps({"state": list(simulator.names), "actions": simulator.actions}), file=out, flush=True)
    journeys: list[Any] = []
    for line in sys.stdin:
        asked = json.loads(line)
        if "seeds" in asked:
            journeys += [copy.deepcopy(simulator) for _ in range(len(asked["seeds"]) - len(journeys))]
            answer: dict[str, Any] = {
                "state": [j.start(s) for j, s in zip(journeys, asked["seeds"], strict=False)],
            }
        else:
            steps = [journeys[i].step(a) for i, a in zip(asked["slots"], asked["actions"], strict=True)]
            answer = {key: [s[k] for s in steps] for k, key in enumerate(("state", "reward", "done"))}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
