"""A network against its teacher on the same images."""

import math
from typing import Any, NamedTuple

_Z_95 = 1.959963984540054


class Drop(NamedTuple):
    """The teacher's accuracy less the network's, and an interval that holds it with 95 %."""

    split: str
    num_images: int
    value: float
    low: float
    high: float


def compared_split(record: dict[str, Any]) -> str | None:
    """Where accuracies are compared: test, or val where there is no test."""
    return next((split for split in ("test", "val") if split in record.get("splits", {})), None)


def accuracy(record: dict[str, Any] | None, split: str | None) -> float | None:
    if record is None or split is None or split not in record.get("splits", {}):
        return None
    share: float = record["splits"][split]["accuracy"]
    return share


def drop(record: dict[str, Any]) -> Drop | None:
    """From the images that only one of the two gets right; None where no teacher answers any.

    With b that only the teacher gets right and c that only the network does, of n, the drop is (b - c) / n. The interval is
    Bonett and Price's adjusted Wald interval for paired proportions (2012, https://doi.org/10.3102/1076998611411915): one
    more of each kind, so that b = c = 0 is no proof of equality. It speaks of other images of the same kind, not of
    another training.
    """
    pairs: dict[str, dict[str, int]] = record.get("against_teacher") or {}
    split = next((split for split in ("test", "val") if split in pairs), None)
    if split is None:
        return None
    n, b, c = (pairs[split][name] for name in ("num_images", "num_only_teacher", "num_only_network"))
    middle = (b - c) / (n + 2)
    error = math.sqrt(((b + 1) + (c + 1)) / (n + 2) - middle**2) / math.sqrt(n + 2)
    low, high = max(-1.0, middle - _Z_95 * error), min(1.0, middle + _Z_95 * error)
    return Drop(split, n, (b - c) / n, low, high)


def ratio(original: float | None, now: float | None) -> float | None:
    """How many times less there is now; None where one is unknown, or nothing."""
    return original / now if original and now else None
