"""What a job asked of its answer, compared with what was measured of it.

A missed gate fails nothing: the network is there and was measured. `passed` says whether it is what was wanted, and a
warning by how much it is not.
"""

import math
from typing import Any

from app.spec.job import GATES


def judge(spec: dict[str, Any], result: dict[str, Any]) -> list[dict[str, Any]]:
    """A gate for each limit that the job set: gate, limit, value, passed, and how sure the value is.

    `passed` compares the value as it is. A value that could not be measured is null, and has not passed.
    """
    measures = {
        "max_bytes": _bytes,
        "max_accuracy_drop": _accuracy_drop,
        "max_latency_ms": _latency,
    }
    assert measures.keys() == set(GATES)
    gates = []
    for name, measure in measures.items():
        limit = spec.get(name)
        if limit is None:
            continue
        value, more = measure(result.get("stages") or [{}])
        passed = value is not None and value <= limit
        gates.append({"gate": name, "limit": limit, "value": value, "passed": passed, **more})
    return gates


def judged(spec: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """The result with `gates`, `passed` (null: the job set no limits), and a warning for each gate that was missed."""
    gates = judge(spec, result)
    passed = all(gate["passed"] for gate in gates) if gates else None
    warnings = [*result.get("warnings", []), *warnings_of(gates)]
    return result | {"gates": gates, "passed": passed, "warnings": warnings}


def warnings_of(gates: list[dict[str, Any]]) -> list[str]:
    return [_warning(gate) for gate in gates if not gate["passed"]]


_Measured = tuple[float | None, dict[str, Any]]


def _bytes(stages: list[dict[str, Any]]) -> _Measured:
    return stages[-1].get("size_bytes"), {}


def _latency(stages: list[dict[str, Any]]) -> _Measured:
    """Of one image, on the job's device and threads."""
    latency = stages[-1].get("latency_ms") or {}
    shown = ("p10", "p90", "n", "device", "num_threads")
    return latency.get("median"), {name: latency[name] for name in shown if name in latency}


def _accuracy_drop(stages: list[dict[str, Any]]) -> _Measured:
    """The teacher's accuracy (the ensemble's) less the answer's, on test, or on val where there is no test.

    Both are asked about the same images, so those that both get right or wrong say nothing of the difference. With b
    that only the teacher gets right and c that only the answer does, of n: the drop is (b - c) / n, and its standard
    error, of a mean of n differences -1, 0 and 1, is sqrt(b + c - (b - c)**2 / n) / n.
    """
    pairs: dict[str, dict[str, int]] = stages[-1].get("against_teacher") or {}
    split = next((split for split in ("test", "val") if split in pairs), None)
    if split is None:
        return None, {"split": None}
    n, b, c = (pairs[split][name] for name in ("num_images", "num_only_teacher", "num_only_network"))
    error = math.sqrt(b + c - (b - c) ** 2 / n) / n
    return (b - c) / n, {"split": split, "standard_error": error, "num_images": n}


def _warning(gate: dict[str, Any]) -> str:
    name, limit, value = gate["gate"], gate["limit"], gate["value"]
    if value is None:
        return f"{name} is {limit:g}, and there is nothing to compare it with: {_NOT_MEASURED[name]}"
    if name == "max_bytes":
        return (
            f"The answer has {value:,} bytes, and max_bytes is {limit:,}, {value - limit:,} fewer: store it in fewer bits, "
            "give a student a budget, or prune toward target.bytes."
        )
    if name == "max_latency_ms":
        return (
            f"The answer takes {value:.3g} ms for one image (p10 {gate['p10']:.3g}, p90 {gate['p90']:.3g}; "
            f"{gate['device']}, {gate['num_threads']} threads), and max_latency_ms is {limit:g}, {value - limit:.3g} less: "
            "take a smaller student or smaller images, prune channels, or give num_threads."
        )
    doubt = " That is less than one standard error." if value - limit < gate["standard_error"] else ""
    return (
        f"On {gate['split']} ({gate['num_images']} images) the answer loses {value:.4f} ± {gate['standard_error']:.4f} of "
        f"the teacher's accuracy, and max_accuracy_drop is {limit:g}, {value - limit:.4f} less.{doubt} Train longer, "
        "take a larger student, or store it in more bits."
    )


_NOT_MEASURED = {
    "max_bytes": "the answer was not measured.",
    "max_latency_ms": "the answer's latency was not measured.",
    "max_accuracy_drop": "the teachers answer no image of test or val. Name a teacher that does.",
}
