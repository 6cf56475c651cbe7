"""The one-step baseline: take what earns most until the next decision, and look no further.

It is what most next-best-action products do. On journeys it loses whatever comes later: fatigue, delayed orders,
unsubscribes. The distance between it and those who plan is what planning over the journey is worth. As a one-step
policy it is a strong one: learned from doubly robust scores. The score of an action at a logged decision is
what a model of other customers expects of it, and for the action that was taken also what the model missed, times 1 / μ
(Dudík, Langford & Li, ICML 2011):

    ψ(a) = q̂(o, a) + 1{a = taken} / μ(a | o) · (reward − q̂(o, a)).

Its mean over decisions is unbiased when the propensities are right, even where q̂ is wrong. The policy is the network
with the largest mean of Σ_a π(a | o) ψ(a) less a little KL(π ‖ clone) (Athey & Wager, "Policy learning with
observational data", Econometrica 2021: q̂ cross-fitted, then policy learning on the scores).
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.records import Floats, Floats32, Ints
from engine.spec import Spec
from training.clone import FitSettings, Fitted, Progress, Tensors, fit, new_network
from training.divergence import TINY
from training.journeys import Journeys
from training.network import NetworkPolicy, TwoTower
from training.ope import taken
from training.panels import probabilities_of


@dataclass(frozen=True, slots=True)
class GreedySettings:
    """How the one-step policy is learned. reward: fit of the reward models. policy: fit of the policy. folds: customers
    are dealt into so many parts, each scored by a model of the others. largest: where weights 1 / μ are cut. closeness:
    weight of KL(π ‖ clone) against a score of one standard deviation of the reward. epsilon: exploration floor.
    """

    reward: FitSettings = FitSettings(epochs=8)  # noqa: RUF009, frozen
    policy: FitSettings = FitSettings(epochs=12, patience=4)  # noqa: RUF009, frozen
    folds: int = 2
    largest: float = 50.0
    closeness: float = 0.005
    epsilon: float = 0.02


def train_greedy(
    spec: Spec,
    data: tuple[Journeys, Journeys],
    clone: TwoTower,
    settings: GreedySettings = GreedySettings(),
    progress: Progress | None = None,
) -> Fitted:
    """The policy with the best scores on the training customers, stopped early on those of the validation customers.

    It looks at the reward until the next decision only. Where the log has no propensities the clone's stand in. Fails
    where `largest` cuts most of the weights: it then learns what q̂ says, the direct method. Losses are −(mean score −
    closeness · KL), in standard deviations of the reward.
    """
    train, valid = data
    attributes = spec.attributes.encode(spec.catalogue)
    behaviour = NetworkPolicy(clone, attributes, "clone")
    scale, mean = float(train.reward.std()) or 1.0, float(train.reward.mean())
    train, valid = (replace(part, reward=(part.reward - mean) / scale) for part in (train, valid))
    models = _reward_models(spec, train, valid, settings)
    lessons = []
    for part, whose in ((train, train.customer % settings.folds), (valid, np.full(len(valid), -1))):
        likely = probabilities_of(behaviour, part.observation, part.mask)
        lessons.append(_lesson(models, part, whose, likely, (attributes, settings.largest)))

    def loss(network: TwoTower, keys: Tensor, decisions: Tensors) -> Tensor:
        found = network.probabilities(decisions.observation, keys, decisions.mask)
        score, likely = decisions.wanted.unbind(1)
        distance = (found * (torch.log(found + TINY) - torch.log(likely + TINY))).sum(1)
        return (settings.closeness * distance - (found * score).sum(1)).mean()

    network = copy.deepcopy(clone)
    network.epsilon = settings.epsilon
    return fit(network, spec, loss, (lessons[0], lessons[1]), settings.policy, progress)


def pseudo_outcomes(expected: Floats32, action: Ints, reward: Floats, weight: Floats) -> Floats32:
    """ψ [N, n]: the model's answers `expected` [N, n]; at the logged action [N] also what it missed, times `weight`
    [N].
    """
    found, rows = expected.copy(), np.arange(len(action))
    found[rows, action] += (weight * (reward - expected[rows, action])).astype(np.float32)
    return found


def _reward_models(spec: Spec, train: Journeys, valid: Journeys, settings: GreedySettings) -> list[TwoTower]:
    """For each fold a two-tower regression of the reward on the customers of all other folds."""
    everybody = np.arange(len(train.customer_ids))
    found = []
    for fold in range(settings.folds):
        others = train.take(everybody[everybody % settings.folds != fold])
        if not len(others):
            others = train
        network = new_network(spec, train, spec.attributes.encode(spec.catalogue), settings.reward.seed + fold)
        data = Tensors.of(others), Tensors.of(valid)
        found.append(fit(network, spec, regression, data, settings.reward).network)
    return found


def regression(network: TwoTower, keys: Tensor, data: Tensors) -> Tensor:
    """Squared error of the scores of the logged actions against the reward."""
    products = torch.sum(network.query(data.observation) * keys[data.action], dim=1)
    return functional.mse_loss(products / network.shape.embedding**0.5, data.reward)


def _lesson(
    models: list[TwoTower], part: Journeys, fold: Ints, likely: Floats32, given: tuple[Floats32, float]
) -> Tensors:
    """The decisions with ψ and the clone's probabilities as what is wanted, [N, 2, n]. fold: whose model answers, −1 =
    the mean of all. given: the attributes [n, k], the largest weight.
    """
    attributes, largest = given
    expected = np.zeros(part.mask.shape, np.float32)
    for number, model in enumerate(models):
        share = np.where(fold < 0, 1.0 / len(models), fold == number).astype(np.float32)
        rows = np.flatnonzero(share)
        expected[rows] += share[rows, None] * _answers(model, part, rows, attributes)
    guessed = taken(likely, part.action)
    chance = np.where(np.isnan(part.propensity), guessed, part.propensity)
    scores = pseudo_outcomes(expected, part.action, part.reward, np.minimum(1.0 / np.maximum(chance, 1e-9), largest))
    return replace(Tensors.of(part), wanted=torch.from_numpy(np.stack([scores, likely], axis=1)))


def _answers(model: TwoTower, part: Journeys, rows: Ints, attributes: Floats32) -> Floats32:
    """q̂ [R, n] of every action at these decisions."""
    with torch.no_grad():
        keys = model.keys(torch.from_numpy(attributes))
        blocks = torch.split(torch.from_numpy(part.observation[rows]), 8192)
        return np.concatenate([(model.query(b) @ keys.T / model.shape.embedding**0.5).numpy() for b in blocks])
