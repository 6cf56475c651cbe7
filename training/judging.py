"""One judge, many policies: each is judged in a process of its own, as many at a time as there are processors."""

from collections.abc import Mapping
from functools import partial

from engine.policy import Policy
from training.clone import Progress
from training.judge import Judge
from training.judged import Judged
from training.side_by_side import Job, side_by_side

WORTH_A_PROCESS = 10_000
"""Judged decisions below which another process takes longer to start than to judge."""


def judge_all(
    judge: Judge,
    policies: Mapping[str, Policy],
    errors: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> dict[str, Judged]:
    """What the judge says of each policy, by its name. errors: as of `Judge.judge`, by name; None = the judge's."""
    jobs: dict[str, Job[Judged]]
    jobs = {
        name: partial(_judged, judge, policy, errors[name] if errors else None) for name, policy in policies.items()
    }
    apart = judge.decisions >= WORTH_A_PROCESS
    found = {one.name: one.result for one in side_by_side(jobs, progress, apart)}
    return {name: found[name] for name in policies}


def _judged(judge: Judge, policy: Policy, error: float | None, progress: Progress) -> Judged:
    found = judge.judge(policy, error)
    progress(1, 1)
    return found
