"""Channels-last layout: convolutions run 1.3 to 1.7 times faster in it on CPUs with AVX2, and on GPUs with
tensor cores."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def fastest_format(network: nn.Module, images_NCHW: Tensor) -> Iterator[None]:
    """Within the block the network's weights are laid out channels-last; torch converts what flows between
    them.

    A network that flattens with `view` instead of `flatten` cannot run so: it keeps the ordinary layout,
    which every network has again after the block. `images_NCHW`: a few normalised images to try it with.
    """
    network.to(memory_format=torch.channels_last)
    try:
        if not _runs(network, images_NCHW[:2]):
            network.to(memory_format=torch.contiguous_format)
        yield
    finally:
        network.to(memory_format=torch.contiguous_format)


@torch.no_grad()
def _runs(network: nn.Module, images_NCHW: Tensor) -> bool:
    was_training = network.training
    network.eval()  # or the trial would move the running means
    try:
        network(images_NCHW)
    except RuntimeError as error:
        if "view size is not compatible" not in str(error):
            raise
        return False
    finally:
        network.train(was_training)
    return True
