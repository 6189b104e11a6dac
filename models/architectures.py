"""Built-in architectures: names -> networks with random weights. Adding one is one entry in a family file."""

import difflib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from . import cifar_resnet, efficientnet_lite, report, studentnet, torchvision_zoo
from .blueprint import Architecture
from .graph import as_network
from .load_artifact import Network

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for family in (report, studentnet, cifar_resnet, efficientnet_lite, torchvision_zoo)
    for architecture in family.ARCHITECTURES
}


class UnknownArchitectureError(ValueError, LookupError):
    """No architecture has this name; the message suggests the nearest ones."""


def create(name: str, *, num_classes: int, image_size: int | None = None, **options: Any) -> nn.Module:
    """Build an architecture with random weights, drawn from torch's global generator.

    `image_size`: side of the square input in pixels; None: the architecture's own. Returns a plain module in
    train mode: [N, 3, image_size, image_size] -> logits [N, num_classes]. Raises UnknownArchitectureError, or
    ValueError for an option, a size or a number of classes that the architecture does not take.
    """
    architecture = find(name)
    side = architecture.image_size if image_size is None else image_size
    _check_input_and_head(architecture, num_classes, side)
    values = _resolve_options(architecture, options)
    try:
        return architecture.build(num_classes=num_classes, image_size=side, **values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def create_skeleton(
    name: str, *, num_classes: int, image_size: int | None = None, **options: Any
) -> nn.Module:
    """The network of `create` on the meta device: shapes without values, at no cost of memory or time."""
    with _Weightless():
        module = create(name, num_classes=num_classes, image_size=image_size, **options)
    return module.to("meta")


def create_network(
    name: str, *, num_classes: int, image_size: int | None = None, seed: int, **options: Any
) -> Network:
    """The architecture as a Network on the CPU, in train mode, with weights that `seed` decides.

    Otherwise as `create`. The global random state stays as it was.
    """
    # The CPU's generator by itself: torch.manual_seed would reseed an accelerator's, too.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = create(name, num_classes=num_classes, image_size=image_size, **options)
    side = find(name).image_size if image_size is None else image_size
    # Not zeros: as_network compares logits, and zeros would hide a wrong padding.
    return as_network(module, torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)))


class _Weightless(TorchFunctionMode):
    """Makes parameters on the meta device.

    Unlike `torch.device("meta")` it leaves alone the small tensors that some constructors compute with and
    read back: regnet's widths, the rates of stochastic depth.
    """

    _ALLOCATIONS = (torch.empty, torch.zeros, torch.ones)

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        arguments = dict(kwargs or {})
        if function in self._ALLOCATIONS:
            arguments["device"] = "meta"
        return function(*args, **arguments)


def find(name: str) -> Architecture:
    """The architecture of that name. Raises UnknownArchitectureError."""
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    near = difflib.get_close_matches(name, ARCHITECTURES, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(map(repr, near))}?" if near else f"known are {', '.join(ARCHITECTURES)}"
    )
    raise UnknownArchitectureError(f"there is no architecture {name!r}: {hint}")


def _check_input_and_head(architecture: Architecture, num_classes: int, image_size: int) -> None:
    name, multiple = architecture.name, architecture.image_size_multiple
    if num_classes < 1:
        raise ValueError(f"{name}: num_classes is {num_classes}: a classifier needs at least 1 class")
    if image_size < architecture.minimum_image_size:
        raise ValueError(
            f"{name}: image_size {image_size} is too small: nothing would be left of the image before the "
            f"classifier; give at least {architecture.minimum_image_size}"
        )
    if image_size % multiple:
        raise ValueError(
            f"{name}: image_size {image_size} is not a multiple of its patch of {multiple} pixels; "
            f"give {max(image_size // multiple, 1) * multiple} or {(image_size // multiple + 1) * multiple}"
        )


def _resolve_options(architecture: Architecture, given: dict[str, Any]) -> dict[str, Any]:
    """Every option with its value. Raises ValueError for a name or value the architecture does not have."""
    for name, value in given.items():
        if name not in architecture.options:
            known = ", ".join(architecture.options) or "none"
            raise ValueError(f"{architecture.name} has no option {name!r}: its options are {known}")
        try:
            architecture.options[name].check(name, value)
        except ValueError as error:
            raise ValueError(f"{architecture.name}: {error}") from error
    return {name: given.get(name, option.default) for name, option in architecture.options.items()}
