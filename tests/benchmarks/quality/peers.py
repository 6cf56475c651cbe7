"""Learners that others wrote, on the logs of `curves`, beside ours.

Each peer learns from the training and validation customers, which is all that ours see; then the fresh customers of
`curves` meet the action that it scores highest of those that are eligible. VowpalWabbit's contextual bandit sees
attributes of actions, the logged propensity and minus the reward until the next decision: one step, as its users
have it. d3rlpy sees an episode a customer. None of them is tuned; steps are as many as time allows. Nothing is chosen
by what fresh customers say.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from envs.small.solve import Problem
from envs.small.world import SmallWorld
from envs.worlds import world
from tests.benchmarks.quality.curves import CURVES, LATER, WORLDS, worth
from tests.benchmarks.quality.learners import DAYS, log_of
from tests.benchmarks.quality.peer import PEERS, STAND_IN, Peer
from tests.benchmarks.quality.study import KEPT, Cell, Line, Study, kept

Found = Mapping[str, float]
"""value and error: mean and standard error over fresh customers."""


def run(cell: Cell) -> dict[str, Any]:
    """One peer on one log: what it is truly worth. Without a peer: what logging policy and optimum are worth."""
    torch.set_num_threads(1)
    place, fresh = world(cell["world"]), int(cell["fresh"])
    if "peer" not in cell:
        found = {"logging": worth(place, place.logging_policy(), fresh)}
        if isinstance(place, SmallWorld):
            optimum = Problem.of(place, DAYS, LATER.get(place.name)).optimum()
            found["reference"] = worth(place, optimum, fresh)
        return found
    seed = int(cell["seed"])
    seen, _, _ = log_of(place, int(cell["customers"]), seed).split(seed, (0.8, 0.0, 0.2))
    with Peer(cell["peer"], place.spec, seen, int(cell.get("steps", 0)), seed) as peer:
        return {**worth(place, peer, fresh), "seconds": peer.seconds, "decisions": len(seen)}


def table(lines: Sequence[Line]) -> str:
    """A row per world and size, of the means over logs; ours as `curves` has kept it of the same logs."""
    curves, place = _by_log(kept(KEPT / f"{CURVES.name}.jsonl")), _places(lines)
    there = {str(line.cell["peer"]) for line in lines if "peer" in line.cell}
    names = [peer for peer in (*PEERS, STAND_IN) if peer in there]
    shown = ["logging", "reference", "promoted", "best candidate", *names, "promoted − best peer", "best − best peer"]
    rows = ["| world | customers | logs | " + " | ".join(shown) + " |", "|---|---:|---:|" + "---:|" * len(shown)]
    groups: dict[tuple[str, int], list[Line]] = {}
    for line in lines:
        if "peer" in line.cell:
            groups.setdefault((str(line.cell["world"]), int(line.cell["customers"])), []).append(line)
    for (name, customers), own in sorted(groups.items()):
        seeds = sorted({int(line.cell["seed"]) for line in own})
        ours = [curves[name, customers, seed] for seed in seeds if (name, customers, seed) in curves]
        peers = {peer: _mean([line.found for line in own if line.cell["peer"] == peer]) for peer in names}
        promoted, best = (_mean([pick(one) for one in ours]) for pick in (_promoted, _best))
        found = [*(place.get((name, what)) for what in shown[:2]), promoted, best, *peers.values()]
        cells = ["" if one is None else f"{one['value']:.1f}" for one in found]
        cells += [_ahead(promoted, peers), _ahead(best, peers)]
        rows.append(f"| {name} | {customers:,} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _by_log(lines: Sequence[Line]) -> dict[tuple[str, int, int], Mapping[str, Any]]:
    """What whole trainings found, by world, customers and seed."""
    told = [line for line in lines if "candidates" in line.found]
    return {(str(x.cell["world"]), int(x.cell["customers"]), int(x.cell["seed"])): x.found for x in told}


def _places(lines: Sequence[Line]) -> dict[tuple[str, str], Found]:
    """What the logging policy and the reference are worth, by world; the reference of `retail` is that of `curves`."""
    alone = [line for line in lines if "peer" not in line.cell]
    learned = [line for line in kept(KEPT / f"{CURVES.name}.jsonl") if "reference" in line.cell]
    return {(str(x.cell["world"]), what): one for x in (*learned, *alone) for what, one in x.found.items()}


def _promoted(found: Mapping[str, Any]) -> Found:
    one: Found = found["candidates"][found["promoted"]] if found["promoted"] else found["logging"]
    return one


def _best(found: Mapping[str, Any]) -> Found:
    one: Found = max(found["candidates"].values(), key=lambda candidate: candidate["value"])
    return one


def _mean(found: Sequence[Found]) -> Found | None:
    if not found:
        return None
    error = np.sqrt(sum(one["error"] ** 2 for one in found)) / len(found)
    return {"value": float(np.mean([one["value"] for one in found])), "error": float(error)}


def _ahead(ours: Found | None, peers: Mapping[str, Found | None]) -> str:
    """Ours less the peer that turned out best; the standard error as if they met different customers, so too large.
    Nothing before all peers are there.
    """
    there = [one for one in peers.values() if one]
    if ours is None or len(there) < len(peers):
        return ""
    theirs = max(there, key=lambda one: one["value"])
    return f"{ours['value'] - theirs['value']:+.1f} ± {np.hypot(ours['error'], theirs['error']):.1f}"


def _cells(peers: Sequence[str]) -> list[Cell]:
    """One log of each size of each world."""
    sizes = (2_000, 10_000)
    logs = [{"world": name, "customers": size, "seed": 1, "fresh": 4_000} for size in sizes for name in WORLDS]
    return [log | {"peer": peer} | ({"steps": STEPS[peer]} if peer in STEPS else {}) for log in logs for peer in peers]


STEPS = {"d3rlpy DiscreteCQL": 60_000, "d3rlpy DiscreteBC": 20_000}
"""Batches that d3rlpy learns from (of 32 and of 100 decisions), chosen by time alone. CQL takes what follows from a
slow copy of itself that is renewed every 8,000 steps, so it looks eight decisions ahead at most.
"""

PEERS_STUDY = Study(
    name="peers",
    about="what VowpalWabbit's contextual bandit, d3rlpy's DiscreteCQL and BC are truly worth on the same logs",
    cells=[
        *({"world": name, "fresh": 4_000} for name in WORLDS),
        *_cells([peer for peer in PEERS if peer not in STEPS]),  # they learn in seconds
        *_cells(list(STEPS)),
    ],
    short=[
        {"world": "confounded", "fresh": 100},
        {"world": "confounded", "customers": 150, "seed": 1, "fresh": 100, "peer": STAND_IN},
    ],
    run=run,
    table=table,
)
