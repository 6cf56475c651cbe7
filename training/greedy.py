"""The one-step baseline: take what earns most until the next decision, and look no further.

It is what most next-best-action products do. On journeys it loses whatever comes later: fatigue, delayed orders,
unsubscribes. The distance between it and PPO is what planning over the journey is worth.
"""

import copy
import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from engine.records import Floats32
from engine.spec import Spec
from training.clone import FitSettings, Fitted, Progress, Tensors, fit, new_network
from training.journeys import Journeys
from training.network import TwoTower

SHARPNESS = 10.0
"""How many times the typical difference between two eligible actions the logits are stretched to: all but argmax."""


def train_greedy(
    spec: Spec,
    train: Journeys,
    valid: Journeys,
    settings: FitSettings = FitSettings(),  # noqa: B008, frozen
    progress: Progress | None = None,
) -> Fitted:
    """Regress the reward of each decision on (observation, action attributes) with a two-tower score, then sharpen it.

    The direct method (Dudík, Langford & Li, ICML 2011): score(o, a) ≈ E[reward | o, a], squared error on the logged
    actions. Fails where the log never tried an action: its score is then a guess from similar ones.
    """
    attributes = spec.attributes.encode(spec.catalogue)
    scale = float(train.reward.std()) or 1.0
    mean = float(train.reward.mean())

    def loss(network: TwoTower, keys: Tensor, data: Tensors) -> Tensor:
        return functional.mse_loss(_scores(network, keys, data), (data.reward - mean) / scale)

    network = new_network(spec, train, attributes, settings.seed)
    fitted = fit(network, spec, loss, (Tensors.of(train), Tensors.of(valid)), settings, progress)
    return replace(fitted, network=sharpened(fitted.network, valid, attributes, SHARPNESS))


def _scores(network: TwoTower, keys: Tensor, data: Tensors) -> Tensor:
    """The scores of the logged actions [N], in standard deviations of the reward."""
    products = torch.sum(network.query(data.observation) * keys[data.action], dim=1)
    return products / math.sqrt(network.shape.embedding)


def sharpened(network: TwoTower, journeys: Journeys, attributes: Floats32, sharpness: float) -> TwoTower:
    """A copy whose logits differ by `sharpness` between two typical eligible actions of these decisions."""
    found = copy.deepcopy(network)
    data = Tensors.of(journeys)
    with torch.no_grad():
        rows = data.take(torch.arange(min(len(data), 4096)))
        scores = found.logits(rows.observation, found.keys(torch.from_numpy(attributes)), rows.mask)
        eligible = rows.mask.float()
        scores = torch.where(rows.mask, scores, 0.0)
        mean = scores.sum(1, keepdim=True) / eligible.sum(1, keepdim=True)
        spread = (((scores - mean) ** 2 * eligible).sum() / eligible.sum()).sqrt().item()
    found.sharpen(sharpness / max(spread, 1e-6))
    return found
