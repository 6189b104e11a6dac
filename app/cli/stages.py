"""The stage table of a job: what every step made of the network."""

from collections.abc import Sequence
from typing import Any

from app.cli import figures
from app.cli.tables import Column, Row

COLUMNS = (
    Column("step", "step"),
    Column("test_accuracy", "test accuracy", right=True),
    Column("val_accuracy", "val accuracy", right=True),
    Column("size_bytes", "bytes", right=True),
    Column("parameters", "parameters", right=True),
    Column("macs", "MACs", right=True),
    Column("latency_ms", "latency", right=True),
)
_OF_SEED = Column("seed", "seed", right=True)


def stage_columns(records: Sequence[dict[str, Any]]) -> list[Column]:
    return [*([_OF_SEED] if any("seed" in record for record in records) else []), *COLUMNS]


def stage_row(record: dict[str, Any]) -> Row:
    """A record of a job's stage, as events and results have it."""
    splits = record.get("splits") or {}
    latency = record.get("latency_ms") or {}
    return {
        "seed": record.get("seed"),
        "step": f"{record.get('step')} {record.get('method')}",
        **{f"{name}_accuracy": _accuracy(splits.get(name)) for name in ("test", "val")},
        **{name: record.get(name) for name in ("size_bytes", "parameters", "macs")},
        "latency_ms": latency.get("median"),
    }


def _accuracy(score: dict[str, Any] | None) -> Any:
    """A split that a step was trained on says nothing any more: its accuracy is marked."""
    if score is None:
        return None
    return f"{figures.share(score['accuracy'])} (trained on)" if score.get("leaked") else score["accuracy"]
