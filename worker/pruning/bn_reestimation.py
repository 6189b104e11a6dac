"""Batch norms after a cut: their running statistics were those of other channels.

Taking them anew from a few training batches needs no gradient: Li et al. 2020, "EagleEye",
https://arxiv.org/abs/2007.02491, section 3.3.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from models import Network
from worker.training.batches import TrainingImages

_WITH_STATISTICS = (nn.BatchNorm1d, nn.BatchNorm2d)


@torch.no_grad()
def reestimate_batch_norm(
    network: Network,
    images: TrainingImages,
    preprocessing: dict[str, Any],
    *,
    num_batches: int,
    check_stop: Callable[[], None] = lambda: None,
) -> None:
    """Replace running means and variances, in place, by their plain average over the first `num_batches` training batches,
    without augmentation. Everything but the batch norms stays in eval mode, so that dropout drops nothing."""
    norms = [
        module
        for module in network.modules()
        if isinstance(module, _WITH_STATISTICS) and module.track_running_stats
    ]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the cumulative average
        norm.train()
    try:
        for step in range(num_batches):
            check_stop()
            network(images.pixels(images.batch(step, "none"), preprocessing))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.eval()
