"""From the log's words back to a journey: what a snapshot must be equal to, and what replaces an outdated one."""

from collections.abc import Mapping, Sequence

import numpy as np

from engine.catalogue import Catalogue
from engine.errors import CatalogueError
from engine.journey import NEVER, Fold, JourneyState
from engine.records import Action, Event, EventColumns
from serving.store import Customer, History


class LogFold:
    """Folds logged events and decisions.

    Kinds, channels and contents that the spec no longer declares are left out. A contact still counts when its action
    is gone, as one with the nearest action that there is, so that caps do not forget it.
    """

    def __init__(self, fold: Fold) -> None:
        self.fold = fold
        self._kinds = {k.name: i for i, k in enumerate(fold.kinds)}
        self._channels = {c.name: i for i, c in enumerate(fold.catalogue.channels)}
        self._contents = {c.id: i for i, c in enumerate(fold.catalogue.contents)}

    def of(self, customer: Customer | None, history: History) -> JourneyState:
        """The journey of one customer, 1 row, whatever the order of the history."""
        state, first = self.fold.empty(1), np.zeros(1, np.int64)
        for channel, granted in (customer.consents if customer else {}).items():
            if channel in self._channels:
                self.fold.set_consent(state, first, channel, granted, NEVER)
        self.fold.add_events(state, self.columns(history.events, {e.customer_id: 0 for e in history.events}))
        contacts = [
            (nearest_row(self.fold.catalogue, action), decided_at, send_at)
            for decided_at, action, send_at in history.decisions
            if send_at is not None
        ]
        row, decided_at, send_at = (np.array([c[k] for c in contacts], np.float64) for k in range(3))
        self.fold.add_contacts(state, np.zeros(len(row), np.int64), row.astype(np.int64), decided_at, send_at)
        return state

    def columns(self, events: Sequence[Event], place: Mapping[str, int]) -> EventColumns:
        """Events as columns, their rows by `place` (customer → row)."""
        told = [e for e in events if self._means_something(e)]
        return EventColumns(
            row=np.array([place[e.customer_id] for e in told], np.int64),
            kind=np.array([self._kinds[e.kind] for e in told], np.int64),
            occurred_at=np.array([e.occurred_at for e in told], np.float64),
            value=np.array([e.value or 0.0 for e in told], np.float64),
            channel=np.array([self._channels.get(e.channel or "", -1) for e in told], np.int64),
            content=np.array([self._contents.get(e.content or "", -1) for e in told], np.int64),
        )

    def _means_something(self, event: Event) -> bool:
        """Not so a consent for a channel that is gone: without its channel it would be one for all channels."""
        if event.kind not in self._kinds:
            return False
        consents = self.fold.kinds[self._kinds[event.kind]].consent is not None
        return not consents or event.channel is None or event.channel in self._channels


def nearest_row(catalogue: Catalogue, action: Action) -> int:
    """The action's row; if it is gone, one with the same channel and, if possible, content or timing; else hold."""
    try:
        return catalogue.row(action.channel, action.content, action.timing)
    except CatalogueError:
        alike = [
            ((a.content == action.content) * 2 + (a.timing == action.timing), -row)
            for row, a in enumerate(catalogue.actions)
            if a.channel == action.channel
        ]
        return -max(alike)[1] if alike else 0
