"""The layers that a step's `layers` and `exclude` name."""

import difflib
from fnmatch import fnmatchcase

from app.errors import Problem
from app.spec.layers import LayerChoice
from models import Network


def chosen_layers(network: Network, choice: LayerChoice) -> list[str]:
    """Their names, in the order in which the network first calls them.

    Raises Problem NO_SUCH_LAYER, with the nearest names, for a pattern that matches nothing: it would be a misspelling
    that goes unnoticed.
    """
    called = [node["target"] for node in network.graph["nodes"] if node["op"] == "layer"]
    names = list(dict.fromkeys(called))
    for field, patterns in (("layers", choice.layers), ("exclude", choice.exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise _no_such_layer(field, pattern, names)
    return [name for name in names if _matches(name, choice.layers) and not _matches(name, choice.exclude)]


def require_finite(network: Network, names: list[str]) -> None:
    """Raise Problem WEIGHT_NOT_FINITE, naming the layer, when a weight holds NaN or infinity.

    Nothing approximates such a weight.
    """
    for name in names:
        for tensor in network.get_submodule(name).parameters():
            if not bool(tensor.isfinite().all()):
                raise Problem(
                    422,
                    "WEIGHT_NOT_FINITE",
                    f"The layer {name!r} holds NaN or infinity, so nothing smaller is near it: exclude it, or train again.",
                )


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _no_such_layer(field: str, pattern: str, names: list[str]) -> Problem:
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4) or names[:3]
    return Problem(
        422,
        "NO_SUCH_LAYER",
        f"{field} has {pattern!r}, which matches no layer that the network calls: the nearest are {', '.join(near)}; "
        "the layer table has all.",
    )
