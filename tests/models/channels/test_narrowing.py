"""Removing channels: everything still fits, and what was silent anyway changes nothing."""

import pytest
import torch

import models
from models.channels import analyse, narrow

from .conftest import lively, random_units, silenced
from .nets import NETS, NOT_EXACT

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _network(name: str) -> models.Network:
    torch.manual_seed(0)
    return lively(models.as_network(NETS[name](), IMAGES.float()))


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
