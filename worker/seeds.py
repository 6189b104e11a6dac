"""A job repeated with several seeds: which one is the answer, and how far they lie apart."""

import statistics
from collections.abc import Sequence
from typing import Any

Records = Sequence[dict[str, Any]]
"""The stages of one seed, in order."""

_WHOLE = ("size_bytes", "parameters", "macs", "seconds")


def best_seed(seeds: Sequence[Records]) -> int:
    """The position of the one whose last stage is most accurate on val; the first of equals, and where there is no
    val. Val chooses, so val is optimistic for the chosen one; test is not."""
    return max(range(len(seeds)), key=lambda n: _val_accuracy(seeds[n][-1]))


def _val_accuracy(record: dict[str, Any]) -> float:
    accuracy: float = record["splits"].get("val", {}).get("accuracy", 0.0)
    return accuracy


def summary(seeds: Sequence[Records]) -> list[dict[str, Any]]:
    """For each step mean, std, min, max and the values themselves, in the order of the seeds."""
    return [_step_summary(stages) for stages in zip(*seeds, strict=True)]


def _step_summary(stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first = stages[0]
    splits = {
        split: {"accuracy": spread([stage["splits"][split]["accuracy"] for stage in stages])}
        for split in first["splits"]
    }
    agreement = {
        split: spread([stage["agreement"][split] for stage in stages]) for split in first["agreement"]
    }
    whole = {name: spread([stage[name] for stage in stages]) for name in _WHOLE}
    return {
        "step": first["step"],
        "method": first["method"],
        "splits": splits,
        "agreement": agreement,
    } | whole


def spread(values: Sequence[float]) -> dict[str, Any]:
    """mean, std (of a sample: n - 1; null for one value), min, max, values."""
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
        "values": list(values),
    }
