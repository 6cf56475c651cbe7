"""Which column of a journey's state counts what."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.catalogue import Catalogue, attribute_columns, attribute_values
from engine.records import Floats, Ints


@dataclass(frozen=True, slots=True)
class EventKind:
    """A declared kind of event. `value` is the unit of its value, None when it has none.

    response: it answers a contact. consent: it sets the consent of its channel. ends_journey: nothing follows it.
    complaint: no policy may bring significantly more of it than the log (the gate).
    column: where a log has it as a column of its decisions instead of rows of its own, None = nowhere.
    """

    name: str
    value: str | None = None
    response: bool = False
    consent: Literal["granted", "withdrawn"] | None = None
    ends_journey: bool = False
    complaint: bool = False
    column: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of the counters (decayed sums) and of the lasts (latest times), and who adds to which.

    count, value: Ints [K], the counter of each kind's events and of their values (-1: it has none).
    contact: Floats [n, counters], what one contact by each action adds. response_channel, response_content: the
    counter of the first channel's, the first content's responses (-1: not counted).
    last_response, last_of_kind: the last of any response, of each kind [K]; contacts come first among the lasts.
    """

    counters: tuple[str, ...]
    lasts: tuple[str, ...]
    count: Ints
    value: Ints
    contact: Floats
    response_channel: int
    response_content: int
    last_response: int
    last_of_kind: Ints


def lay_out(kinds: Sequence[EventKind], catalogue: Catalogue, content_memory: bool) -> Layout:
    """The layout for a spec; without `content_memory` no counters for single contents."""
    channels = [c.name for c in catalogue.channels]
    contents = [c.id for c in catalogue.contents] if content_memory else []
    events = [name for kind in kinds for name in _event_counters(kind)]
    contact_names, contact_amounts = _contacts(catalogue, channels, contents)
    responses: list[str] = []
    if any(kind.response for kind in kinds):
        responses = [f"response:{c}" for c in channels] + [f"response:content:{x}" for x in contents]
    counters = (*events, *contact_names, *responses)
    contact = np.zeros((len(catalogue), len(counters)))
    contact[1:, len(events) : len(events) + len(contact_names)] = contact_amounts
    first = len(events) + len(contact_names)
    lasts = ("contact", *(f"contact:{c}" for c in channels), "response", *(f"event:{k.name}" for k in kinds))
    place = {name: i for i, name in enumerate(events)}
    return Layout(
        counters=counters,
        lasts=lasts,
        count=np.array([place[f"event:{k.name}"] for k in kinds], np.int64),
        value=np.array([place.get(f"event:{k.name}:value", -1) for k in kinds], np.int64),
        contact=contact,
        response_channel=first if responses else -1,
        response_content=first + len(channels) if responses and contents else -1,
        last_response=1 + len(channels),
        last_of_kind=2 + len(channels) + np.arange(len(kinds)),
    )


def _event_counters(kind: EventKind) -> list[str]:
    return [f"event:{kind.name}"] + ([f"event:{kind.name}:value"] if kind.value is not None else [])


def _contacts(catalogue: Catalogue, channels: Sequence[str], contents: Sequence[str]) -> tuple[list[str], Floats]:
    """The counters of contacts and what one contact by each action but hold adds to them, Floats [n - 1, counters]."""
    columns = attribute_columns(catalogue.contents)
    names = ["contact", *(f"contact:{c}" for c in channels), *(f"content:{x}" for x in contents)]
    names += [f"attribute:{name}" + ("" if category is None else f"={category}") for name, category in columns]
    channel, content = catalogue.channel[1:, None], catalogue.content[1:, None]
    parts = [
        np.ones((len(channel), 1)),
        channel == np.arange(len(channels)),
        content == np.arange(len(contents)),
        attribute_values(catalogue.contents, columns)[content[:, 0]],
    ]
    return names, np.concatenate(parts, axis=1)
