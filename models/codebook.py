"""A tensor's elements as numbers of the values in a small book, found by k-means.

Han, Mao, Dally 2016, "Deep Compression", https://arxiv.org/abs/1510.00149, section 3: 1-D k-means, centres
first spread evenly between the smallest and the largest element, which they found to beat random and
density-based beginnings because the few large weights matter. Changed: the book is not trained further.
"""

import torch
from torch import Tensor

_MAX_ROUNDS = 200
# A centre may move by this share of the smallest gap when it is stored in half precision.
_MOVES = 0.01


def k_means(values_N: Tensor, size: int) -> Tensor:
    """float64 [<= size], rising: the centres that Lloyd's rounds end in. `values_N`: float64, at least one.

    As many different values as `size` or fewer are the centres themselves. A centre that no value is nearest
    to stays where it is, and is dropped in the end. The same values always give the same centres.
    """
    sorted_N = values_N.sort().values
    different = sorted_N.unique_consecutive()
    if len(different) <= size:
        return different
    # Sorted values: a centre's share is a stretch between two cuts, its sum a difference of running sums.
    running_N = torch.cat([sorted_N.new_zeros(1), sorted_N.cumsum(0)])
    low, high = float(sorted_N[0]), float(sorted_N[-1])
    centres_K = low + (high - low) * torch.arange(size, dtype=torch.float64) / (size - 1)
    for _ in range(_MAX_ROUNDS):
        ends_K = _ends(sorted_N, centres_K)
        moved_K = _means(running_N, ends_K, centres_K)
        if torch.equal(moved_K, centres_K):
            break
        centres_K = moved_K
    is_used_K = _counts(_ends(sorted_N, centres_K)) > 0
    return centres_K[is_used_K].unique_consecutive()


def nearest(values_N: Tensor, centres_K: Tensor) -> Tensor:
    """int64: the number of the centre next to each value; halfway between two, the lower."""
    return torch.bucketize(values_N, _midpoints(centres_K))


def short_numbers(centres_K: Tensor) -> str:
    """ "float16" where the centres hardly move in half precision, else "float32", or "float64" as a last
    resort."""
    gap = float(centres_K.diff().min()) if len(centres_K) > 1 else float(centres_K.abs().max())
    for name, dtype in (("float16", torch.float16), ("float32", torch.float32)):
        if float((centres_K.to(dtype).double() - centres_K).abs().max()) <= _MOVES * gap:
            return name
    return "float64"


def _midpoints(centres_K: Tensor) -> Tensor:
    return (centres_K[:-1] + centres_K[1:]) / 2


def _ends(sorted_N: Tensor, centres_K: Tensor) -> Tensor:
    """Where each centre's stretch of the sorted values ends."""
    inner = torch.searchsorted(sorted_N, _midpoints(centres_K), right=True)
    return torch.cat([inner, inner.new_tensor([len(sorted_N)])])


def _counts(ends_K: Tensor) -> Tensor:
    return ends_K.diff(prepend=ends_K.new_zeros(1))


def _means(running_N: Tensor, ends_K: Tensor, centres_K: Tensor) -> Tensor:
    sums_K = running_N[ends_K].diff(prepend=running_N[:1])
    counts_K = _counts(ends_K)
    return torch.where(counts_K > 0, sums_K / counts_K.clamp(min=1), centres_K)
