"""The live part of the demo: a real service in a process of its own, asked and told over a real socket."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.progress import track as progress

from engine.bundle import Bundle
from engine.clock import zone_name
from engine.errors import ServiceError
from engine.records import Event, EventColumns, Floats, Ints, Request, Value
from engine.spec import Spec
from envs.simulate import by_asking, gather, steps, value
from envs.worlds import World
from serving.client import Client
from training.journeys import Journeys
from training.logs import read_log

IN_FLIGHT = 8
"""Calls that wait for their answers at the same time."""


@contextmanager
def service(bundle: Path, store: Path) -> Iterator[str]:
    """`nextbest serve` in a process of its own; yields host:port. It is stopped with SIGTERM and must end well."""
    command = [sys.executable, "-m", "nextbest", "serve", str(bundle), "--store", str(store), "--port", "0"]
    with subprocess.Popen([*command, "--request-clock"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"listening on (\S+)", line)
            if not found:
                raise ServiceError(f"the service did not start: {line.strip() or 'see its message above'}")
            yield found.group(1)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
    if process.returncode:
        raise ServiceError(f"the service ended with status {process.returncode}, expected 0")


@dataclass(slots=True)
class Caller:
    """A marketing stack: asks `Decide` for customers and tells `Track` what they do.

    latency: seconds that each `Decide` took, as this process saw it. events: how many were told.
    """

    client: Client
    spec: Spec
    latency: list[float] = field(default_factory=list)
    events: int = 0

    def ask(self, names: list[str], contexts: list[dict[str, Value]], now: Floats, zones: list[str]) -> Ints:
        """Decide for B customers, IN_FLIGHT calls at a time; catalogue rows [B]."""

        def one(name: str, context: dict[str, Value], at: float, zone: str) -> int:
            began = perf_counter()
            action = self.client.decide(Request(f"{name}@{at:.6f}", name, context, zone), at).action
            self.latency.append(perf_counter() - began)
            return self.spec.catalogue.row(action.channel, action.content, action.timing)

        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            return np.array(list(threads.map(one, names, contexts, now.tolist(), zones)), np.int64)

    def tell(self, customers: Sequence[str], events: EventColumns) -> None:
        """Track events whose `row` is the place in `customers`."""
        catalogue, kinds = self.spec.catalogue, self.spec.kinds
        columns = (events.row, events.kind, events.occurred_at, events.value, events.channel, events.content)
        told = [
            Event(
                customer_id=customers[row],
                occurred_at=at,
                kind=kinds[kind].name,
                value=amount if kinds[kind].value is not None else None,
                channel=catalogue.channels[channel].name if channel >= 0 else None,
                content=catalogue.contents[content].id if content >= 0 else None,
            )
            for row, kind, at, amount, channel, content in zip(*(c.tolist() for c in columns), strict=True)
        ]
        for start in range(0, len(told), 1000):
            self.client.track_batch(told[start : start + 1000])
        self.events += len(told)


@dataclass(frozen=True, slots=True)
class Lived:
    """What the service did for the customers of a world, and what the company's own policy would have done.

    realised, logging: discounted returns [customers], of the same customers with the same luck. latency: seconds
    per call. events: told. skew: the largest difference between a logged propensity and the one that training
    computes from the service's own log.
    """

    realised: Floats
    logging: Floats
    latency: Floats
    events: int
    skew: float

    @property
    def lift(self) -> tuple[float, float, float]:
        """Mean gain per customer over the logging policy, and its 95 % interval (paired, normal)."""
        gain = self.realised - self.logging
        half = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
        return float(gain.mean()), float(gain.mean() - half), float(gain.mean() + half)


def live(world: World, bundle: Path, store: Path, customers: int, days: int, seed: int) -> Lived:
    """Fresh customers of a world meet the service: each decision is asked for, each event is told."""
    replay = world.replay(customers, days, seed)
    with service(bundle, store) as target, Client(target) as client:
        caller = Caller(client, world.spec)
        caller.tell(replay.customer_id, replay.history)
        played = steps(world, replay, by_asking(caller.ask, world.spec, replay), world.spec, seed)
        parts = []
        for step, propensity in progress(played, "the service decides", int(replay.length.max()), transient=True):
            caller.tell([replay.customer_id[j] for j in step.journey], step.events)
            parts.append((step, propensity))
    return Lived(
        realised=gather(replay, parts).returns(world.spec),
        logging=value(world, world.logging_policy(), customers, days, seed),
        latency=np.array(caller.latency),
        events=caller.events,
        skew=skew(bundle, store),
    )


def replayed(journeys: Journeys, bundle: Path, store: Path) -> tuple[Floats, int, float]:
    """Logged journeys pass through the service: what customers did is told, what next is asked.

    Returns latency [calls] in seconds, the number of events told, and the skew as in `Lived`.
    """
    spec = Bundle.load(bundle).spec
    names = journeys.customer_ids
    with service(bundle, store) as target, Client(target) as client:
        caller = Caller(client, spec)
        caller.tell(names, journeys.history)
        for k in progress(range(int(journeys.step.max()) + 1), "the service decides", transient=True):
            rows = np.flatnonzero(journeys.step == k)
            who = [names[c] for c in journeys.customer[rows]]
            contexts = [spec.context.mapping(row) for row in journeys.context[rows]]
            caller.ask(who, contexts, journeys.decided_at[rows], [zone_name(int(z)) for z in journeys.zone[rows]])
            followed = journeys.events.take(np.isin(journeys.events.row, rows))
            caller.tell([names[c] for c in journeys.customer], followed)
    return np.array(caller.latency), caller.events, skew(bundle, store)


def skew(bundle: Path, store: Path) -> float:
    """Training reads the log that the service wrote, folds it, and asks the policy again: the largest difference."""
    served = Bundle.load(bundle)
    journeys = Journeys.of(served.spec, read_log(served.spec, f"sqlite:///{store.resolve()}"))
    probabilities = served.policy.probabilities(journeys.observation, journeys.mask)
    again = probabilities[np.arange(len(journeys)), journeys.action]
    return float(np.abs(again - journeys.propensity).max())
