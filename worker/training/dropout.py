"""Another probability of dropout while a network trains."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from worker.run import Run


@contextmanager
def dropout_probability(network: nn.Module, probability: float | None, run: Run) -> Iterator[None]:
    """Within the block every Dropout and Dropout2d of `network` drops with this probability; afterwards each has its
    own again, as the artifact's graph says. None changes nothing. Logs a warning where there is no such layer."""
    layers = [module for module in network.modules() if isinstance(module, nn.Dropout | nn.Dropout2d)]
    if probability is None:
        yield
        return
    if not layers:
        run.log(f"dropout {probability} is ignored: the network has no dropout layer", "warning")
    own = [layer.p for layer in layers]
    try:
        for layer in layers:
            layer.p = probability
        yield
    finally:
        for layer, p in zip(layers, own, strict=True):
            layer.p = p
