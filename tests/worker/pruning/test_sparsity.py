"""Penalties, by hand."""

import torch

from models.channels import analyse
from tests.worker.training.small import small_network
from worker.pruning.sparsity import group_lasso, slimming_penalty


def test_slimming_is_the_sum_of_absolute_gammas():
    network = small_network()
    with torch.no_grad():
        network.get_submodule("wide_norm").weight[0] = -2.0
    state = network.state_dict()
    gammas = torch.cat([state[f"{name}_norm.weight"] for name in ("stem", "wide", "back", "deep")])
    torch.testing.assert_close(slimming_penalty(network), gammas.abs().sum())


def test_group_lasso_is_the_sum_of_the_norms_of_the_units():
    """`wide` and `deep` by a loop: filter, gamma and the columns that read the channel, four in the linear layer."""
    network = small_network()
    state = network.state_dict()
    expected = 0.0
    for c in range(10):
        parts = (state["wide.weight"][c], state["wide_norm.weight"][c], state["back.weight"][:, c])
        expected += sum(part.square().sum() for part in parts).sqrt()
    for c in range(8):
        columns = state["head.weight"][:, 4 * c : 4 * c + 4]
        parts = (state["deep.weight"][c], state["deep_norm.weight"][c], columns)
        expected += sum(part.square().sum() for part in parts).sqrt()
    groups = [group for group in analyse(network).groups if group.name != "stem"]
    torch.testing.assert_close(group_lasso(network, groups), expected)


def test_a_depthwise_filter_belongs_to_its_channel():
    network = small_network()
    state = network.state_dict()
    names = ("stem.weight", "stem_norm.weight", "back.weight", "back_norm.weight", "depthwise.weight")
    expected = 0.0
    for c in range(6):
        parts = [state[name][c] for name in names] + [state["wide.weight"][:, c], state["deep.weight"][:, c]]
        expected += sum(part.square().sum() for part in parts).sqrt()
    (group,) = [group for group in analyse(network).groups if group.name == "stem"]
    torch.testing.assert_close(group_lasso(network, [group]), expected)


def test_a_unit_that_is_zero_pulls_at_nothing():
    """Its norm has no gradient there; NaN would end the training."""
    network = small_network().requires_grad_(True)
    with torch.no_grad():
        for name, dim in (("wide.weight", 0), ("wide_norm.weight", 0), ("back.weight", 1)):
            network.get_parameter(name).select(dim, 3).zero_()
    group_lasso(network, analyse(network).groups).backward()
    gradient = network.get_parameter("wide.weight").grad
    assert gradient.isfinite().all()
    assert (gradient[3] == 0).all()
    assert (gradient[2] != 0).any()
