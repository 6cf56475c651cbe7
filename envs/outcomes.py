"""What customers do after an action: the one thing an environment does not share with the live engine.

An outcome model is learned from logs (`envs/ensemble.py`) or known (`envs/worlds.py`); the environment cannot
tell them apart.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.records import EventColumns, Floats, Floats32, Ints
from envs.draws import Draws
from envs.replay import Replay

Latent = dict[str, NDArray[np.generic]]
"""Hidden variables of B customers, first axis B. Only the model that made them reads them."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One decision of each of B customers and the window that follows it, (now, until].

    observation: Floats32 [B, d]; context: Floats [B, c]; action: Ints [B], catalogue rows. last_contact: Ints
    [B], the row of the latest contact sent at or before now, 0 = none. now, until: Floats [B], epoch seconds.
    send_at: Floats [B], NaN for hold; may lie after `until`. zone: Ints [B].
    """

    observation: Floats32
    context: Floats
    action: Ints
    last_contact: Ints
    now: Floats
    send_at: Floats
    until: Floats
    zone: Ints


class OutcomeModel(Protocol):
    """Which events follow a decision. All randomness comes from `draws`, row by row."""

    def begin(self, replay: Replay, journey: Ints, draws: Draws) -> Latent:
        """The hidden variables of customers who start on these journeys of the replay, Ints [B]."""
        ...

    def outcomes(self, latent: Latent, turn: Turn, draws: Draws) -> EventColumns:
        """The window's events: row in [0, B), occurred_at in (now, until]. May change `latent` in place."""
        ...

    def evolve(self, latent: Latent, turn: Turn, replayed: Floats, draws: Draws) -> Floats:
        """The context of the next decision, [B, c]: `replayed` with its endogenous columns replaced."""
        ...
