"""What the training images say about a network's channels: gradients of the loss, and of the activations.

Every pass is in eval mode, so that batch norms use what they have learnt and nothing is drawn, and without augmentation.
Molchanov et al. 2016, https://arxiv.org/abs/1611.06440 (activations); Molchanov et al. 2019,
https://arxiv.org/abs/1906.10771 (weights); LeCun et al. 1989, "Optimal Brain Damage" (squares).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import Network
from worker.pruning.criteria import Evidence
from worker.training.batches import Batch, TrainingImages
from worker.training.losses import UNLABELLED

_MADE_BY = (nn.Conv2d, nn.Linear)


def gather(
    network: Network,
    criterion: str,
    images: TrainingImages | None,
    preprocessing: dict[str, Any],
    *,
    num_batches: int | None = None,
    abs_per_example: bool = False,
    check_stop: Callable[[], None] = lambda: None,
    seed: int = 0,
) -> Evidence:
    """What `criterion` needs to know about `network`.

    `images` may be None for a criterion that runs none. `num_batches` None: one epoch. `check_stop` is called before
    every batch. Images without a label are passed by. The network is as it was afterwards.
    """
    looks: dict[str, Callable[..., Evidence]] = {
        "taylor": _activations,
        "taylor_weight": _gradients,
        "hessian": _squares,
    }
    if criterion not in looks:
        return Evidence(network, seed=seed)
    assert images is not None, "this criterion runs images"
    looked_at = images
    was_training = network.training
    needed = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    network.eval().requires_grad_(True)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(num_batches or looked_at.steps_per_epoch):
            check_stop()
            batch = looked_at.batch(step, "none")
            yield _labelled(looked_at.pixels(batch, preprocessing), batch)

    try:
        return looks[criterion](network, batches(), abs_per_example)
    finally:
        network.train(was_training)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(needed[name])


def _labelled(pixels_NCHW: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    has_label_N = batch.labels_N != UNLABELLED
    return pixels_NCHW[has_label_N], batch.labels_N[has_label_N]


def _gradients(network: Network, batches: Iterator[tuple[Tensor, Tensor]], abs_per_example: bool) -> Evidence:
    """Of the mean loss over all images."""
    parameters = dict(network.named_parameters())
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    num_images = 0
    for pixels_NCHW, labels_N in batches:
        loss = F.cross_entropy(network(pixels_NCHW), labels_N, reduction="sum")
        _add(sums, torch.autograd.grad(loss, list(parameters.values()), allow_unused=True))
        num_images += len(labels_N)
    return Evidence(network, gradients={name: total / max(num_images, 1) for name, total in sums.items()})


def _squares(network: Network, batches: Iterator[tuple[Tensor, Tensor]], abs_per_example: bool) -> Evidence:
    """One image at a time: the square of a sum is not the sum of squares."""
    parameters = dict(network.named_parameters())
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    num_images = 0
    for pixels_NCHW, labels_N in batches:
        for image_CHW, label in zip(pixels_NCHW, labels_N, strict=True):
            loss = F.cross_entropy(network(image_CHW[None]), label[None])
            found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            _add(sums, [None if gradient is None else gradient.square() for gradient in found])
        num_images += len(labels_N)
    return Evidence(
        network, squared_gradients={name: total / max(num_images, 1) for name, total in sums.items()}
    )


def _add(sums: dict[str, Tensor], gradients: Any) -> None:
    for total, gradient in zip(sums.values(), gradients, strict=True):
        if gradient is not None:
            total += gradient


def _activations(
    network: Network, batches: Iterator[tuple[Tensor, Tensor]], abs_per_example: bool
) -> Evidence:
    """Mean over height, width and batch of activation * gradient, summed over the batches, as the report's code has it; with
    `abs_per_example` the absolute value of each image's mean, as the paper's equation 6 has it."""
    sums: dict[str, Tensor] = {}

    def heard(layer: str, product_NC: Tensor) -> None:
        of_batch_C = (product_NC.abs() if abs_per_example else product_NC).mean(dim=0)
        sums[layer] = sums[layer] + of_batch_C if layer in sums else of_batch_C

    with _listening(network, heard):
        for pixels_NCHW, labels_N in batches:
            F.cross_entropy(network(pixels_NCHW), labels_N).backward()
            network.zero_grad(set_to_none=True)
    return Evidence(network, activations=sums)


@contextmanager
def _listening(network: Network, heard: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Within the block each backward pass reports, by layer that makes channels, activation * gradient [N, C]."""

    def listen(layer: str) -> Callable[..., None]:
        def after_forward(module: nn.Module, inputs: Any, output: Tensor) -> None:
            # A copy: an activation that works in place would change what the gradient belongs to.
            activation = output.detach().clone()
            channel = 1 if isinstance(module, nn.Conv2d) else output.ndim - 1
            others = [dim for dim in range(1, output.ndim) if dim != channel]

            def after_backward(gradient: Tensor) -> None:
                product = activation * gradient
                heard(layer, product.mean(dim=others) if others else product)

            output.register_hook(after_backward)

        return after_forward

    handles = [
        module.register_forward_hook(listen(name))
        for name, module in network.named_modules()
        if isinstance(module, _MADE_BY)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
