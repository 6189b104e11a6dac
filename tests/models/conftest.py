"""Small networks and photos for the tests of models/."""

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import models

CLASS_NAMES = ["café", "hat", "shoe"]
PREPROCESSING = {
    "resize": 20,
    "crop": 16,
    "interpolation": "bilinear",
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
}


class SmallNet(nn.Module):
    """Convolutions, a residual, functional dropout, a parameter and a buffer of its own; 16x16, 3 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.register_buffer("shift", torch.full((8, 1, 1), 0.25))
        self.body = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.scale * self.body(x) + self.shift
        x = nn.functional.dropout(x.mean((2, 3)), 0.3, self.training)
        return self.head(x)


@pytest.fixture
def small_module() -> nn.Module:
    torch.manual_seed(0)
    return SmallNet()


@pytest.fixture
def small(small_module: nn.Module) -> models.Network:
    return models.as_network(small_module, torch.rand(2, 3, 16, 16))


def noise_photo(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A photo of smooth noise, the same for the same arguments."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (max(height // 3, 1) * max(width // 3, 1) * 3,), generator=generator)
    small = Image.frombytes("RGB", (max(width // 3, 1), max(height // 3, 1)), bytes(pixels.tolist()))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)
