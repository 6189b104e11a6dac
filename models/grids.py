"""Evenly spaced values that a tensor's elements are rounded to.

minmax spreads 2^bits levels between the smallest and the largest element (Han, Mao, Dally 2016, "Deep
Compression", https://arxiv.org/abs/1510.00149, call it linear quantization); symmetric takes signed integers
times a step, so that 0 stays 0. One grid serves the whole tensor, or each row (index of axis 0) has its own
(Krishnamoorthi 2018, https://arxiv.org/abs/1806.08342, section 3.1.1). Clipping searches the span with the
least squared error (Choukroun et al. 2019, https://arxiv.org/abs/1902.06822, do the same for each tensor).

Shapes: R rows (1 for a grid of the whole tensor), P elements a row.
"""

from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

Clip = Literal["none", "mse"]
Scheme = Literal["minmax", "symmetric"]

_NUMBERS = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
# How much coarser a row's grid may become because its step and minimum are stored in a short number.
_COARSER = 1.01
# Spans that clipping tries, as shares of the whole; below a fifth the clipped tails always lost.
_SHARES = [1 - 0.02 * n for n in range(41)]


@dataclass(frozen=True)
class Grid:
    """Element = first + (code - shift) * (last - first) / levels, with codes 0 ... levels; `shift` is half of
    the codes for symmetric, else 0."""

    scheme: Scheme
    bits: int
    first_R1: Tensor
    """float64: the minimum; 0 for symmetric."""
    last_R1: Tensor
    """float64: the maximum; levels * step for symmetric."""
    numbers: str | None
    """The type that steps and minima are stored in; None: one grid, whose numbers stand in the index."""

    @property
    def levels(self) -> int:
        return (1 << self.bits) - 1

    @property
    def shift(self) -> int:
        return 1 << (self.bits - 1) if self.scheme == "symmetric" else 0

    @property
    def spans(self) -> Tensor:
        return self.last_R1 - self.first_R1

    @property
    def steps(self) -> Tensor:
        return self.spans / self.levels

    def rows(self, tensor: Tensor) -> Tensor:
        """The tensor's elements in float64, one row a grid."""
        return tensor.detach().double().reshape(len(self.first_R1), -1)

    def positions(self, values_RP: Tensor) -> Tensor:
        """Where float64 values lie between the codes; below 0 and above `levels` they will be clipped."""
        # A constant row has no span: every code is then `shift` and decodes to the constant itself.
        span_R1 = torch.where(self.spans > 0, self.spans, 1.0)
        return (values_RP - self.first_R1) / span_R1 * self.levels + self.shift

    def codes(self, values_RP: Tensor) -> Tensor:
        """uint8: the nearest code of each value."""
        return self.positions(values_RP).round_().clamp_(0, self.levels).to(torch.uint8)

    def values(self, codes_RP: Tensor) -> Tensor:
        """float64: what the codes stand for."""
        return self.first_R1 + (codes_RP.double() - self.shift) * self.spans / self.levels

    def to(self, device: torch.device) -> Self:
        return replace(self, first_R1=self.first_R1.to(device), last_R1=self.last_R1.to(device))


def fit_grid(
    tensor: Tensor,
    scheme: Scheme,
    bits: int,
    *,
    by_row: bool = False,
    clip: Clip = "none",
    is_kept: Tensor | None = None,
) -> Grid:
    """The grid of `tensor`: finite, floating-point, with elements; on the CPU. `is_kept` (bool, the same
    shape) says which elements count.

    Without clipping it covers every element, so each is at most half a step away. By row, steps and minima
    are stored in the shortest of float16, float32, float64 that makes no row's grid more than 1 % coarser.
    With `clip="mse"` the squared error of no row is larger than without.
    """
    num_rows = len(tensor) if by_row else 1
    values_RP = tensor.detach().double().reshape(num_rows, -1)
    kept_RP = (
        torch.ones_like(values_RP, dtype=torch.bool) if is_kept is None else is_kept.reshape(num_rows, -1)
    )
    low_R1, high_R1 = _range(values_RP, kept_RP)
    grid = _covering(scheme, bits, low_R1, high_R1, by_row=by_row)
    return grid if clip == "none" else _clipped(grid, values_RP, kept_RP, low_R1, high_R1)


def grid_of_steps(steps_R: Tensor, bits: int, *, by_row: bool, numbers: str) -> Grid:
    """The symmetric grid with these steps, which are exact in `numbers`."""
    last_R1 = steps_R.detach().double().reshape(-1, 1) * ((1 << bits) - 1)
    return Grid("symmetric", bits, torch.zeros_like(last_R1), last_R1, numbers if by_row else None)


def _range(values_RP: Tensor, kept_RP: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest kept element of each row; 0 and 0 for a row without any."""
    low_R1 = values_RP.masked_fill(~kept_RP, float("inf")).amin(dim=1, keepdim=True)
    high_R1 = values_RP.masked_fill(~kept_RP, -float("inf")).amax(dim=1, keepdim=True)
    is_empty_R1 = ~kept_RP.any(dim=1, keepdim=True)
    return low_R1.masked_fill(is_empty_R1, 0.0), high_R1.masked_fill(is_empty_R1, 0.0)


def _exact(scheme: Scheme, bits: int, low_R1: Tensor, high_R1: Tensor) -> tuple[Tensor, Tensor]:
    """First value and step of the finest grid that reaches from low to high."""
    if scheme == "minmax":
        return low_R1, (high_R1 - low_R1) / ((1 << bits) - 1)
    half = 1 << (bits - 1)  # codes reach from -half to half - 1
    step_R1 = torch.maximum(high_R1 / (half - 1), -low_R1 / half)
    return torch.zeros_like(low_R1), step_R1


def _covering(scheme: Scheme, bits: int, low_R1: Tensor, high_R1: Tensor, *, by_row: bool) -> Grid:
    levels = (1 << bits) - 1
    if not by_row:
        first_R1, step_R1 = _exact(scheme, bits, low_R1, high_R1)
        # The maximum itself, to the bit, where there is one.
        return Grid(scheme, bits, first_R1, high_R1 if scheme == "minmax" else step_R1 * levels, None)
    for numbers, dtype in _NUMBERS.items():
        first_R1, step_R1 = _stored(scheme, bits, low_R1, high_R1, dtype)
        grid = Grid(scheme, bits, first_R1, first_R1 + step_R1 * levels, numbers)
        if dtype == torch.float64 or _covers(scheme, bits, low_R1, high_R1, first_R1, step_R1):
            return grid
    raise AssertionError("float64 is the last resort")


def _stored(
    scheme: Scheme, bits: int, low_R1: Tensor, high_R1: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """First value and step rounded to `dtype`, outwards: first down, step up."""
    wanted_R1, _ = _exact(scheme, bits, low_R1, high_R1)
    first_R1 = -_rounded_up(-wanted_R1, dtype)
    reached_R1 = low_R1 if scheme == "symmetric" else first_R1
    _, step_R1 = _exact(scheme, bits, reached_R1, high_R1)
    return first_R1, _rounded_up(step_R1, dtype)


def _rounded_up(values: Tensor, dtype: torch.dtype) -> Tensor:
    """float64 values at least as large as these, exact in `dtype` (except among its subnormal numbers)."""
    if dtype == torch.float64:
        return values
    nearest = values.to(dtype).double()
    above = (values + values.abs() * torch.finfo(dtype).eps).to(dtype).double()
    return torch.where(nearest >= values, nearest, above)


def _covers(
    scheme: Scheme, bits: int, low_R1: Tensor, high_R1: Tensor, first_R1: Tensor, step_R1: Tensor
) -> bool:
    """Whether the grid reaches over the whole row and is hardly coarser than the exact one."""
    _, exact_R1 = _exact(scheme, bits, low_R1, high_R1)
    if scheme == "symmetric":
        is_wide_R1 = step_R1 >= exact_R1
    else:
        is_wide_R1 = (first_R1 <= low_R1) & (first_R1 + step_R1 * ((1 << bits) - 1) >= high_R1)
    return bool((is_wide_R1 & (step_R1 <= _COARSER * exact_R1)).all())


def _clipped(whole: Grid, values_RP: Tensor, kept_RP: Tensor, low_R1: Tensor, high_R1: Tensor) -> Grid:
    """For each row the span, between a fifth of the whole and the whole, with the least squared error."""
    count_R1 = kept_RP.sum(dim=1, keepdim=True).clamp(min=1)
    mean_R1 = (values_RP * kept_RP).sum(dim=1, keepdim=True) / count_R1
    centre_R1 = mean_R1 if whole.scheme == "minmax" else torch.zeros_like(mean_R1)
    best, least_R1 = whole, _squared_error(whole, values_RP, kept_RP)
    for share in _SHARES[1:]:
        narrow = _narrowed(
            whole, centre_R1 + (low_R1 - centre_R1) * share, centre_R1 + (high_R1 - centre_R1) * share
        )
        error_R1 = _squared_error(narrow, values_RP, kept_RP)
        is_better_R1 = error_R1 < least_R1
        least_R1 = torch.where(is_better_R1, error_R1, least_R1)
        best = replace(
            best,
            first_R1=torch.where(is_better_R1, narrow.first_R1, best.first_R1),
            last_R1=torch.where(is_better_R1, narrow.last_R1, best.last_R1),
        )
    return best


def _narrowed(whole: Grid, low_R1: Tensor, high_R1: Tensor) -> Grid:
    """A grid from low to high whose numbers are exact in the type that `whole` stores its own in."""
    dtype = _NUMBERS[whole.numbers or "float32"]
    first_R1, step_R1 = _stored(whole.scheme, whole.bits, low_R1, high_R1, dtype)
    return replace(whole, first_R1=first_R1, last_R1=first_R1 + step_R1 * whole.levels)


def _squared_error(grid: Grid, values_RP: Tensor, kept_RP: Tensor) -> Tensor:
    error_RP = (grid.values(grid.codes(values_RP)) - values_RP) * kept_RP
    return error_RP.square().sum(dim=1, keepdim=True)
