"""Which channels of which tensors belong together: the units that pruning removes.

A *unit* is everything that has to go at once so that all shapes still fit: a filter, its entry in the norms
behind it, its columns in the layers that read it, and the same of every channel it is added to. Units that are
made by the same layers and pass through the same values form a *group*: any of them can be removed, in any
number, as long as one stays.

The idea of grouping coupled layers is DepGraph's (Fang et al. 2023, https://arxiv.org/abs/2301.12900); it follows
autograd's graph pairwise, we follow labels through our own (docs/decisions/0006-channels-by-labels.md).
"""

from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..load_artifact import Network
from .flow import Flow
from .labels import NONE, Value
from .parts import Role


@dataclass(frozen=True)
class Member:
    """Where the units of a group lie in one tensor.

    `tensor`: its name in the state_dict; `dim`: the dimension the units lie along; `layer`: whose it is (for a
    graph's own parameter, its name). `role`:

    * out: rows of a convolution or linear layer that makes the channels; also its bias.
    * in: columns of a layer that reads them.
    * norm: weight, bias, running_mean, running_var of a norm layer.
    * depthwise: filters and bias of a depthwise convolution, which neither makes nor mixes channels.
    * scale: PReLU's slopes, and parameters and buffers of the graph itself (layer scale).

    `index`, `unit`: int64 of the same length, by rising unit: position `index[i]` along `dim` is unit `unit[i]`'s.
    `repeats`: how many channels one position serves: a grouped convolution's input column serves one of every
    group.
    """

    tensor: str
    dim: int
    layer: str
    role: Role
    index: Tensor = field(compare=False)
    unit: Tensor = field(compare=False)
    num_units: int
    repeats: int = 1

    @property
    def positions(self) -> list[Tensor]:
        """For each unit its positions along `dim`, int64, rising."""
        return list(self.index.split(torch.bincount(self.unit, minlength=self.num_units).tolist()))


@dataclass(frozen=True)
class Group:
    """Units that can be removed one by one. `layers`: those that make their channels, in graph order.

    `name`: the first of the layers; where its channels part into several groups, the later ones have `:2`, `:3`
    and so on. Unit 0 is the one with the first channel of that layer.
    """

    name: str
    layers: tuple[str, ...]
    num_units: int
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Channels:
    """What `analyse` found: `groups` in graph order, and `fixed`: layers none of whose outputs can be removed,
    with the reason."""

    groups: list[Group]
    fixed: dict[str, str]
    flow: Flow = field(repr=False)
    units: dict[str, list[int]] = field(repr=False)
    """By group, the label that stands for each unit."""

    def group(self, name: str) -> Group:
        """The group of that name. Raises ValueError."""
        for group in self.groups:
            if group.name == name:
                return group
        known = ", ".join(group.name for group in self.groups[:20])
        raise ValueError(f"there is no group of channels {name!r}: there are {known or 'none'}")


def analyse(network: Network) -> Channels:
    """Find all groups of removable channels of a network; only its graph is looked at, in about 0.1 to 1 s.

    Deterministic: the same graph gives the same groups, names and order.
    """
    flow = Flow(network)
    producers = _producers(flow)
    parts: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for unit, values in _removable_units(flow, producers).items():  # by rising label, which is graph order
        parts[values].append(unit)
    units: dict[str, list[int]] = {}
    taken: dict[str, int] = defaultdict(int)
    for part in parts.values():
        first = producers[part[0]][0]
        taken[first] += 1
        units[first if taken[first] == 1 else f"{first}:{taken[first]}"] = part
    members = _members(flow, units)
    groups = [
        Group(name, tuple(producers[part[0]]), len(part), tuple(members[name]))
        for name, part in units.items()
    ]
    removable = {layer for group in groups for layer in group.layers}
    return Channels(groups, _fixed_layers(flow, removable), flow, units)


def _producers(flow: Flow) -> dict[int, list[str]]:
    """The layers that make each unit's channels, in graph order."""
    found: dict[int, list[str]] = defaultdict(list)
    labels = torch.arange(len(flow.labels.producers))
    for root, producer in zip(flow.labels.roots(labels).tolist(), flow.labels.producers, strict=True):
        if producer is not None and producer not in found[root][-1:]:
            found[root].append(producer)
    # A layer's labels follow each other, and where those of two layers meet they may alternate.
    return {root: list(dict.fromkeys(layers)) for root, layers in found.items()}


def _removable_units(flow: Flow, producers: dict[int, list[str]]) -> dict[int, tuple[int, ...]]:
    """For every unit that may be removed, the values it is part of (by number).

    A group is the units with the same: so no value can lose all its channels while every group keeps one.
    """
    kept = set(flow.labels.roots(torch.tensor([*flow.labels.kept_because, NONE])).tolist())
    values = [v for value in flow.values.values() for v in (value if isinstance(value, tuple) else (value,))]
    # An activation's value is the same object as its input's.
    different = {id(value): value for value in values if isinstance(value, Value)}
    seen: dict[int, list[int]] = defaultdict(list)
    for number, value in enumerate(different.values()):
        for unit in flow.labels.present(value.labels).tolist():
            seen[unit].append(number)
    return {unit: tuple(seen[unit]) for unit in sorted(seen) if unit not in kept and producers.get(unit)}


def _members(flow: Flow, units: dict[str, list[int]]) -> dict[str, list[Member]]:
    num_labels = len(flow.labels.producers)
    group_of = torch.full((num_labels + 1,), -1)  # the last one is NONE's
    unit_of = torch.full((num_labels + 1,), -1)
    names = list(units)
    for number, name in enumerate(names):
        group_of[units[name]] = number
        unit_of[units[name]] = torch.arange(len(units[name]))
    members: dict[str, list[Member]] = {name: [] for name in names}
    for slot in flow.slots:
        roots = flow.labels.roots(slot.labels)
        for number in group_of[roots].unique().tolist():
            if number < 0:
                continue
            index = (group_of[roots] == number).nonzero().flatten()
            unit, order = unit_of[roots[index]].sort(stable=True)
            num_units = len(units[names[number]])
            members[names[number]].append(
                Member(
                    slot.tensor, slot.dim, slot.layer, slot.role, index[order], unit, num_units, slot.repeats
                )
            )
    return members


def _fixed_layers(flow: Flow, removable: set[str]) -> dict[str, str]:
    """Layers that make channels, none of which can be removed, and the reason of the first."""
    reasons: dict[int, str] = {}
    for label, why in flow.labels.kept_because.items():
        reasons.setdefault(int(flow.labels.roots(torch.tensor(label))), why)
    fixed = dict(flow.whole)
    for layer, labels in flow.outputs.items():
        if layer not in removable and layer in flow.labels.producers:
            found = [reasons[root] for root in flow.labels.roots(labels).tolist() if root in reasons]
            fixed[layer] = found[0] if found else "its channels end nowhere"
    order = {step.target: position for position, step in reversed(list(enumerate(flow.steps)))}
    return dict(sorted(fixed.items(), key=lambda item: order[item[0]]))


def removed_labels(channels: Channels, removed: dict[str, list[int]]) -> Tensor:
    """One flag a label, and a last one for NONE: whether it goes."""
    flow = channels.flow
    gone = torch.zeros(len(flow.labels.producers) + 1, dtype=torch.bool)
    for name, indices in removed.items():
        gone[[channels.units[name][index] for index in indices]] = True
    return gone
