"""How far the members of a learned outcome model differ about what a decision earns: what the log leaves open."""

import numpy as np

from engine.records import Floats, Floats32
from envs.ensemble import EnsembleOutcomeModel
from envs.outcomes import Turn


def member_worths(model: EnsembleOutcomeModel, turn: Turn, told: Floats32 | None = None) -> Floats:
    """The mean reward of each row's window as every member sees it, less the action's cost: Floats [M, B].

    A stream that others depend on counts with its chance instead of a draw (mean field: nothing here is luck, and the
    level may be off, by a tenth in the retail world); or, where it is known what the streams did, with that: `told`
    float32 [B, S + V] as in `Layout`, and then it is exact.
    """
    inputs, layout, reward = model.inputs.of(turn), model.layout, model.spec.reward
    paid = [i for i, s in enumerate(model.streams) if reward.each[s.kind] or reward.per_value[s.kind]]
    found = np.zeros((model.members, len(turn.now)))
    for m in range(model.members):
        output = model.output(turn, inputs, np.full(len(inputs), m))
        if told is not None:
            output[:, : layout.linked] += told @ model.outcome.links[m, : layout.told]
        for s in range(max(paid, default=-1) + 1):
            p = model.chance_of(s, turn, output)
            if s in paid:
                found[m] += p * model.worth_of(s, output)
            if told is None:
                output[:, : layout.linked] += p[:, None] * model.outcome.links[m, s]
    return found - reward.cost[turn.action]


def disagreement(model: EnsembleOutcomeModel, turn: Turn) -> Floats:
    """Standard deviation over the members of the mean reward, Floats [B]; 0 for a single member.

    The uncertainty of MOPO (Yu et al. 2020) in the currency of the reward. It sees only what the window itself is
    worth, not what the next states are, and nothing that all members get wrong together.
    """
    return np.asarray(member_worths(model, turn).std(axis=0), np.float64)
