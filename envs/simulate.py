"""A policy meets customers, and a log comes out: true values, logs to learn from, and the `simulate` verb."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
import pyarrow.parquet as pq
from pyarrow import csv
from rich.console import Console
from rich.progress import track

from engine.bundle import Bundle
from engine.clock import zone_name
from engine.errors import BundleError, LogError
from engine.policy import Policy, draw
from engine.records import HOLD, Bools, EventColumns, Floats, Floats32, Ints, Value
from engine.spec import Spec
from envs.batch import JourneyBatch, Step
from envs.draws import Draws
from envs.outcomes import OutcomeModel
from envs.replay import Replay
from envs.simulated_log import Simulated, customers_table, decisions_table, events_table
from envs.worlds import World, world


@dataclass(frozen=True, slots=True)
class Question:
    """B customers who wait for a decision. journey: Ints [B], place in the replay; index: Ints [B], 0 for the first.

    observation: Floats32 [B, d]; mask: Bools [B, n]; context: Floats [B, c]; now: Floats [B]; zone: Ints [B].
    """

    journey: Ints
    index: Ints
    observation: Floats32
    mask: Bools
    context: Floats
    now: Floats
    zone: Ints

    def take(self, rows: Ints) -> "Question":
        """Some of the customers."""
        return Question(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


class Decide(Protocol):
    """Answers a question: catalogue rows Ints [B] and their propensities Floats [B] (NaN where not known)."""

    def __call__(self, question: Question, /) -> tuple[Ints, Floats]: ...


Ask = Callable[[list[str], list[dict[str, Value]], Floats, list[str]], Ints]
"""Decisions from outside: (customer ids, contexts, instants, IANA zones) → catalogue rows."""


def by_policy(policy: Policy, journeys: int, seed: int) -> Decide:
    """Decide by a policy; every journey has its own luck, so two policies with one seed share it."""
    draws = Draws.independent(seed, journeys, salt=7)

    def decide(question: Question) -> tuple[Ints, Floats]:
        luck = draws.take(question.journey)
        u = luck.uniform(1)[:, 0]
        draws.put(question.journey, luck)
        return draw(policy.probabilities(question.observation, question.mask), u, question.mask)

    return decide


def by_asking(ask: Ask, spec: Spec, replay: Replay) -> Decide:
    """Decide by asking somebody else, who sees only what a caller of the service would send along."""

    def decide(question: Question) -> tuple[Ints, Floats]:
        action = ask(
            [replay.customer_id[j] for j in question.journey],
            [spec.context.mapping(row) for row in question.context],
            question.now,
            [zone_name(int(z)) for z in question.zone],
        )
        return np.asarray(action, np.int64), np.full(len(question.now), np.nan)

    return decide


def steps(
    model: OutcomeModel, replay: Replay, decide: Decide, spec: Spec, seed: int, enforce: bool = True
) -> Iterator[tuple[Step, Floats]]:
    """Every journey of the replay once, all of them side by side: yields each `Step` and its propensities [B].

    `Step.journey` says whose rows they are; journeys that have ended are left out of the next step. `Step.events` can
    be told to a live service before the next step is asked for. enforce: see `JourneyBatch.step`.
    """
    batch = JourneyBatch(spec, model, replay, Draws.independent(seed, len(replay), salt=6))
    batch.reset(journey=np.arange(len(replay)))
    while len(batch):
        question = Question(
            batch.journey.copy(),
            batch.index.copy(),
            batch.observation,
            batch.mask,
            batch.context,
            batch.now,
            batch.zone,
        )
        action, propensity = decide(question)
        yield batch.step(action, enforce), propensity
        batch.keep(np.flatnonzero(~batch.over))


def simulate(
    model: OutcomeModel, replay: Replay, decide: Decide, spec: Spec, seed: int, masks: bool = False
) -> Simulated:
    """Let `decide` meet the customers of the replay, once each. masks: keep them (n bytes per decision)."""
    return gather(replay, steps(model, replay, decide, spec, seed), masks)


def gather(replay: Replay, played: Iterable[tuple[Step, Floats]], masks: bool = False) -> Simulated:
    """What was played, as one log."""
    parts: list[Simulated] = []
    for step, propensity in played:
        turn, events = step.turn, step.events
        whose = replace(events, row=step.journey[events.row])
        parts.append(
            Simulated(
                replay=replay,
                journey=step.journey,
                index=step.index,
                action=turn.action,
                decided_at=turn.now,
                send_at=turn.send_at,
                propensity=propensity,
                reward=step.reward,
                context=turn.context,
                mask=step.mask if masks else None,
                events=whose,
            )
        )
    columns = ("journey", "index", "action", "decided_at", "send_at", "propensity", "reward", "context")
    return Simulated(
        replay=replay,
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in columns},
        mask=np.concatenate([part.mask for part in parts if part.mask is not None]) if masks else None,
        events=EventColumns.concat([part.events for part in parts]),
    )


def value(world: World, policy: Policy, customers: int, days: int, seed: int, start: float | None = None) -> Floats:
    """True value: discounted returns [customers] of fresh customers of the world under a policy, from `start` on.

    The same seed means the same customers with the same luck, so the difference of two policies is far more
    exact than either value. `value(...).mean()` has standard error `.std() / sqrt(customers)`.
    """
    replay = world.replay(customers, days, seed, start)
    decide = by_policy(policy, customers, seed)
    return simulate(world, replay, decide, world.spec, seed).returns(world.spec)


def write_log(folder: Path, spec: Spec, log: Simulated, policy: str, about: Mapping[str, str | int]) -> None:
    """Write decisions, events, customers (Parquet, times in UTC microseconds), nextbest.toml and world.json: `about`.

    The folder appears whole or not at all; an earlier simulated log in its place is replaced. `eligible` (about 60
    texts a decision) is written only if the masks were kept; a reader can compute it again from the spec and the log.
    Raises LogError when the folder holds something else or cannot be written.
    """
    replay = log.replay
    tables = {
        "decisions": decisions_table(spec, log, policy),
        "events": events_table(spec, replay, log.events),
        "customers": customers_table(spec, replay),
    }
    check_free(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            fresh = Path(temporary) / "log"
            fresh.mkdir()
            for name, table in tables.items():
                pq.write_table(table, fresh / f"{name}.parquet")
            (fresh / "nextbest.toml").write_text(spec.text, "utf-8")
            _write_contents(fresh, spec)
            (fresh / "world.json").write_text(json.dumps(dict(about)) + "\n", "utf-8")
            if folder.exists():
                folder.rename(Path(temporary) / "before")
            fresh.rename(folder)
    except OSError as error:
        raise LogError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _write_contents(folder: Path, spec: Spec) -> None:
    """The contents file that the spec names, under its name."""
    if spec.contents_file is None or spec.contents_text is None:
        return
    target = folder / Path(spec.contents_file).name
    if target.suffix == ".parquet":
        pq.write_table(csv.read_csv(BytesIO(spec.contents_text.encode())), target)
    else:
        target.write_text(spec.contents_text, "utf-8")


def run(world_name: str, out: Path, customers: int, days: int, seed: int, policy: Path | None = None) -> None:
    """The verb `simulate`: customers of a world meet its policy, or that of a bundle folder; the log goes to `out`."""
    place = world(world_name)
    check_free(out)
    chosen = place.logging_policy() if policy is None else _policy_of(policy, place)
    replay = place.replay(customers, days, seed)
    decide = by_policy(chosen, customers, seed)
    played = steps(place, replay, decide, place.spec, seed)
    what = f"{customers:,} customers meet {chosen.version}"
    log = gather(replay, track(played, what, total=int(replay.length.max()), transient=True))
    about: dict[str, str | int] = {
        "world": place.name,
        "seed": seed,
        "customers": len(replay),
        "days": int(replay.length.max()),
    }
    write_log(out, place.spec, log, chosen.version, about)
    tell(Console(), place.spec, log, out)


def tell(console: Console, spec: Spec, log: Simulated, out: Path) -> None:
    """What a simulated log holds, in three lines."""
    returns, decisions = log.returns(spec), len(log.action)
    contacts, events = int((log.action != HOLD).sum()), len(log.events) + len(log.replay.history)
    error = 1.96 * returns.std() / np.sqrt(len(returns))
    counts = np.bincount(log.events.kind, minlength=len(spec.kinds))
    shown = ", ".join(f"{c:,} {k.name}" for k, c in zip(spec.kinds, counts, strict=True) if c)
    lines = (
        f"{out}: {len(returns):,} customers, {decisions:,} decisions, {events:,} events",
        f"  {contacts:,} contacts ({contacts / decisions:.0%} of the decisions); then {shown}",
        f"  worth {returns.mean():.2f} ± {error:.2f} per customer (discounted, 95 % interval)",
    )
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _policy_of(folder: Path, place: World) -> Policy:
    bundle = Bundle.load(folder)
    if bundle.spec.digest != place.spec.digest:
        raise BundleError(f"{folder}: was made for another spec than that of world {place.name!r}; train it on its log")
    return bundle.policy


def check_free(folder: Path) -> None:
    """Raises LogError when the folder holds something that no simulation wrote."""
    if folder.exists() and not (folder / "world.json").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise LogError(f"{folder}: found something that is no simulated log, expected a new folder or one to replace")
