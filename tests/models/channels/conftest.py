"""What the tests of models.channels share: removing units at random, and making channels vanish first."""

import copy

import torch

import models
from models.channels import Channels


def random_units(channels: Channels, ratio: float, seed: int = 0) -> dict[str, list[int]]:
    """A share of each group's units, at most all but one."""
    generator = torch.Generator().manual_seed(seed)
    removed = {}
    for group in channels.groups:
        order = torch.randperm(group.num_units, generator=generator).tolist()
        removed[group.name] = order[: min(int(ratio * group.num_units), group.num_units - 1)]
    return removed


def lively(network: models.Network) -> models.Network:
    """In eval mode, with norms that scale and shift every channel differently."""
    generator = torch.Generator().manual_seed(3)
    network = network.eval()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1:
            noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
            tensor.copy_(noise + 0.5 if name.endswith(("weight", "running_var")) else noise - 0.5)
    return network


def silenced(network: models.Network, channels: Channels, removed: dict[str, list[int]]) -> models.Network:
    """A copy in which the channels of these units are 0 everywhere: filters, biases, norms' weights and shifts."""
    silent = copy.deepcopy(network)
    state = silent.state_dict()
    for group in channels.groups:
        for member in group.members:
            if member.role == "in" or member.tensor.endswith("running_var"):
                continue
            positions = member.index[torch.isin(member.unit, torch.tensor(removed.get(group.name, [])))]
            state[member.tensor].index_fill_(member.dim, positions, 0.0)
    return silent
