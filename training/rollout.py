"""What a policy earns in an environment: the same customers, the same chances, one policy after the other."""

import numpy as np

from engine.policy import Policy, draw
from engine.records import DAY, Floats
from engine.spec import Spec
from envs.batch import JourneyBatch
from envs.draws import Draws
from envs.outcomes import OutcomeModel
from envs.replay import Replay


def returns(spec: Spec, model: OutcomeModel, replay: Replay, policy: Policy, seed: int) -> Floats:
    """Discounted returns [J], in the spec's currency, of one episode along each journey of the replay.

    Σ reward · discount_per_day ^ (days since the journey's first decision). Two policies with the same seed meet the
    same chances (common random numbers), so their difference is known better than either.
    """
    everyone = np.arange(len(replay))
    batch = JourneyBatch(spec, model, replay, Draws.independent(seed, len(replay)))
    batch.reset(everyone, everyone)
    choices, start, total = Draws.independent(seed, len(replay), salt=1), batch.now.copy(), np.zeros(len(replay))
    while len(batch):
        probabilities = policy.probabilities(batch.observation, batch.mask)
        action, _ = draw(probabilities, choices.uniform(1)[:, 0], batch.mask)
        step = batch.step(action)
        days = (step.turn.now - start[step.journey]) / DAY
        total[step.journey] += step.reward * spec.reward.discount(days)
        going = np.flatnonzero(~step.done)
        batch.keep(going)
        choices = choices.take(going)
    return total
