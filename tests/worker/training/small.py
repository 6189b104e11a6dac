"""A network with every kind of coupling that pruning must know, small enough to be worked through by hand."""

import torch
from torch import Tensor, nn

from models import Network, as_network
from tests.worker.fakes import PREPROCESSING

SIDE = 16


class Small(nn.Module):
    """A stem, a residual block, a depthwise and a pointwise convolution, and a linear layer: `wide` and `deep` are groups of
    their own, `stem` is added to `back`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.stem_norm = nn.BatchNorm2d(6)
        self.wide = nn.Conv2d(6, 10, 3, padding=1)
        self.wide_norm = nn.BatchNorm2d(10)
        self.back = nn.Conv2d(10, 6, 1)
        self.back_norm = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.deep = nn.Conv2d(6, 8, 1)
        self.deep_norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 2 * 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(images)))
        x = x + self.back_norm(self.back(torch.relu(self.wide_norm(self.wide(x)))))
        x = torch.relu(self.deep_norm(self.deep(self.depthwise(x))))
        return self.head(torch.flatten(nn.functional.max_pool2d(x, 4), 1))


def small_network(seed: int = 0) -> Network:
    """In eval mode; norms are moved away from 1 and 0, as training would."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = Small()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.3, 1.5)
                nn.init.normal_(layer.bias, std=0.1)
                nn.init.normal_(layer.running_mean, std=0.1)
                nn.init.uniform_(layer.running_var, 0.5, 1.5)
        network = as_network(module.eval(), torch.rand(1, 3, SIDE, SIDE))
    network.preprocessing = {**PREPROCESSING, "resize": [SIDE, SIDE]}
    return network.eval()
