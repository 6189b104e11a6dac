"""A network that loses channels again and again, and always remembers which of the original ones are left.

Everything refers to the original network: its groups are analysed once, so that a group keeps its name and units however
narrow it becomes (a depthwise convolution with one channel left looks like any other), and older weights of the same
network can be cut alike.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from models import Network, layer_table
from models.channels import Channels, Group, Member, analyse, narrow

Removal = dict[str, list[int]]
"""Group name -> indices among the units that are left, rising."""


class Carving:
    """`network` is what is left now, `original` stays as it was."""

    def __init__(self, original: Network) -> None:
        self.original = original
        self.channels: Channels = analyse(original)
        self.network = original
        self.left: dict[str, list[int]] = {
            group.name: list(range(group.num_units)) for group in self.channels.groups
        }
        """Group name -> the original's units that are left, rising."""
        self._state = original.state_dict()
        self._groups: list[Group] | None = self.channels.groups
        self._sizes = Sizes(original, self.channels)

    def groups(self) -> list[Group]:
        """The groups as they are now: fewer units, and positions in the tensors of `network`."""
        if self._groups is None:
            moved = self._moved_positions()
            self._groups = [self._now(group, moved) for group in self.channels.groups]
        return self._groups

    def remove(self, removal: Removal) -> None:
        """Cut `network`; its weights are copied exactly."""
        left = self._left_after(removal)
        self._become(left, self._weights_of(left))

    def without(self, removal: Removal) -> Network:
        """What `remove` would make of `network`, which stays."""
        left = self._left_after(removal)
        return self._network(left, self._weights_of(left))

    def restore(self, left: Mapping[str, Sequence[int]], weights: Mapping[str, Tensor]) -> None:
        """Go to where another carving of the same original was."""
        self._become({name: list(units) for name, units in left.items()}, weights)

    def cut_alike(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of the whole original less what has been removed. Raises ValueError for another network's."""
        shapes = {name: tensor.shape for name, tensor in self._state.items()}
        if {name: tensor.shape for name, tensor in weights.items()} != shapes:
            different = next(
                (name for name in shapes if name not in weights or weights[name].shape != shapes[name]),
                "of one more tensor",
            )
            raise ValueError(f"the shapes differ, the first time in {different!r}")
        kept = self._kept_positions(self.left)
        cut = {}
        for name, tensor in weights.items():
            for dim in (dim for other, dim in kept if other == name):
                tensor = tensor.index_select(dim, kept[name, dim].to(tensor.device))
            cut[name] = tensor
        return cut

    def count(self, removal: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """`parameters` and `macs` that would be left without these units as well; nothing is cut."""
        return self._sizes.count(self._left_after(removal))

    def _left_after(self, removal: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        return {
            name: [unit for index, unit in enumerate(units) if index not in gone]
            if (gone := set(removal.get(name, ())))
            else units
            for name, units in self.left.items()
        }

    def _weights_of(self, left: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """The weights of `network` that belong to these units."""
        before, after = self._kept_positions(self.left), self._kept_positions(left)
        cut = {}
        for name, tensor in self.network.state_dict().items():
            for dim in (dim for other, dim in after if other == name):
                where = torch.searchsorted(before[name, dim], after[name, dim])
                tensor = tensor.index_select(dim, where.to(tensor.device))
            cut[name] = tensor
        return cut

    def _become(self, left: dict[str, list[int]], weights: Mapping[str, Tensor]) -> None:
        self.left, self.network = left, self._network(left, weights)
        self._groups = None

    def _network(self, left: Mapping[str, Sequence[int]], weights: Mapping[str, Tensor]) -> Network:
        everything = {group.name: set(range(group.num_units)) for group in self.channels.groups}
        removed = {name: sorted(everything[name] - set(units)) for name, units in left.items()}
        network = narrow(
            self.original, self.channels, {name: units for name, units in removed.items() if units}
        )
        network.load_state_dict(dict(weights))
        return network.eval()

    def _kept_positions(self, left: Mapping[str, Sequence[int]]) -> dict[tuple[str, int], Tensor]:
        """(tensor, dimension) -> the original's positions that are left, rising."""
        keep = {
            (member.tensor, member.dim): torch.ones(
                self._state[member.tensor].shape[member.dim], dtype=torch.bool
            )
            for group in self.channels.groups
            for member in group.members
        }
        for group in self.channels.groups:
            is_left = _flags(left[group.name], group.num_units)
            for member in group.members:
                keep[member.tensor, member.dim][member.index[~is_left[member.unit]]] = False
        return {place: flags.nonzero()[:, 0] for place, flags in keep.items()}

    def _moved_positions(self) -> dict[tuple[str, int], Tensor]:
        """(tensor, dimension) -> for each of the original's positions its number among those that are left."""
        moved = {}
        for (tensor, dim), kept in self._kept_positions(self.left).items():
            moved[tensor, dim] = torch.full((self._state[tensor].shape[dim],), -1)
            moved[tensor, dim][kept] = torch.arange(len(kept))
        return moved

    def _now(self, group: Group, moved: dict[tuple[str, int], Tensor]) -> Group:
        units = self.left[group.name]
        is_left = _flags(units, group.num_units)
        number = is_left.cumsum(0) - 1
        members: list[Member] = []
        for member in group.members:
            stays = is_left[member.unit]
            members.append(
                replace(
                    member,
                    index=moved[member.tensor, member.dim][member.index[stays]],
                    unit=number[member.unit[stays]],
                    num_units=len(units),
                )
            )
        return replace(group, num_units=len(units), members=tuple(members))


class Sizes:
    """Parameters and multiply-adds of a narrowed network, without making it.

    A tensor's size is the product of its dimensions, and a convolution's or linear layer's multiply-adds are those of the
    original times the share of its weight that is left, as heights and widths do not change.
    """

    def __init__(self, network: Network, channels: Channels) -> None:
        self._shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        self._parameters = [name for name, _ in network.named_parameters()]
        self._num_units = {group.name: group.num_units for group in channels.groups}
        self._members = [
            (
                group.name,
                member.tensor,
                member.dim,
                torch.bincount(member.unit, minlength=group.num_units).tolist(),
            )
            for group in channels.groups
            for member in group.members
        ]
        self._macs = [
            (f"{row['name']}.weight", row["macs"]) for row in layer_table(network)["rows"] if row["macs"]
        ]
        self._narrow_layers = {f"{layer}.weight" for layer in _layers_of(channels)}

    def count(self, left: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """`parameters` and `macs` with these units of each group."""
        shapes = {name: list(shape) for name, shape in self._shapes.items()}
        gone = {
            name: sorted(set(range(self._num_units[name])) - set(units))
            for name, units in left.items()
            if len(units) < self._num_units[name]
        }
        for group, tensor, dim, widths in self._members:
            if group in gone:
                shapes[tensor][dim] -= sum(widths[unit] for unit in gone[group])
        macs = 0
        for tensor, of_original in self._macs:
            if tensor in self._narrow_layers:
                of_original = of_original * math.prod(shapes[tensor]) // math.prod(self._shapes[tensor])
            macs += of_original
        return {"parameters": sum(math.prod(shapes[name]) for name in self._parameters), "macs": macs}


def _layers_of(channels: Channels) -> set[str]:
    return {member.layer for group in channels.groups for member in group.members}


def _flags(units: Sequence[int], num_units: int) -> Tensor:
    flags = torch.zeros(num_units, dtype=torch.bool)
    flags[list(units)] = True
    return flags
