import numpy as np
import pytest
import torch

from engine.errors import TrainingError
from engine.records import Floats32
from training.network import NetworkPolicy, Shape, TwoTower, blended, constant, hold, moments, uniform

D, N = 7, 6
IDENTITY = slice(4, 4 + N - 1)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def attributes() -> Floats32:
    """Hold, then five contents: a hold flag, two channels, a price, and one-hot identities."""
    table = np.zeros((N, 4 + N - 1), np.float32)
    table[0, 0] = 1
    for row in range(1, N):
        table[row, 1 + row % 2] = 1
        table[row, 3] = 10 * row
        table[row, 4 + row - 1] = 1
    return table


def network(**settings: float) -> TwoTower:
    torch.manual_seed(0)
    made = TwoTower(Shape(D, attributes().shape[1], embedding=8, hidden=16), **settings)
    return made.fit_normaliser(observations(64), attributes())


def observations(n: int, seed: int = 0) -> Floats32:
    table = np.random.default_rng(seed).normal(3.0, 2.0, (n, D)).astype(np.float32)
    table[:, -1] = 4.0  # a constant feature
    return table


def masks(n: int, seed: int = 1) -> torch.Tensor:
    mask = torch.from_numpy(np.random.default_rng(seed).random((n, N)) < 0.5)
    mask[:, 0] = True
    return mask


def test_probabilities_are_a_distribution_over_eligible_actions_only() -> None:
    mask = masks(50)
    found = network(epsilon=0.1)(torch.from_numpy(observations(50)), torch.from_numpy(attributes()), mask)
    assert torch.allclose(found.sum(1), torch.ones(50), atol=1e-6)
    assert (found[~mask] == 0).all()
    share = 0.1 / mask.sum(1, keepdim=True)
    assert (found >= share * mask - 1e-7).all()


def test_a_row_without_any_eligible_action_is_zero_not_nan() -> None:
    found = network(epsilon=0.1)(
        torch.from_numpy(observations(1)), torch.from_numpy(attributes()), torch.zeros(1, N, dtype=torch.bool)
    )
    assert (found == 0).all()


def test_temperature_sharpens_and_sharpen_says_the_same_in_the_weights() -> None:
    inputs = torch.from_numpy(observations(5)), torch.from_numpy(attributes()), masks(5)
    cold = network(temperature=0.25)(*inputs)
    same = network()
    assert not torch.allclose(cold, same(*inputs), atol=1e-3)
    same.sharpen(4.0)
    assert torch.allclose(cold, same(*inputs), atol=1e-6)


def test_the_normaliser_centres_clips_and_ignores_constant_features() -> None:
    made = network()
    seen = made.normalised(torch.from_numpy(observations(64)))
    assert torch.allclose(seen.mean(0), torch.zeros(D), atol=1e-5)
    assert torch.allclose(seen.std(0, correction=0)[:-1], torch.ones(D - 1), atol=1e-5)
    assert (seen[:, -1] == 0).all()
    assert made.normalised(torch.full((1, D), 1e9)).max() == 5.0
    assert made.scale[3] == 50.0


@pytest.mark.parametrize("columns", [1, 7, 17, 33, 40])
def test_moments_a_few_columns_at_a_time_are_those_of_the_whole(columns: int) -> None:
    table = np.random.default_rng(0).lognormal(size=(500, columns)).astype(np.float32)
    mean, std = moments(table)
    np.testing.assert_allclose(mean, table.mean(0, dtype=np.float64), rtol=1e-13)
    np.testing.assert_allclose(std, table.std(0, dtype=np.float64), rtol=1e-13)


def test_an_action_is_known_by_its_attributes_not_its_place() -> None:
    made, order = network(), np.array([3, 0, 5, 1, 2, 4])
    observation, mask = torch.from_numpy(observations(9)), masks(9)
    found = made(observation, torch.from_numpy(attributes()), mask)
    turned = made(observation, torch.from_numpy(attributes()[order]), mask[:, order])
    assert torch.allclose(found[:, order], turned, atol=1e-6)


def test_forget_hides_identities_only_and_remember_restores() -> None:
    made, table = network(), torch.from_numpy(attributes())
    before = made.keys(table)
    made.forget(IDENTITY, share=1.0, generator=torch.Generator().manual_seed(0))
    blind = table.clone()
    blind[:, IDENTITY] = 0
    assert not torch.allclose(before, made.keys(table))
    hidden = made.keys(table)
    made.remember()
    assert torch.allclose(hidden, made.keys(blind))
    assert torch.allclose(before, made.keys(table))
    assert "known" not in made.state_dict()


def test_uniform_gives_all_eligible_actions_the_same() -> None:
    mask = masks(20)
    found = uniform(Shape(D, attributes().shape[1]))(
        torch.from_numpy(observations(20)), torch.from_numpy(attributes()), mask
    )
    assert torch.allclose(found, mask / mask.sum(1, keepdim=True), atol=1e-7)


def test_hold_and_constant_take_their_action_and_fall_back_to_hold() -> None:
    observation, mask = torch.from_numpy(observations(20)), masks(20)
    held = hold(attributes(), D)(observation, torch.from_numpy(attributes()), mask)
    assert torch.allclose(held[:, 0], torch.ones(20))
    found = constant(3, attributes(), D)(observation, torch.from_numpy(attributes()), mask)
    assert 0 < mask[:, 3].sum() < 20
    assert (found.argmax(1) == torch.where(mask[:, 3], 3, 0)).all()
    assert (found.max(1).values > 1 - 1e-6).all()


def test_constant_refuses_an_action_that_its_attributes_do_not_name() -> None:
    table = attributes()
    table[4] = table[2]
    with pytest.raises(TrainingError, match=r"row 2.*same attributes"):
        constant(2, table, D)


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"epsilon": 1.0}, {"epsilon": -0.1}])
def test_impossible_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match="expected temperature > 0"):
        network(**bad)


def test_network_policy_is_the_network() -> None:
    made, mask = network(epsilon=0.05), masks(4)
    policy = NetworkPolicy(made, attributes(), "v1")
    expected = made(torch.from_numpy(observations(4)), torch.from_numpy(attributes()), mask).detach().numpy()
    assert policy.version == "v1"
    assert np.allclose(policy.probabilities(observations(4), mask.numpy()), expected, atol=1e-6)


def test_what_never_varied_adds_nothing_later() -> None:
    """The environment ignores such a column as well: a policy that answered to it would be served untested."""
    table, other = observations(20), observations(20)
    other[:, -1] = 40.0
    keys, mask = torch.from_numpy(attributes()), masks(20)
    one, two = (network()(torch.from_numpy(t), keys, mask) for t in (table, other))
    assert torch.equal(one, two)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_blend_has_the_weighted_logits_of_both_in_one_network(share: float) -> None:
    first = network(temperature=1.3, epsilon=0.01)
    torch.manual_seed(5)
    second = TwoTower(Shape(D, attributes().shape[1], embedding=4, hidden=12), temperature=0.7, epsilon=0.05)
    second.fit_normaliser(observations(64), attributes())
    told, table, mask = torch.from_numpy(observations(40, seed=3)), torch.from_numpy(attributes()), masks(40)
    found, one, two = (n.logits(told, n.keys(table), mask) for n in (blended(first, second, share), first, second))
    wanted = torch.where(mask, (1 - share) * one + share * two, one)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert blended(first, second, share).epsilon == 0.05


def test_networks_that_see_differently_cannot_be_blended() -> None:
    other = TwoTower(Shape(D, attributes().shape[1], embedding=8, hidden=16))
    other.fit_normaliser(observations(64, seed=9), attributes())
    with pytest.raises(TrainingError, match="another mean each"):
        blended(network(), other, 0.5)
