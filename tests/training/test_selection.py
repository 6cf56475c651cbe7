from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from engine.records import Floats
from envs.networks import Networks
from training import selection
from training.members import OutcomeSettings, Sample, Start, Told
from training.resampled import train_members
from training.selection import train_ensemble

torch.set_num_threads(1)

SLOPE = np.array([1.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5])
"""Of six columns of history and one of context."""
SETTINGS = OutcomeSettings(members=3, hidden=16, penalty=6.0)
START = Start(np.array([-2.0]), np.zeros((0, 1)), np.zeros((0, 1), bool), history=np.arange(6))


def sample(customers: int, seed: int) -> Sample:
    """Ten decisions of each; something happens with log-odds −2 + slope · what is seen, one column of history."""
    rng = np.random.default_rng(seed)
    seen = rng.normal(size=(10 * customers, len(SLOPE)))
    happened = rng.random(len(seen)) < 1.0 / (1.0 + np.exp(2.0 - seen @ SLOPE))
    target = torch.from_numpy(happened.astype(np.float32))

    def loss(output: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return binary_cross_entropy_with_logits(output[:, 0], target[rows], reduction="none")

    inputs = seen.astype(np.float32)
    return Sample.of(inputs, inputs[:, :0], loss, np.repeat(np.arange(customers), 10), torch.device("cpu"))


def slope_of(networks: Networks, seen: Sample) -> float:
    """By how much log-odds rise with the first column, by least squares over a sample."""
    x = seen.inputs.numpy()
    output = np.mean([networks.run(x, np.full(len(x), m))[:, 0] for m in range(len(networks))], axis=0)
    return float(np.linalg.lstsq(np.column_stack([np.ones(len(x)), x]), output, rcond=None)[0][1])


def heard_of(networks: Networks) -> Floats:
    return np.asarray(np.linalg.norm(networks.weights[0], axis=2).mean(axis=0), np.float64)


def test_who_was_chosen_is_shrunk_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """The price that silences five columns of luck made the sixth say less than it knows."""
    samples, found = [sample(3_000, 0), sample(1_000, 1)], list[Networks]()
    for relaxed in (1.0, selection.RELAXED):
        monkeypatch.setattr(selection, "RELAXED", relaxed)
        found.append(train_ensemble(samples, START, SETTINGS, Told(None)))
    shrunk, less = (slope_of(networks, samples[1]) for networks in found)
    assert shrunk < less < SLOPE[0]
    assert SLOPE[0] - less < 0.7 * (SLOPE[0] - shrunk)
    for networks in found:
        np.testing.assert_array_equal(heard_of(networks)[1:6], 0.0)


def test_who_explains_the_second_sample_worse_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among 40 customers luck is loud, and who pays nothing for it hears more of it."""
    monkeypatch.setattr(selection, "efforts", lambda settings: (settings,))
    monkeypatch.setattr(selection, "RELAXED", 1e-6)
    monkeypatch.setattr(selection, "PENALTIES", (0.25,))
    samples, cheap = [sample(40, 0), sample(1_000, 1)], replace(SETTINGS, penalty=0.5)
    first = train_members(samples, START, cheap, Told(None)).networks
    assert heard_of(first)[:6].min() > 0.0
    for one, other in zip(train_ensemble(samples, START, cheap, Told(None)).weights, first.weights, strict=True):
        np.testing.assert_array_equal(one, other)
