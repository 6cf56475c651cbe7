"""Contents that are declared but that no customer of the log could be sent: the environment knows them by their
attributes, so a policy can learn in it what to do once they are there.

A policy that never met a choice among them is only guessed to be right about it: policy gradients teach who wins among
those on offer, not what each is worth.
"""

import numpy as np

from engine.records import DAY
from engine.spec import Spec
from envs.replay import Replay

WEEK = 7 * DAY

MOST = 4
"""Times at which new contents come up that are looked at, at most; the first ones."""


def with_upcoming(spec: Spec, replay: Replay) -> Replay:
    """The journeys, and as many again at times when new contents are there: each of them whole weeks later, so that
    weekdays and hours are what they were. The replay itself where no content begins after its last decision.
    """
    if not len(replay):
        return replay
    begins = {content.valid_from for content in spec.catalogue.contents if content.valid_from is not None}
    last = float(np.nanmax(replay.decided_at))
    new = sorted(at for at in begins if at > last)[:MOST]
    if not new:
        return replay
    first = float(replay.decided_at[:, 0].min())
    later = [replay.later(float(np.ceil((at - first) / WEEK)) * WEEK) for at in new]
    return Replay.concat([*[replay] * len(later), *later])
