"""The command `fewbytes settings`, for the operator: what can be set, and what is."""

import re
from enum import StrEnum
from typing import Annotated, Any

import typer
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from app.cli.tables import Column, console, markdown, terminal_table
from app.cli.terminal import tell
from app.settings import Settings, settings

app = typer.Typer()

_VARIABLE, _DEFAULT, _MEANING = (
    Column("variable", "variable"),
    Column("default", "default"),
    Column("meaning", "meaning"),
)
_PASSWORD = re.compile(r"(?<=://)([^:@/]*):[^@/]*(?=@)")


class Format(StrEnum):
    table = "table"
    md = "md"


@app.command(name="settings", epilog="docs/settings.md is what --format md prints.")
def show_settings(
    format: Annotated[
        Format, typer.Option(help="table: what is set here, too; md: the page of all settings.")
    ] = Format.table,
) -> None:
    """Show every setting: its environment variable, what is set here, its default and its meaning."""
    rows = [_row(name, field) for name, field in Settings.model_fields.items()]
    if format is Format.md:
        tell(markdown([_VARIABLE, _DEFAULT, _MEANING], rows))
        return
    here = settings()
    for row in rows:
        row["here"] = _shown(getattr(here, row["name"])) if row["name"] in here.model_fields_set else ""
    console().print(terminal_table([_VARIABLE, Column("here", "set here"), _DEFAULT, _MEANING], rows))


def _row(name: str, field: FieldInfo) -> dict[str, Any]:
    alias = field.validation_alias
    variable = alias.choices[0] if isinstance(alias, AliasChoices) else f"FEWBYTES_{name.upper()}"
    default = field.get_default(call_default_factory=True, validated_data={})
    return {
        "name": name,
        "variable": variable,
        "default": _shown(default),
        "meaning": field.description or "",
    }


def _shown(value: Any) -> str:
    """As the environment would have it, without passwords."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10g}"
    if value in (None, "", {}):
        return ""
    return _PASSWORD.sub(r"\1:***", str(value))
