"""A network without some of its channels."""

import copy
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..load_artifact import Network, build
from .groups import Channels, analyse, removed_labels
from .writing import Writer


def narrow(network: Network, channels: Channels, removed: Mapping[str, Sequence[int]]) -> Network:
    """A new network without these units; all other weights are copied exactly.

    `channels`: `analyse(network)`. `removed`: by name of group, which of its units go. Names and order of layers,
    preprocessing, class names, device and mode stay; `encoded` is dropped. Raises ValueError for a group or unit
    that does not exist, and when a group would be left without any unit.
    """
    assert channels.flow.graph == network.graph, "these channels are another network's"
    gone = removed_labels(channels, _checked(channels, removed))
    graph = Writer(channels, gone).graph()
    with torch.device("meta"):
        narrowed = build(graph)
    narrowed.load_state_dict(_cut(network, channels, gone), strict=True, assign=True)
    originals = dict(network.named_parameters())
    for name, parameter in narrowed.named_parameters():
        parameter.requires_grad_(originals[name].requires_grad)
    narrowed.preprocessing = copy.deepcopy(network.preprocessing)
    narrowed.class_names = copy.copy(network.class_names)
    narrowed.artifact = copy.deepcopy(network.artifact)
    return narrowed.train(network.training)


def scaled(network: Network, width: float) -> Network:
    """The network with the first max(1, round(width * n)) of the n units of each group.

    `width`: above 0, at most 1. Raises ValueError outside.
    """
    if not 0 < width <= 1:
        raise ValueError(f"width is {width}: a network can be narrowed to a width above 0 and at most 1")
    channels = analyse(network)
    removed = {
        group.name: range(max(1, round(width * group.num_units)), group.num_units)
        for group in channels.groups
    }
    return narrow(network, channels, removed)


def distinct_widths(network: Network) -> list[float]:
    """Rising: one width for each different network that `scaled` makes of this one; the last is 1, the whole network."""
    nums = {group.num_units for group in analyse(network).groups}
    # round(width * n) changes where width * n is halfway between two whole numbers, the first of which is kept anyway.
    changes = sorted({(2 * k + 1) / (2 * n) for n in nums for k in range(1, n)})
    return [(low + high) / 2 for low, high in itertools.pairwise([0.0, *changes])] + [1.0]


def _checked(channels: Channels, removed: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    checked = {}
    for name, units in removed.items():
        group, indices = channels.group(name), sorted({int(unit) for unit in units})
        outside = [unit for unit in indices if not 0 <= unit < group.num_units]
        if outside:
            raise ValueError(f"group {name!r} has units 0 to {group.num_units - 1}, not {outside[0]}")
        if len(indices) == group.num_units:
            raise ValueError(
                f"group {name!r} would lose all of its {group.num_units} units: keep at least one"
            )
        checked[name] = indices
    return checked


def _cut(network: Network, channels: Channels, gone: Tensor) -> dict[str, Tensor]:
    """The network's tensors without what goes, in memory of their own."""
    keep: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for slot in channels.flow.slots:
        stays = ~gone[channels.flow.labels.roots(slot.labels)]
        if not stays.all():
            keep[slot.tensor][slot.dim] = stays.nonzero().flatten()
    state = {}
    for name, tensor in network.state_dict().items():
        for dim, index in keep[name].items():
            tensor = tensor.index_select(dim, index.to(tensor.device))
        state[name] = (
            tensor.contiguous() if keep[name] else tensor.clone(memory_format=torch.contiguous_format)
        )
    return state
