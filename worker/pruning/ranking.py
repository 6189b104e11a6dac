"""Which units go: from scores to an order of removal, and from an order to a number.

`local` compares the units of one group, `global` all of them, `isomorphic` those of groups with the same structure (Fang et
al. 2024, https://arxiv.org/abs/2407.04616). No group falls below its floor, in any of them: a group that has reached it is
passed by and the next unit goes instead.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from models import Network
from models.channels import Group
from worker.pruning.carving import Removal
from worker.pruning.criteria import multiplicity

Ranking = Literal["local", "global", "isomorphic"]
Unit = tuple[str, int]
"""Group name and index among the units that are left."""


@dataclass(frozen=True)
class Candidate:
    """A group that may lose units: how many it must keep, and what it must keep a multiple of."""

    group: Group
    scores_U: Tensor
    floor: int
    multiple: int
    original_units: int

    @property
    def ascending(self) -> list[int]:
        """Its units, the weakest first; of equal ones the first."""
        order: list[int] = self.scores_U.argsort(stable=True).tolist()
        return order


@dataclass
class Scope:
    """Units that are compared with each other."""

    original_units: int = 0
    num_units: int = 0
    removable: list[Unit] = field(default_factory=list)
    """The weakest first; those that keep a group at its floor are not in it."""


def candidate(
    group: Group, scores_U: Tensor, *, original_units: int, min_channels: int, round_to: int
) -> Candidate:
    """`min_channels` and `round_to` count channels of the group's first layer, of which a unit may be several."""
    channels_a_unit = multiplicity(group)
    floor = min(max(math.ceil(min_channels / channels_a_unit), 1), group.num_units)
    return Candidate(group, scores_U, floor, round_to // math.gcd(round_to, channels_a_unit), original_units)


def scopes(candidates: list[Candidate], ranking: Ranking, network: Network) -> list[Scope]:
    """Every unit that may go, in the scope it is compared in."""
    keys: dict[Ranking, Callable[[Candidate], Hashable]] = {
        "local": lambda c: c.group.name,
        "global": lambda c: None,
        "isomorphic": lambda c: structure(c.group, network),
    }
    found: dict[Hashable, list[Candidate]] = {}
    for each in candidates:
        found.setdefault(keys[ranking](each), []).append(each)
    return [_scope(together) for together in found.values()]


def structure(group: Group, network: Network) -> Hashable:
    """What two groups must share to be compared: how many layers of which type make, read and norm their channels."""
    weights = [member for member in group.members if member.tensor == f"{member.layer}.weight"]
    types = Counter((member.role, type(network.get_submodule(member.layer)).__name__) for member in weights)
    return frozenset(types.items())


def _scope(candidates: list[Candidate]) -> Scope:
    scope = Scope(
        sum(each.original_units for each in candidates), sum(each.group.num_units for each in candidates)
    )
    entries = [
        (each.scores_U[index].item(), position, rank, index)
        for position, each in enumerate(candidates)
        for rank, index in enumerate(each.ascending)
    ]
    spare = [each.group.num_units - each.floor for each in candidates]
    for _, position, _, index in sorted(entries):
        if spare[position] > 0:
            spare[position] -= 1
            scope.removable.append((candidates[position].group.name, index))
    return scope


def by_keep_rate(found: list[Scope], keep_rate: float, iteration: int) -> list[Unit]:
    """Each scope shrinks to int(original * keep_rate^iteration) units; `iteration` counts from 1."""
    chosen: list[Unit] = []
    for scope in found:
        # A billionth: 0.29 * 100 is 28.999999999999996 in binary, and 29 was meant.
        kept = math.floor(scope.original_units * keep_rate**iteration + 1e-9)
        chosen += scope.removable[: max(scope.num_units - kept, 0)]
    return chosen


def in_order(found: list[Scope]) -> list[Unit]:
    """All units that may go, so that at every moment each scope has lost about the same share of its units."""
    keyed = [
        ((rank + 1) / scope.num_units, position, rank, unit)
        for position, scope in enumerate(found)
        for rank, unit in enumerate(scope.removable)
    ]
    return [unit for *_, unit in sorted(keyed, key=lambda entry: entry[:3])]


def as_removal(chosen: list[Unit], candidates: list[Candidate]) -> Removal:
    """By group, rounded: a group that loses units keeps a multiple. Down, unless that is below its floor."""
    counts: Counter[str] = Counter(name for name, _ in chosen)
    removal: Removal = {}
    for each in candidates:
        num_chosen = counts[each.group.name]
        if num_chosen == 0:
            continue
        kept = _rounded(each.group.num_units - num_chosen, each)
        if kept < each.group.num_units:
            removal[each.group.name] = sorted(each.ascending[: each.group.num_units - kept])
    return removal


def _rounded(kept: int, each: Candidate) -> int:
    rounded = kept - kept % each.multiple
    if rounded < each.floor:
        rounded = math.ceil(each.floor / each.multiple) * each.multiple
    return min(rounded, each.group.num_units)


def shortest(order: list[Unit], fits: Callable[[list[Unit]], bool]) -> list[Unit] | None:
    """The fewest of `order`, from its beginning, for which `fits` holds; None where all of them do not suffice. `fits` stays
    true once it is."""
    if not fits(order):
        return None
    low, high = 0, len(order)  # `high` fits
    while low < high:
        middle = (low + high) // 2
        if fits(order[:middle]):
            high = middle
        else:
            low = middle + 1
    return order[:high]


def spread(
    start: float, end: float, iteration: int, iterations: int, schedule: Literal["linear", "geometric"]
) -> float:
    """Where a measure that goes from `start` to `end` is after this iteration, counted from 1."""
    if iteration == iterations:
        return end
    share = iteration / iterations
    if schedule == "linear":
        return start + (end - start) * share
    return start * (end / start) ** share


def num_removed(removal: Mapping[str, list[int]]) -> int:
    return sum(len(units) for units in removal.values())
