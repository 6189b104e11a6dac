"""The table as CSV for spreadsheets, and as Parquet for programs."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from app.analysis.columns import Column, Type
from app.analysis.table import Row

# What a spreadsheet takes for a formula when a cell begins with it, also in the wide forms of East Asian keyboards.
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_INT64 = range(-(1 << 63), 1 << 63)


def csv_text(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """A header and a line a row; null is empty, lists and objects are JSON.

    Text that a spreadsheet would run as a formula gets an apostrophe in front. Numbers never do.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_cell(column.name) for column in columns])
    names = [column.name for column in columns]
    writer.writerows([_cell(row[name]) for name in names] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        text = value.replace("\r\n", "\n").replace("\r", "\n")  # csv quotes a cell for \n, not for \r
        return f"'{text}" if text.startswith(_FORMULA) else text
    if isinstance(value, bool | list | dict):
        return json.dumps(value)
    return value


def parquet_bytes(columns: Sequence[Column], rows: Sequence[Row]) -> bytes:
    """The table with real types; unit and description of a column are metadata of its field.

    An axis has the type that all its values have; where they have none in common, each is its JSON as text.
    """
    import pyarrow
    import pyarrow.parquet

    types = {
        "string": pyarrow.string(),
        "integer": pyarrow.int64(),
        "number": pyarrow.float64(),
        "boolean": pyarrow.bool_(),
    }
    fields, arrays = [], []
    for column in columns:
        values = [row[column.name] for row in rows]
        kind = column.type
        if kind == "any":
            kind = _type_of(values)
            if kind == "any":
                values = [json.dumps(value) for value in values]
                kind = "string"
        metadata = {"description": column.description, **({"unit": column.unit} if column.unit else {})}
        fields.append(pyarrow.field(column.name, types[kind], metadata=metadata))
        arrays.append(pyarrow.array(values, types[kind]))
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=pyarrow.schema(fields)), buffer)
    return buffer.getvalue()


def _type_of(values: Sequence[Any]) -> Type:
    """What all values are that are not null; "any": they differ."""
    found = {_type(value) for value in values if value is not None}
    if not found:
        return "string"
    if found == {"integer", "number"}:
        return "number"
    return found.pop() if len(found) == 1 else "any"


def _type(value: Any) -> Type:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if value in _INT64 else "any"
    if isinstance(value, float):
        return "number"
    return "string" if isinstance(value, str) else "any"
