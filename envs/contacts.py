"""Which contact a customer got last: contacts are decided now and may go out later."""

from dataclasses import dataclass

import numpy as np

from engine.records import HOLD, Floats, Ints


@dataclass(slots=True)
class ContactTrail:
    """The latest contact that went out, and those still to go, of B customers.

    sent: Ints [B], the catalogue row of the latest contact that went out, HOLD = none; sent_at: Floats [B], -inf =
    never. waiting: Ints [B, p]; waiting_at: Floats [B, p], inf = a free place; p grows when a customer has more
    waiting.
    """

    sent: Ints
    sent_at: Floats
    waiting: Ints
    waiting_at: Floats

    @staticmethod
    def empty(n: int) -> "ContactTrail":
        return ContactTrail(
            np.full(n, HOLD, np.int64), np.full(n, -np.inf), np.zeros((n, 1), np.int64), np.full((n, 1), np.inf)
        )

    def clear(self, rows: Ints) -> None:
        """These customers have got nothing yet."""
        self.sent[rows], self.sent_at[rows] = HOLD, -np.inf
        self.waiting_at[rows] = np.inf

    def add(self, rows: Ints, action: Ints, send_at: Floats) -> None:
        """Each of `rows` (no row twice) gets a contact; hold is ignored."""
        real = action != HOLD
        rows, action, send_at = rows[real], action[real], send_at[real]
        if not len(rows):
            return
        if not np.isinf(self.waiting_at[rows]).any(axis=1).all():
            self.waiting = np.pad(self.waiting, ((0, 0), (0, 1)))
            self.waiting_at = np.pad(self.waiting_at, ((0, 0), (0, 1)), constant_values=np.inf)
        free = np.isinf(self.waiting_at[rows]).argmax(axis=1)
        self.waiting[rows, free], self.waiting_at[rows, free] = action, send_at

    def latest(self, rows: Ints, now: Floats) -> Ints:
        """The latest contact that went out to each of `rows` by `now`: Ints, HOLD = none. `now` may not go back."""
        at = self.waiting_at[rows]
        due = at <= now[:, None]
        last = np.where(due, at, -np.inf).argmax(axis=1)
        each = np.arange(len(rows))
        newer = due.any(axis=1) & (at[each, last] >= self.sent_at[rows])
        went = rows[newer]
        self.sent[went], self.sent_at[went] = self.waiting[went, last[newer]], at[newer, last[newer]]
        self.waiting_at[rows] = np.where(due, np.inf, at)
        return self.sent[rows]

    def next_waiting(self, rows: Ints) -> tuple[Ints, Floats]:
        """The contact that goes out next to each of `rows`, and when: (HOLD, inf) where none waits."""
        first = self.waiting_at[rows].argmin(axis=1)
        at = self.waiting_at[rows, first]
        return np.where(np.isinf(at), HOLD, self.waiting[rows, first]), at

    def keep(self, rows: Ints) -> None:
        """Only these customers stay, in this order."""
        self.sent, self.sent_at = self.sent[rows], self.sent_at[rows]
        self.waiting, self.waiting_at = self.waiting[rows], self.waiting_at[rows]
