"""Which channels belong together, worked out by hand on small networks."""

import pytest
import torch
from torch import nn

import models
from models.channels import Channels, Group, analyse

from .nets import NETS, Net, conv


def _channels(module: nn.Module) -> Channels:
    return analyse(models.as_network(module, torch.rand(2, 3, 16, 16)))


def _positions(group: Group) -> dict[tuple[str, int], list[list[int]]]:
    """(tensor, dimension) -> the positions of each unit."""
    return {(m.tensor, m.dim): [p.tolist() for p in m.positions] for m in group.members}


def test_a_unit_has_all_pixels_of_its_channel_behind_a_flatten() -> None:
    """6 channels of 4x4 into a linear layer: unit u reads columns 16 u to 16 u + 15."""
    (first, second) = _channels(NETS["flatten"]()).groups
    assert (first.name, first.layers, first.num_units) == ("0", ("0",), 6)
    assert _positions(first) == {
        ("0.weight", 0): [[u] for u in range(6)],
        ("0.bias", 0): [[u] for u in range(6)],
        **{
            (f"1.{name}", 0): [[u] for u in range(6)]
            for name in ("weight", "bias", "running_mean", "running_var")
        },
        ("5.weight", 1): [list(range(16 * u, 16 * u + 16)) for u in range(6)],
    }
    assert (second.name, second.num_units) == ("5", 7)


def test_what_is_added_goes_together() -> None:
    """a and c meet in an addition; b is between."""
    groups = _channels(NETS["residual"]()).groups
    assert [(g.name, g.layers, g.num_units) for g in groups] == [("a", ("a", "c"), 8), ("b", ("b",), 5)]


def test_concatenated_layers_stay_apart_and_know_their_columns() -> None:
    """[a, image, b]: a's 4 channels are columns 0 to 3 of c, b's 6 are 7 to 12; the image's 3 stay."""
    a, b, _ = _channels(NETS["concatenation"]()).groups
    assert _positions(a)["c.weight", 1] == [[u] for u in range(4)]
    assert _positions(a)["b.weight", 1] == [[u] for u in range(4)]
    assert _positions(b)["c.weight", 1] == [[u] for u in range(7, 13)]
    assert _positions(b)["norm.bias", 0] == [[u] for u in range(7, 13)]


def test_grouped_convolutions_lose_as_many_of_every_group() -> None:
    """12 inputs in 2 groups: channel j goes with j + 6; one column of the weight serves both."""
    first, second, third = _channels(NETS["grouped"]()).groups
    assert _positions(first)["0.weight", 0] == [[u, u + 6] for u in range(6)]
    assert _positions(first)["3.weight", 1] == [[u] for u in range(6)]
    (columns,) = [m for m in first.members if m.tensor == "3.weight"]
    assert (columns.role, columns.repeats) == ("in", 2)
    assert _positions(second)["3.weight", 0] == [[u, u + 4] for u in range(4)]
    assert _positions(third)["5.weight", 0] == [[u, u + 3] for u in range(3)]


def test_a_depthwise_convolution_makes_no_channels_of_its_own() -> None:
    """6 inputs, 12 outputs: outputs 2 u and 2 u + 1 go with input u."""
    first, _ = _channels(NETS["depthwise_multiplier"]()).groups
    assert first.layers == ("0",)
    assert _positions(first)["2.weight", 0] == [[2 * u, 2 * u + 1] for u in range(6)]
    assert {m.role for m in first.members if m.layer == "2"} == {"depthwise"}


@pytest.mark.parametrize("name", ["shuffle_by_views", "shuffle_layer"])
def test_a_channel_shuffle_couples_nothing(name: str) -> None:
    """12 channels in 2 or 3 groups: as many units as channels, as far as no grouped convolution follows."""
    groups = [group for group in _channels(NETS[name]()).groups if "a" in group.layers or "0" in group.layers]
    # Shuffled in 3 groups of 4, a grouped convolution of 3 reads 0 4 8 | 1 5 9 ... : four channels a group.
    assert sum(group.num_units for group in groups) == {"shuffle_by_views": 12, "shuffle_layer": 4}[name]


def test_channels_that_part_form_groups_of_their_own() -> None:
    """After the shuffle 0 6 1 7 2 8 | 3 9 4 10 5 11 only the left half goes through c."""
    groups = {group.name: group for group in _channels(NETS["shuffle_by_views"]()).groups}
    assert _positions(groups["a"])["a.weight", 0] == [[0], [1], [2], [6], [7], [8]]
    assert _positions(groups["a"])["c.weight", 1] == [[0], [2], [4], [1], [3], [5]]
    assert _positions(groups["a:2"])["a.weight", 0] == [[3], [4], [5], [9], [10], [11]]


def test_a_gate_goes_with_what_it_multiplies_and_the_squeezed_layer_stays_free() -> None:
    groups = _channels(NETS["squeeze_excitation"]()).groups
    assert [(g.layers, g.num_units) for g in groups] == [(("a", "up"), 8), (("down",), 3)]


def test_parameters_of_the_graph_go_with_the_channels_they_meet() -> None:
    """A scale of [8, 1, 1], a table of [1, 8, 1, 16], PReLU's slopes."""
    (group,) = _channels(NETS["layer_scale"]()).groups
    assert (group.layers, group.num_units) == (("a", "b"), 8)
    scales = {(m.tensor, m.dim) for m in group.members if m.role == "scale"}
    assert scales == {("scale", 0), ("table", 1), ("slope.weight", 0)}


def test_what_is_multiplied_crosswise_stays() -> None:
    channels = _channels(NETS["outer_products"]())
    assert [group.name for group in channels.groups] == ["stem"]
    assert "outer product" in channels.fixed["a"]
    assert "outer product" in channels.fixed["b"]


def test_pixels_that_become_channels_go_with_their_channel() -> None:
    groups = _channels(NETS["space_to_depth"]()).groups
    assert _positions(groups[0])["b.weight", 1] == [list(range(4 * u, 4 * u + 4)) for u in range(6)]


def test_zero_channels_of_a_shortcut_go_with_the_channels_they_are_added_to() -> None:
    """b has 8 channels, a's 5 are added at 2 to 6, zeros elsewhere."""
    module = Net(
        lambda net, x: net.head((net.b(net.a(x)) + nn.functional.pad(net.a(x), (0, 0, 0, 0, 2, 1))).mean((2, 3))),
        a=conv(3, 5), b=conv(5, 8), head=nn.Linear(8, 4),
    )  # fmt: skip
    groups = _channels(module).groups
    assert [(g.name, g.layers, g.num_units) for g in groups] == [("a", ("a", "b"), 5), ("b", ("b",), 3)]
    assert _positions(groups[0])["b.weight", 0] == [[u] for u in range(2, 7)]
    assert _positions(groups[1])["b.weight", 0] == [[0], [1], [7]]


def test_layers_that_cannot_be_narrowed_are_named_with_the_reason() -> None:
    fixed = _channels(NETS["transformer"]()).fixed
    assert list(fixed) == ["patches", "attention", "down", "head"]
    assert fixed["head"] == "its outputs are the network's"
    assert fixed["attention"] == "attention keeps its width"
    assert "attention" in fixed["down"]
    assert "matmul" in _channels(NETS["own_attention"]()).fixed["qkv"]


def test_the_same_graph_gives_the_same_groups() -> None:
    torch.manual_seed(0)
    module = NETS["uneven_pieces"]()
    first, second = _channels(module), _channels(module)
    assert first.groups == second.groups
    assert [_positions(g) for g in first.groups] == [_positions(g) for g in second.groups]
