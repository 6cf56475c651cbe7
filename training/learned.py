"""The verb `simulate --env learned`: customers of a log, met once more in the environment that was learned from it.

What comes out is a log like any other, to be looked at beside the real one, or to be trained on.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from engine.bundle import Bundle
from engine.errors import BundleError, LogError
from engine.records import Ints
from envs.replay import Replay
from envs.simulate import by_policy, check_free, gather, steps, tell, write_log
from training.candidates import CLONE
from training.tracking import Tracking
from training.trained import Trained


def run(out: Path, customers: int | None, seed: int, policy: Path | None = None, run_id: str | None = None) -> None:
    """Held-out customers of a training (default: the latest) meet its behaviour clone, or a bundle, in its learned
    environment; their decision times, contexts and histories are those of the log.

    customers: how many (default: all; more than there are: some twice). Raises TrainingError, BundleError, LogError.
    """
    check_free(out)
    trained = Trained.of(Tracking(), run_id)
    bundle = trained.bundles.get(CLONE) if policy is None else Bundle.load(policy)
    if bundle is None:
        raise BundleError(f"run {trained.run}: found no {CLONE}, expected --policy with a bundle in its place")
    if bundle.spec.digest != trained.spec.digest:
        raise BundleError(f"{policy}: was made for another spec than run {trained.run}; train it on its log")
    model, held_out = trained.model(), trained.held_out()
    replay = held_out.replay()
    if not len(replay):
        raise LogError(f"{trained.log}: found no held-out customers, expected some to follow")
    replay = _so_many(replay, customers or len(replay))
    decide = by_policy(bundle.policy, len(replay), seed)
    played = steps(model, replay, decide, trained.spec, seed)
    what = f"{len(replay):,} customers meet {bundle.version}"
    log = gather(replay, track(played, what, total=int(replay.length.max()), transient=True))
    write_log(out, trained.spec, log, bundle.version, {"environment": trained.run, "seed": seed})
    tell(Console(), trained.spec, log, out)


def _so_many(replay: Replay, customers: int) -> Replay:
    """The first ones; all of them again, under names of their own, when more are wanted."""
    rows: Ints = np.arange(customers) % len(replay)
    again = np.arange(customers) // len(replay)
    taken = replay.take(rows)
    names = [f"{name}~{k + 1}" if k else name for name, k in zip(taken.customer_id, again, strict=True)]
    return replace(taken, customer_id=names)
