"""Putting back the mean output that quantized weights have moved.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
https://arxiv.org/abs/1906.04721, section 4.2, the empirical way (appendix D): layer by layer, with the layers before
already quantized and corrected. Changed: a convolution without a bias passes its correction to the batch norm that
alone follows it, whose running mean takes it with the opposite sign.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from models import Network
from worker.quantization.calibration import values_of


@torch.no_grad()
def correct_bias(
    quantized: Network, layer: str, original: Network, images: Iterable[Tensor]
) -> Tensor | None:
    """Change `quantized` in place so that each channel of `layer` has the mean output of `original` again, over batches
    of normalised images. Both are in eval mode.

    Returns the correction [C], or None where neither the layer nor what follows it can take one.
    """
    target, sign = _receiver(quantized, layer)
    if target is None:
        return None
    images = list(images)
    correction_C = mean_output(original, layer, images) - mean_output(quantized, layer, images)
    target += sign * correction_C.to(target.dtype)
    return correction_C


def mean_output(network: Network, layer: str, images: Iterable[Tensor]) -> Tensor:
    """float64 [C]: over all images and positions."""
    total: Tensor | None = None
    count = 0
    dim = 1 if isinstance(network.get_submodule(layer), nn.Conv2d) else -1
    for images_NCHW in images:
        outputs = values_of(network, layer, images_NCHW).outputs.double().movedim(dim, 0).flatten(1)
        total = outputs.sum(1) if total is None else total + outputs.sum(1)
        count += outputs.shape[1]
    assert total is not None, "there are images"
    return total / count


def _receiver(network: Network, layer: str) -> tuple[Tensor | None, int]:
    """The tensor that shifts the layer's output, and the sign of the shift."""
    module = network.get_submodule(layer)
    if isinstance(module.bias, Tensor):
        return module.bias, 1
    nodes = network.graph["nodes"]
    calls = [node["name"] for node in nodes if node["op"] == "layer" and node["target"] == layer]
    users = [node for node in nodes if any(name in _names(node) for name in calls)]
    if len(calls) == 1 and len(users) == 1 and users[0]["op"] == "layer":
        follower = network.get_submodule(users[0]["target"])
        calls_of_it = [
            node for node in nodes if node["op"] == "layer" and node["target"] == users[0]["target"]
        ]
        is_norm = isinstance(follower, nn.BatchNorm1d | nn.BatchNorm2d)
        if is_norm and len(calls_of_it) == 1 and isinstance(follower.running_mean, Tensor):
            return follower.running_mean, -1
    return None, 0


def _names(value: Any) -> set[str]:
    """The nodes that a node's arguments use."""
    if isinstance(value, dict):
        if set(value) == {"node"}:
            return {value["node"]}
        return set().union(
            *(_names(part) for key, part in value.items() if key not in ("name", "op", "target"))
        )
    if isinstance(value, list):
        return set().union(*map(_names, value))
    return set()
