"""A data set: an uploaded archive, or a folder of the operator's. Without torch: photos are decoded by Pillow alone."""

import time
from pathlib import Path
from typing import Any

from app.spec.resources import DatasetSpec
from worker.datasets.build import build_dataset
from worker.datasets.entries import Limits
from worker.messages import Line, Stops


def dataset(order: dict[str, Any], line: Line, stops: Stops) -> dict[str, Any]:
    """Make index and pack of an uploaded archive, or the index of a registered folder. Raises Problem 422."""
    spec = DatasetSpec.model_validate(order["spec"])
    told_at = 0.0

    def progress(done: float, total: float, unit: str) -> None:
        nonlocal told_at
        if time.monotonic() - told_at > 0.5:
            told_at = time.monotonic()
            line.send(
                {
                    "type": "progress",
                    "done": done,
                    "total": total,
                    "unit": unit,
                    "fraction": done / max(total, 1),
                }
            )

    source = order["file"] or order["folder"]
    report = build_dataset(
        spec,
        Path(source),
        Path(order["work_dir"]),
        progress=progress,
        limits=_limits(order),
        num_threads=order["num_threads"],
    )
    files = {"index": "index.json", "pack": "pack" if order["file"] else None}
    return {"type": "result", "result": {"report": report}, "files": files}


def _limits(order: dict[str, Any]) -> Limits:
    """No archive unpacks to more than this process may write: a verdict, where the system would only say EFBIG."""
    may_write = order.get("limits", {}).get("file_bytes")
    most = Limits().max_total_bytes
    return Limits(max_total_bytes=min(most, may_write) if may_write else most)
