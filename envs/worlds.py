"""Worlds whose truth is known: an outcome model with its own customers, spec and marketer."""

from typing import Protocol

from engine.errors import SpecError, nearest
from engine.policy import Policy
from engine.spec import Spec
from envs.outcomes import OutcomeModel
from envs.replay import Replay

NAMES = ("retail",)


class World(OutcomeModel, Protocol):
    """A synthetic world. `begin` wants a replay that this world made: it holds the hidden variables."""

    @property
    def name(self) -> str: ...

    @property
    def spec(self) -> Spec: ...

    def replay(self, customers: int, days: int, seed: int) -> Replay:
        """Fresh customers with their history; the same seed gives the same i-th customer for any number of them."""
        ...

    def logging_policy(self) -> Policy:
        """How this world's company decides today; gives every eligible action some probability."""
        ...


def world(name: str) -> World:
    """The world of that name. Raises SpecError for an unknown one."""
    if name == "retail":
        from envs.retail import RetailWorld

        return RetailWorld()
    raise SpecError(f"world: found {name!r}, expected one of the known worlds{nearest(name, NAMES)}")
