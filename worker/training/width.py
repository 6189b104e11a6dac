"""A student as wide as its file may be."""

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from app.errors import Problem
from app.spec.budget import Budget
from models import Network
from models.channels import distinct_widths
from worker.quantization.file_size import least_weight_bytes, most_packed_bytes
from worker.run import Run


def widest_within(
    budget: Budget, network: Network, run: Run, scaled: Callable[[Network, float], Network]
) -> Network:
    """The widest of the networks that `scaled(network, width)` gives, whose file keeps to the budget whatever its weights
    become. Leaves `run.details["student"]`. Raises Problem 422 BUDGET_TOO_SMALL naming the smallest file."""

    def size_of(width: float) -> int:
        narrowed = scaled(network, width)
        least = least_weight_bytes(narrowed, budget.bits)
        # Of what is far too large no file is made.
        return least if least > budget.bytes else most_packed_bytes(narrowed, budget.bits, run)

    widths = distinct_widths(network)
    # Wider is larger in every layer, so halving finds it.
    num_fitting = bisect_right(widths, budget.bytes, key=size_of)
    if num_fitting == 0:
        smallest = most_packed_bytes(scaled(network, widths[0]), budget.bits, run)
        raise Problem(
            422,
            "BUDGET_TOO_SMALL",
            f"student.budget is {budget.bytes:,} bytes at {budget.bits} bits, and with the fewest channels in every layer "
            f"this student's file can have {smallest:,}: raise budget.bytes, lower budget.bits, or take a student of fewer "
            "layers.",
        )
    width = widths[num_fitting - 1]
    widest = scaled(network, width)
    describe(run, widest, width, most_packed_bytes(widest, budget.bits, run), budget)
    return widest


def describe(
    run: Run, network: Network, width: float, estimated_bytes: int | None = None, budget: Budget | None = None
) -> None:
    """What came of the width or budget that a student was asked for, for the stage's record."""
    details: dict[str, Any] = {
        "width": width,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "estimated_bytes": estimated_bytes,
        "budget": None if budget is None else budget.model_dump(),
    }
    run.details["student"] = details
