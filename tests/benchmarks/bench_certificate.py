"""How often the certificate fails a model that is right: one judged by journeys that it made up itself.

Every repetition has held-out customers of its own; the clone that acts is the shop's own policy, so nothing is wrong.
"""

from collections import Counter
from time import perf_counter

import torch

from engine.policy import Policy
from envs.outcomes import OutcomeModel
from envs.replay import Replay
from envs.simulate import by_policy, steps
from envs.worlds import world
from tests.training.played import journeys_of
from training.certificate import certificate
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.members import OutcomeSettings

CUSTOMERS, DAYS, JUDGED, REPETITIONS = 1000, 21, 250, 20


def test_false_alarms() -> None:
    torch.set_num_threads(1)
    place = world("retail")
    shop = place.logging_policy()

    def lived(model: OutcomeModel, replay: Replay, policy: Policy, seed: int) -> Journeys:
        decide = by_policy(policy, len(replay), seed)
        played = [step for step, _ in steps(model, replay, decide, place.spec, seed)]
        return journeys_of(place.spec, replay, played)

    train, valid, _ = lived(place, place.replay(CUSTOMERS, DAYS, 0), shop, 0).split(0)
    model = fit_outcome_model(place.spec, train, valid, OutcomeSettings())
    failed, spent = Counter[str](), 0.0
    alarms = 0
    for seed in range(1, REPETITIONS + 1):
        judged = lived(model, place.replay(JUDGED, DAYS, seed), shop, seed)
        began = perf_counter()
        verdict = certificate(place.spec, model, judged, shop, seed)
        spent += perf_counter() - began
        alarms += not verdict.passed
        failed.update(check.name for check in verdict.failures())
    print(f"\n{alarms} of {REPETITIONS} certificates of a right model failed {dict(failed)}")
    print(f"{spent / REPETITIONS:.1f} s each, {JUDGED} customers with {len(judged):,} decisions")
