"""Channels-last layout: convolutions run 1.3 to 1.7 times faster in it on CPUs with AVX2, and on GPUs with
tensor cores."""

import torch
from torch import Tensor, nn


def use_fastest_format(network: nn.Module, images_NCHW: Tensor) -> None:
    """Lay the network's weights out channels-last; torch then converts what flows between them by itself.

    A network that flattens with `view` instead of `flatten` cannot run so: it keeps the ordinary layout.
    `images_NCHW`: a few normalised images to try it with.
    """
    was_training = network.training
    network.eval()
    network.to(memory_format=torch.channels_last)
    try:
        with torch.no_grad():
            network(images_NCHW[:2])
    except RuntimeError as error:
        if "view size is not compatible" not in str(error):
            raise
        network.to(memory_format=torch.contiguous_format)
    network.train(was_training)
