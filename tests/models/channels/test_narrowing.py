"""Removing channels: everything still fits, and what was silent anyway changes nothing."""

import pytest
import torch

import models
from models.channels import analyse, distinct_widths, narrow, scaled

from .conftest import lively, random_units, silenced
from .nets import NETS, NOT_EXACT

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _network(name: str) -> models.Network:
    torch.manual_seed(0)
    return lively(models.as_network(NETS[name](), IMAGES.float()).double())


@pytest.mark.parametrize("name", NETS)
def test_channels_that_are_zero_can_go_without_a_change(name: str) -> None:
    """Filters, biases and norms of some channels are 0; the network without them gives the same logits."""
    network = _network(name)
    channels = analyse(network)
    for seed, ratio in enumerate((0.3, 0.5, 0.5, 0.9, 1.0)):
        removed = random_units(channels, ratio, seed)
        silent = silenced(network, channels, removed)
        narrowed = narrow(silent, channels, removed)
        assert narrowed(IMAGES).shape == (3, 4)
        if name not in NOT_EXACT:
            torch.testing.assert_close(narrowed(IMAGES), silent(IMAGES), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETS)
def test_nothing_removed_is_the_same_network(name: str) -> None:
    network = _network(name)
    assert models.network_digest(narrow(network, analyse(network), {})) == models.network_digest(network)


@pytest.mark.parametrize(
    "name", ["shuffle_by_views", "shuffle_layer", "uneven_pieces", "slices", "depthwise_multiplier"]
)
def test_a_pruned_network_can_be_pruned_again(name: str) -> None:
    """Twice some is as once all of it: what pruning writes, it can read."""
    network = _network(name)
    channels = analyse(network)
    removed = random_units(channels, 0.4)
    narrowed = narrow(silenced(network, channels, removed), channels, removed)
    again = analyse(narrowed)
    more = random_units(again, 0.5)
    silent = silenced(narrowed, again, more)
    torch.testing.assert_close(narrow(silent, again, more)(IMAGES), silent(IMAGES), rtol=1e-9, atol=1e-9)


def test_an_even_shuffle_stays_and_an_uneven_one_is_written_out() -> None:
    """Without channel 0 of either half a view can still halve them; without 0 and 1 of one half it cannot."""
    network = _network("shuffle_by_views")
    channels = analyse(network)

    def targets(removed: dict[str, list[int]]) -> list[str]:
        return [node.get("target", "") for node in narrow(network, channels, removed).graph["nodes"]]

    # Group a has the channels 0 1 2 6 7 8.
    even, uneven = targets({"a": [0, 3]}), targets({"a": [0, 1]})
    assert "view" in even
    assert "index_select" not in even
    assert "view" not in uneven
    assert "floordiv" not in uneven  # only the view had used it
    assert uneven.count("index_select") == 1


def test_encodings_go_and_the_rest_stays() -> None:
    network = _network("flatten")
    network.preprocessing, network.class_names = {"resize": 16}, ["a", "b", "c", "d"]
    network.get_parameter("0.weight").requires_grad_(False)
    network.encoded = {"0.weight": models.encode(network.get_parameter("0.weight"), {"name": "minmax"})}
    before = models.network_digest(network)
    narrowed = narrow(network, analyse(network), {"0": [1, 4]})
    assert narrowed.encoded == {}
    assert (narrowed.preprocessing, narrowed.class_names) == ({"resize": 16}, ["a", "b", "c", "d"])
    assert narrowed.num_classes == 4
    assert [p.requires_grad for p in narrowed.parameters()] == [p.requires_grad for p in network.parameters()]
    assert torch.equal(narrowed.get_parameter("0.weight"), network.get_parameter("0.weight")[[0, 2, 3, 5]])
    assert not narrowed.training
    assert models.network_digest(network) == before


@pytest.mark.parametrize(
    ("removed", "says"),
    [
        ({"0": range(6)}, "group '0' would lose all of its 6 units"),
        ({"0": [6]}, "group '0' has units 0 to 5, not 6"),
        ({"conv": [0]}, "there is no group of channels 'conv': there are 0, 5"),
    ],
)
def test_a_wrong_removal_is_refused(removed: dict[str, list[int]], says: str) -> None:
    network = _network("flatten")
    with pytest.raises(ValueError, match=says):
        narrow(network, analyse(network), removed)


def test_a_width_keeps_the_first_units_of_each_group() -> None:
    network = _network("flatten")
    half = scaled(network, 0.5)
    assert [list(p.shape) for p in half.parameters()][0::2] == [[3, 3, 3, 3], [3], [4, 48], [4, 4]]
    assert torch.equal(half.get_parameter("0.weight"), network.get_parameter("0.weight")[:3])
    assert scaled(network, 0.01).get_parameter("0.weight").shape[0] == 1
    for width in (0, 1.5):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            scaled(network, width)


def test_an_index_outside_is_refused_before_a_device_sees_it() -> None:
    """And so is a list too long for any other argument."""
    network = _network("shuffle_by_views")
    graph = narrow(network, analyse(network), {"a": [0, 1]}).graph
    (node,) = [node for node in graph["nodes"] if node.get("target") == "index_select"]
    node["args"][2][0] = 10
    with pytest.raises(models.GraphError, match="index 10 is outside of dimension 1, which has 10"):
        models.check(graph)
    node["args"][2] = [0] * ((1 << 16) + 1)
    with pytest.raises(models.GraphError, match="a list has more than 65536 items"):
        models.check(graph)


def test_the_distinct_widths_are_those_that_trying_thousands_finds() -> None:
    """Each once, and rising."""
    network = _network(next(iter(NETS)))
    num_units = [group.num_units for group in analyse(network).groups]
    tried = {tuple(max(1, round(n / 5000 * units)) for units in num_units) for n in range(1, 5001)}
    widths = distinct_widths(network)
    found = [tuple(max(1, round(width * units)) for units in num_units) for width in widths]
    assert found == sorted(tried)
    assert widths[-1] == 1
    narrowest = analyse(scaled(network, widths[0]))
    assert all(group.num_units == 1 for group in narrowest.groups)
