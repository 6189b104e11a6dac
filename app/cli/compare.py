"""The command `fewbytes compare`."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from app.cli.options import Key, Url, service
from app.cli.tables import Column, columns_of, console, markdown, terminal_table
from app.cli.terminal import printable, refuse, say, tell
from app.client import Client
from app.client.sweep_answers import ComparisonView, Summary, TableView

app = typer.Typer()

_FIRST = (
    *(
        "state",
        "code",
        "test_accuracy",
        "val_accuracy",
        "test_agreement",
        "size_bytes",
        "parameters",
        "macs",
        "latency_ms",
    ),
    *("compression_ratio", "speed_up", "epochs", "seconds"),
)
"""What people compare by; the CSV has every column."""


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"
    md = "md"


class Rows(StrEnum):
    answers = "answers"
    stages = "stages"
    iterations = "iterations"


@app.command(
    epilog="Example: fewbytes compare job_06fn3c job_06fn4d --format md\n\n"
    "One sweep is compared in itself: fewbytes compare swp_06fn5e"
)
def compare(
    idents: Annotated[
        list[str],
        typer.Argument(
            metavar="ID...", help="Jobs, the first being the baseline; or one sweep.", show_default=False
        ),
    ],
    format: Annotated[Format, typer.Option("--format", "-f", help="How to print it.")] = Format.table,
    rows: Annotated[
        Rows, typer.Option(help="A row a job, a stage, or an iteration of pruning.")
    ] = Rows.answers,
    metric: Annotated[
        str | None,
        typer.Option(help="What the verdict is about. Default: test_accuracy, or the sweep's own."),
    ] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Compare jobs in one table."""
    is_sweep = idents[0].startswith("swp_")
    if is_sweep and len(idents) > 1:
        refuse("One sweep at a time: its jobs are compared with each other.")
    for ident in idents:
        if not ident.startswith(("job_", "swp_")) or (ident.startswith("swp_") and not is_sweep):
            refuse(f"{ident!r} is no job: give ids that begin with job_, or one sweep alone.")
    with service(url, key) as client:
        if format is Format.csv:
            tell(_csv(client, idents, rows.value, metric).removesuffix("\n"))
            return
        table, summary = _compared(client, idents, rows.value, metric)
        if format is Format.json:
            tell(table.model_dump_json(indent=2))
            return
        columns = _columns(table)
        if format is Format.md:
            tell(markdown(columns, table.rows))
        else:
            console().print(terminal_table(columns, table.rows))
        tell(("\n" if format is Format.md else "") + printable(summary.verdict))
        for warning in table.warnings:
            say(f"warning: {warning}")


def _csv(client: Client, idents: list[str], rows: Any, metric: str | None) -> str:
    if idents[0].startswith("swp_"):
        return client.sweeps.table_file(idents[0], rows=rows).decode()
    return client.comparisons.compare_file(idents, rows=rows, metric=metric).decode()


def _compared(client: Client, idents: list[str], rows: Any, metric: str | None) -> tuple[TableView, Summary]:
    if idents[0].startswith("swp_"):
        return client.sweeps.table(idents[0], rows=rows), client.sweeps.summary(idents[0], metric=metric)
    found: ComparisonView = client.comparisons.compare(idents, rows=rows, metric=metric)
    return found, found.summary


def _columns(table: TableView) -> list[Column]:
    """The axes, then what people compare by; seeds and steps where rows differ in them."""
    axes = [axis.column for axis in table.axes]
    varying = [name for name in ("seed", "step", "method", "iteration") if _varies(name, table.rows)]
    names = [*axes, *varying, *_FIRST, "accuracy_before", "accuracy_after"]
    return columns_of(names if axes else ["job_id", *names], table.rows)


def _varies(name: str, rows: list[dict[str, Any]]) -> bool:
    return len({str(row.get(name)) for row in rows}) > 1
