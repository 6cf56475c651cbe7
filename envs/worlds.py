"""Worlds whose truth is known: an outcome model with its own customers, spec and marketer."""

from importlib import import_module
from typing import Protocol

from engine.errors import SpecError, nearest
from engine.policy import Policy
from engine.spec import Spec
from envs.outcomes import OutcomeModel
from envs.replay import Replay

_HOMES = {
    "retail": "envs.retail:RetailWorld",
    "fatigue": "envs.small.fatigue:Fatigue",
    "null": "envs.small.null:Null",
    "confounded": "envs.small.confounded:Confounded",
    "delayed": "envs.small.delayed:Delayed",
    "rare": "envs.small.rare:Rare",
    "drift": "envs.small.drift:Drift",
    "new_content": "envs.small.new_content:NewContent",
}
NAMES = tuple(_HOMES)
"""All worlds. The front door lists them too."""


class World(OutcomeModel, Protocol):
    """A synthetic world. `begin` wants a replay that this world made: it holds the hidden variables."""

    @property
    def name(self) -> str: ...

    @property
    def spec(self) -> Spec: ...

    def replay(self, customers: int, days: int, seed: int, start: float | None = None) -> Replay:
        """Fresh customers with their history; the same seed gives the same i-th customer for any number of them.

        start: epoch seconds from which on decisions come up; None is where the world's own calendar begins.
        """
        ...

    def logging_policy(self) -> Policy:
        """How this world's company decides today; gives every eligible action some probability."""
        ...


def world(name: str) -> World:
    """The world of that name. Raises SpecError for an unknown one."""
    if name not in NAMES:
        raise SpecError(f"world: found {name!r}, expected one of the known worlds{nearest(name, NAMES)}")
    module, _, kind = _HOMES[name].partition(":")
    made: World = getattr(import_module(module), kind)()
    return made
