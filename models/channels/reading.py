"""How a graph's steps are read: arguments by name, computed numbers, indices, and what each node gives."""

from typing import Any

import torch

from ..load_artifact import FUNCTIONS, Network, Ref, Step

NUM_IMAGES = 3  # as the reader's dry run: no size of a network is 3 by chance of the batch


def dry_values(network: Network, num_images: int = NUM_IMAGES) -> dict[str, Any]:
    """What every node gives for so many images: numbers, shapes, and tensors on the meta device."""
    values: dict[str, Any] = {}
    was_training = network.training
    network.eval().run(torch.empty((num_images, *network.input_shape), device="meta"), values.__setitem__)
    network.train(was_training)
    return values


def bind(step: Step) -> dict[str, Any]:
    """A function's arguments by name."""
    return dict(zip(FUNCTIONS[step.target].rules, step.args, strict=False)) | step.kwargs


def resolve(argument: Any, values: dict[str, Any]) -> Any:
    """An argument with computed numbers and shapes in place of their names."""
    if isinstance(argument, Ref):
        return values[argument.name] if argument.kind in ("number", "shape") else argument
    if isinstance(argument, list):
        return [resolve(part, values) for part in argument]
    if isinstance(argument, slice):
        return slice(*(resolve(part, values) for part in (argument.start, argument.stop, argument.step)))
    return argument


def index_by_dim(index: Any, ndim: int) -> list[tuple[int, int]]:
    """Where the parts of an index go: (position in the index, dimension of the indexed tensor)."""
    parts = index if isinstance(index, list) else [index]
    num_named = sum(part is not None and part != "..." for part in parts)
    places, dim = [], 0
    for position, part in enumerate(parts):
        if part == "...":
            dim += ndim - num_named
        elif part is not None:
            places.append((position, dim))
            dim += 1
    return places


def names(arguments: Any) -> list[str]:
    """The nodes that are used in there."""
    if isinstance(arguments, Ref):
        return [arguments.name]
    if isinstance(arguments, dict):
        return names(list(arguments.values()))
    if isinstance(arguments, slice):
        return names([arguments.start, arguments.stop, arguments.step])
    if isinstance(arguments, list):
        return [name for part in arguments for name in names(part)]
    return []
