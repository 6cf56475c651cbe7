from dataclasses import replace

import numpy as np

from engine.records import Floats, Ints
from tests.envs.tiny import TinyWorld, tiny_replay, tiny_spec
from tests.training.played import play
from training.rollout import leading_constants

SPEC = tiny_spec()


class DividedWorld(TinyWorld):
    """Old customers order after an offer, new ones after a tip."""

    def rates(self, context: Floats, action: Ints, send_at: Floats, until: Floats) -> Floats:
        rate = super().rates(context, action, send_at, until)
        rate[:, self.index["order"]] = 0.5 * (self.spec.catalogue.content[action] == context[:, 0])
        return rate


def test_the_best_constant_is_best_for_all_and_not_for_the_first_ids() -> None:
    """The first 300 of 1,500 customers are new, all others old."""
    replay = tiny_replay(SPEC, 1_500, longest=4)
    context = replay.context.copy()
    context[..., 0] = np.where(np.arange(1_500) < 300, 0.0, 1.0)[:, None]
    world = DividedWorld(SPEC, churn=0.0)
    log = play(SPEC, world, replace(replay, context=context), 0)
    rows, _ = leading_constants(SPEC, world, log, seed=0)
    assert SPEC.catalogue.actions[rows[0]].content == "offer"
