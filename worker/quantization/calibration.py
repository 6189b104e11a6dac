"""A few training images, and what single layers get and give for them.

Shapes: N images, C channels, H x W pixels.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from app.errors import Problem
from models import Network
from models.load_artifact import normalise
from worker.run import Run

_AT_ONCE = 32


class LayerValues(NamedTuple):
    """Of one batch: what a layer was called with and what it gave; several calls one after the other."""

    inputs: Tensor
    outputs: Tensor


class _Seen(Exception):
    """The layer that was waited for has run; what comes after it is of no interest."""


class CalibrationImages:
    """`count` images of train (all, where there are fewer), drawn by the run's seed, as `network` sees them."""

    def __init__(self, network: Network, run: Run, count: int) -> None:
        if not run.data.has("train"):
            raise Problem(
                422,
                "NO_CALIBRATION_IMAGES",
                "adaround and bias_correction need images of the split 'train', which this data set lacks: "
                "give it one, or set rounding to 'nearest' and bias_correction to false.",
            )
        assert network.preprocessing is not None, "every step keeps the preprocessing"
        self._images_NCHW = run.data.images("train", network.preprocessing)
        self._preprocessing = network.preprocessing
        self._device = run.device
        generator = torch.Generator().manual_seed(run.seed)
        order_N = torch.randperm(len(self._images_NCHW), generator=generator)
        self._chosen_N = order_N[:count].sort().values

    def __len__(self) -> int:
        return len(self._chosen_N)

    def __iter__(self) -> Iterator[Tensor]:
        """Normalised float32 [<= 32, C, H, W] on the device, always the same."""
        for chosen_N in self._chosen_N.split(_AT_ONCE):
            yield normalise(self._images_NCHW[chosen_N].to(self._device), self._preprocessing)


def weighted_layers(network: Network) -> list[str]:
    """The convolutions and linear layers, in the order of their first calls."""
    called = [node["target"] for node in network.graph["nodes"] if node["op"] == "layer"]
    return [
        name
        for name in dict.fromkeys(called)
        if isinstance(network.get_submodule(name), nn.Conv2d | nn.Linear)
    ]


@torch.no_grad()
def values_of(network: Network, layer: str, images_NCHW: Tensor) -> LayerValues:
    """Run `network`, which is in eval mode, as far as the last call of `layer`."""
    nodes = network.graph["nodes"]
    num_calls = sum(node["op"] == "layer" and node["target"] == layer for node in nodes)
    seen: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0].clone(), output.clone()))  # layers in place may write over both
        if len(seen) == num_calls:
            raise _Seen

    handle = network.get_submodule(layer).register_forward_hook(note)
    try:
        network(images_NCHW)
    except _Seen:
        pass
    finally:
        handle.remove()
    return LayerValues(torch.cat([call[0] for call in seen]), torch.cat([call[1] for call in seen]))
