"""Journeys of a tiny world without a log in between: what its customers do under actions drawn at random."""

import numpy as np

from engine.policy import Policy
from engine.records import EventColumns
from engine.spec import Spec
from envs.batch import JourneyBatch, Step
from envs.draws import Draws
from envs.outcomes import OutcomeModel
from envs.replay import Replay
from training.journeys import Journeys


def play(spec: Spec, world: OutcomeModel, replay: Replay, seed: int = 0, policy: Policy | None = None) -> Journeys:
    """Every journey once; without a policy each allowed action is equally likely."""
    rng, parts = np.random.default_rng(seed), list[Step]()
    batch = JourneyBatch(spec, world, replay, Draws.independent(seed, len(replay)))
    batch.reset(journey=np.arange(len(replay)))
    while len(batch):
        u, mask = rng.random(batch.mask.shape), batch.mask
        if policy is None:
            action = (u * mask).argmax(axis=1)
        else:  # the first to come of exponential clocks
            chances = policy.probabilities(batch.observation, mask)
            action = (-np.log(u) / np.maximum(chances, 1e-12)).argmin(axis=1)
        parts.append(batch.step(action))
        batch.keep(np.flatnonzero(~batch.over))
    return journeys_of(spec, replay, parts)


def journeys_of(spec: Spec, replay: Replay, parts: list[Step]) -> Journeys:
    customer = np.concatenate([p.journey for p in parts])
    step = np.concatenate([p.index for p in parts])
    order = np.lexsort((step, customer))
    back = np.argsort(order)
    first = np.cumsum([0, *(len(p.journey) for p in parts[:-1])])
    events = EventColumns.concat([p.events for p in parts])
    row = np.concatenate([p.events.row + start for p, start in zip(parts, first, strict=True)])
    events = EventColumns(back[row], events.kind, events.occurred_at, events.value, events.channel, events.content)
    events = events.take(np.argsort(events.row, kind="stable"))  # as a log's are: `Journeys.take` relies on it
    n, kinds = len(customer), len(spec.kinds)
    cell = events.row * kinds + events.kind
    mask = np.concatenate([p.mask for p in parts])[order]

    def of_turns(name: str) -> np.ndarray:
        return np.concatenate([getattr(p.turn, name) for p in parts])[order]

    return Journeys(
        customer_ids=tuple(replay.customer_id),
        customer=customer[order],
        step=step[order],
        decided_at=of_turns("now"),
        until=of_turns("until"),
        observation=of_turns("observation"),
        mask=mask,
        action=of_turns("action"),
        propensity=1.0 / mask.sum(axis=1),
        context=of_turns("context"),
        zone=of_turns("zone"),
        moment=np.full(n, -1),
        counts=np.bincount(cell, minlength=n * kinds).reshape(n, kinds).astype(float),
        values=np.bincount(cell, weights=events.value, minlength=n * kinds).reshape(n, kinds).astype(float),
        events=events,
        reward=np.concatenate([p.reward for p in parts])[order],
        ended=np.concatenate([p.terminated for p in parts])[order],
        forbidden=np.zeros(n, bool),
        initial=replay.initial,
        history=EventColumns.empty(),
        discount_per_day=spec.reward.discount_per_day,
    )
