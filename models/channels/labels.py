"""Labels: a name for every channel, and for every element of a value the channel it came from.

A value of the network is stood for by an int64 tensor of its own shape. Elements of one channel carry one
label; along batch, height and width a label repeats, so those dimensions are expanded (stride 0) and cost
nothing. `NONE` marks elements that can never be removed: the image's, attention's, a sum over channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

NONE = -1


class Labels:
    """All labels of one network: which are one and the same (union-find), and which must stay, and why."""

    def __init__(self) -> None:
        # By label, the one that stands for it; NONE is -1, so it finds itself as the last entry.
        self._table = torch.tensor([NONE])
        self.producers: list[str | None] = []
        """The layer that made each label; None for labels of parameters and of padding."""
        self.kept_because: dict[int, str] = {}

    def fresh(self, count: int, producer: str | None) -> Tensor:
        """`count` new labels, int64 [count]."""
        start = len(self.producers)
        labels = torch.arange(start, start + count)
        self._table = torch.cat([self._table[:-1], labels, self._table[-1:]])
        self.producers.extend([producer] * count)
        return labels

    def roots(self, labels: Tensor) -> Tensor:
        """The label that stands for all those united with it, elementwise; NONE stays NONE."""
        return self._table[labels]

    def unite(self, a: Tensor, b: Tensor, why: str) -> None:
        """Make each element of `a` one with that of `b` (same shape); what meets NONE has to stay, `why`."""
        small_a, small_b = _without_repeats(a, b)
        a_roots, b_roots = self.roots(small_a).flatten(), self.roots(small_b).flatten()
        meets_none = (a_roots == NONE) | (b_roots == NONE)
        self.keep(torch.maximum(a_roots, b_roots)[meets_none], why)
        self._join(a_roots[~meets_none], b_roots[~meets_none])

    def keep(self, labels: Tensor, why: str) -> None:
        """These labels may not be removed. The first reason counts."""
        for root in self.present(labels).tolist():
            self.kept_because.setdefault(root, why)

    def _join(self, a_roots: Tensor, b_roots: Tensor) -> None:
        while True:
            a_roots, b_roots = self._table[a_roots], self._table[b_roots]
            differ = a_roots != b_roots
            if not differ.any():
                return
            a_roots, b_roots = a_roots[differ], b_roots[differ]
            # The earlier label stands for both, so that order and names follow the graph. A label with several
            # partners gets the earliest of them now, and the others in the next round.
            first, second = torch.minimum(a_roots, b_roots), torch.maximum(a_roots, b_roots)
            self._table = self._table.scatter_reduce(0, second, first, "amin")
            while not torch.equal(self._table, further := self._table[self._table]):
                self._table = further

    def axes(self, labels: Tensor) -> list[int]:
        """The dimensions along which labels change. A value that can be narrowed has at most one."""
        small = self._small(labels)
        return [dim for dim in range(small.ndim) if _changes(small, dim)]

    def present(self, labels: Tensor) -> Tensor:
        """The labels that occur, rising, without NONE."""
        found = self._small(labels).unique()
        return found[found != NONE]

    def _small(self, labels: Tensor) -> Tensor:
        """The roots, with repeats along a dimension left out."""
        for dim in range(labels.ndim):
            if labels.stride(dim) == 0 and labels.shape[dim]:
                labels = labels.narrow(dim, 0, 1)
        return self.roots(labels)

    def couple(self, labels: Tensor, dim: int, why: str) -> Tensor:
        """Make labels change along `dim` alone, by uniting along all others."""
        along = column(labels, dim)
        self.unite(labels, spread(along, dim, labels.shape), why)
        return spread(along, dim, labels.shape)


@dataclass(frozen=True)
class Value:
    """A tensor's labels, int64 of its shape; `why`: what made its NONE elements unremovable."""

    labels: Tensor
    why: str


def _changes(labels: Tensor, dim: int) -> bool:
    length = labels.shape[dim]
    return length > 1 and not torch.equal(
        labels.narrow(dim, 0, length - 1), labels.narrow(dim, 1, length - 1)
    )


def column(labels: Tensor, dim: int) -> Tensor:
    """The labels along `dim`, 1-D; they must be the same along all other dimensions."""
    for other in reversed([d for d in range(labels.ndim) if d != dim % labels.ndim]):
        labels = labels.select(other, 0)
    return labels


def spread(labels_C: Tensor, dim: int, shape: torch.Size) -> Tensor:
    """The opposite of `column`: labels of `shape` that change along `dim` alone."""
    ones = [1] * len(shape)
    ones[dim] = len(labels_C)
    return labels_C.view(ones).expand(shape)


def _without_repeats(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    for dim in reversed(range(a.ndim)):
        if a.shape[dim] > 1 and a.stride(dim) == 0 and b.stride(dim) == 0:
            a, b = a.select(dim, 0), b.select(dim, 0)
    return a, b
