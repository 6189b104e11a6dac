"""New weights for a network that exists already: every layer draws again as PyTorch's constructor did."""

import torch
from torch import nn

from .load_artifact import Network


def reinitialise(network: Network, seed: int) -> None:
    """Give every layer new weights, in place, decided by `seed` alone; running means and variances start anew.

    Each layer gets PyTorch's own default for its type (what `reset_parameters` does), not the special scheme of
    some family. Parameters and buffers that belong to no layer (class tokens, layer scales) stay: a graph does not
    say how they begin. Drawn on the CPU, so that every device gets the same weights; torch's random state stays as
    it was. `encoded` is cleared: stored forms of the old weights mean nothing now.
    """
    network.encoded = {}
    devices = {tensor.device for tensor in network.state_dict().values()}
    assert len(devices) <= 1, "a network lives on one device"
    device = devices.pop() if devices else torch.device("cpu")
    network.to("cpu")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        # Children first: attention sets the bias of its inner linear layer to 0 after that layer has drawn it.
        for layer in reversed(list(network.modules())):
            _reset(layer)
    network.to(device)


def _reset(layer: nn.Module) -> None:
    if isinstance(layer, nn.MultiheadAttention):
        layer._reset_parameters()  # the one layer of the vocabulary whose method is not public
    elif callable(reset := getattr(layer, "reset_parameters", None)):
        reset()
