"""What an action's attributes do, each by itself: effects that add up, and hang on who is asked.

A network that is told all attributes at once explains the contents of a log in any of many ways, and of a content that
no log has seen each of these says something else. Here the score of what may happen is a sum over the attributes, each
times what the customer's state makes of it (a factorisation of low rank, as in two towers):

    score of stream s += Σ_e (hidden · query[:, s, e]) (attributes · key[:, e]).

Who knows a text, a video and a text with a sale knows what a video with a sale adds up to.
"""

from dataclasses import dataclass

import numpy as np

from engine.records import Floats32, Ints


@dataclass(frozen=True, slots=True)
class Effects:
    """column: Ints [k], the columns of the inputs that are the action's attributes. query: float32 [M, h, S · e], from
    the last hidden layer, for the first S outputs. key: float32 [M, k, e].
    """

    column: Ints
    query: Floats32
    key: Floats32

    @property
    def streams(self) -> int:
        """S."""
        return int(self.query.shape[2]) // int(self.key.shape[2])

    def of(self, member: int, hidden: Floats32, inputs: Floats32) -> Floats32:
        """float32 [B, S], of one member, from its last hidden layer [B, h] and the inputs [B, in]."""
        query = (hidden @ self.query[member]).reshape(len(hidden), self.streams, -1)
        return np.asarray((query @ (inputs[:, self.column] @ self.key[member])[:, :, None])[:, :, 0], np.float32)
