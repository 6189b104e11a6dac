"""Which ranks a factorisation keeps: by energy, by ratio, or for a whole network by a number of parameters.

`Options` lists what a layer can become. Every rule looks for the best of them that satisfies it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .factorisation import Options

# Shares that should be 1 are a few units in the last place off, and a request for all of it means all of it.
_ROUNDING = 1e-12


def by_energy(options: Options, share: float) -> int:
    """Index of the cheapest option that keeps at least this share of the weight's squared norm, 0 < share <= 1."""
    enough = (options.energy >= share - _ROUNDING).nonzero()[:, 0]
    return int(enough[options.parameters[enough].argmin()])


def by_parameters(options: Options, most: int) -> int | None:
    """Index of the option that keeps the most energy with at most so many parameters; None when there is none."""
    cheap = (options.parameters <= most).nonzero()[:, 0]
    return int(cheap[options.energy[cheap].argmax()]) if len(cheap) else None


class BudgetTooSmallError(ValueError):
    """Even the smallest options of all layers together have more parameters: `smallest`."""

    def __init__(self, smallest: int) -> None:
        super().__init__(f"the smallest options together have {smallest} parameters")
        self.smallest = smallest


class _Point(NamedTuple):
    parameters: int
    energy: float
    option: int | None


class _Segment(NamedTuple):
    """One step up the convex hull of a layer."""

    gain: float
    layer: int
    end: int


def by_budget(layers: Sequence[tuple[Options, int]], budget: int) -> list[int | None]:
    """For each layer (options, parameters as it is) the option to take, None to leave it as it is.

    All together have at most `budget` parameters. Greedy: from the smallest options on, the step that gains the most
    energy per parameter first, along each layer's convex hull (Fox 1966: optimal but for the last step); what is left then
    goes to the layers whose next step did not fit. Energies are shares of each layer's own, as a normalised network does
    not feel the scale of a layer. Raises BudgetTooSmallError.
    """
    fronts = [_front(options, whole) for options, whole in layers]
    left = budget - sum(front[0].parameters for front in fronts)
    if left < 0:
        raise BudgetTooSmallError(budget - left)
    hulls = [_hull(front) for front in fronts]
    segments = [segment for layer, hull in enumerate(hulls) for segment in _segments(layer, hull)]
    at = [front[0] for front in fronts]
    stuck: dict[int, None] = {}
    for _, layer, end in sorted(segments, key=lambda segment: (-segment.gain, segment.layer, segment.end)):
        wanted = hulls[layer][end]
        if layer not in stuck and wanted.parameters - at[layer].parameters <= left:
            left -= wanted.parameters - at[layer].parameters
            at[layer] = wanted
        else:
            stuck[layer] = None
    for layer in stuck:
        best = [point for point in fronts[layer] if point.parameters <= at[layer].parameters + left][-1]
        left -= best.parameters - at[layer].parameters
        at[layer] = best
    return [point.option for point in at]


def _front(options: Options, whole: int) -> list[_Point]:
    """The options worth having and the layer as it is: from cheap to dear, each with more energy than all before."""
    smaller = (options.parameters < whole).nonzero()[:, 0]
    order = smaller[_cheapest_first(options.parameters[smaller], options.energy[smaller])]
    energy = options.energy[order]
    best_before = (
        torch.cat([energy.new_full((1,), -1.0), energy.cummax(0).values[:-1]]) if len(order) else energy
    )
    kept = order[energy > best_before]
    points = [
        _Point(parameters, share, index)
        for parameters, share, index in zip(
            options.parameters[kept].tolist(), options.energy[kept].tolist(), kept.tolist(), strict=True
        )
        if share < 1
    ]
    exact = order[energy >= 1 - _ROUNDING][:1].tolist()
    end = _Point(int(options.parameters[exact[0]]), 1.0, exact[0]) if exact else _Point(whole, 1.0, None)
    return [*(point for point in points if point.parameters < end.parameters), end]


def _cheapest_first(parameters: Tensor, energy: Tensor) -> Tensor:
    """The order by parameters, and among equals by falling energy."""
    order = energy.argsort(descending=True, stable=True)
    return order[parameters[order].argsort(stable=True)]


def _hull(front: list[_Point]) -> list[_Point]:
    """The points of the upper convex hull: each step gains less per parameter than the one before."""
    hull: list[_Point] = []
    for point in front:
        while len(hull) >= 2 and _gain(hull[-2], hull[-1]) < _gain(hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _segments(layer: int, hull: list[_Point]) -> list[_Segment]:
    return [_Segment(_gain(hull[end - 1], hull[end]), layer, end) for end in range(1, len(hull))]


def _gain(start: _Point, end: _Point) -> float:
    return (end.energy - start.energy) / (end.parameters - start.parameters)
