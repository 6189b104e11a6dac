"""The table for spreadsheets and for programs."""

import csv
import io
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from app.analysis.columns import columns
from app.analysis.formats import csv_text, parquet_bytes
from app.analysis.table import Row
from tests.app.analysis.made import row


def read_csv(axes: list[str], rows: list[Row]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text(columns(axes, "answers"), rows))))


def read_parquet(axes: list[str], rows: list[Row]) -> pyarrow.Table:
    return pyarrow.parquet.read_table(io.BytesIO(parquet_bytes(columns(axes, "answers"), rows)))


def test_csv_is_the_table() -> None:
    """Numbers to the last digit; null is empty; truth as in JSON; lists as JSON."""
    rows = [row(0, 3, {"layers": ["a", "b"]}, test_accuracy=1 / 3, size_bytes=120_000, test_leaked=False)]
    [found] = read_csv(["layers"], rows)
    assert float(found["test_accuracy"]) == 1 / 3
    assert (found["size_bytes"], found["seed"], found["val_accuracy"]) == ("120000", "3", "")
    assert (found["test_leaked"], found["layers"]) == ("false", '["a", "b"]')


def test_the_header_is_there_without_rows() -> None:
    """And the same as with them."""
    header = csv_text(columns(["alpha"], "answers"), [])
    assert csv_text(columns(["alpha"], "answers"), [row(0, 0, {"alpha": 1})]).startswith(header)
    assert header.startswith("job_id,point,alpha,seed,state,code,step,method,train_accuracy,")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1+1"])
def test_a_name_is_never_a_formula(text: str) -> None:
    """As a value, and as the name of an axis; numbers stay numbers."""
    [found] = read_csv([text], [row(0, 0, {text: text}, test_accuracy=-0.5)])
    shown = "'" + text.replace("\r", "\n")
    assert found[shown] == shown
    assert found["test_accuracy"] == "-0.5"


def test_hostile_text_stays_in_its_cell() -> None:
    text = 'a,"b"\nc;<script>'
    [found] = read_csv(["plan"], [row(0, 0, {"plan": text})])
    assert found["plan"] == text


def test_parquet_has_real_types_and_units() -> None:
    rows = [row(0, 0, {"alpha": 0}, test_accuracy=0.5, size_bytes=7), row(1, 0, {"alpha": 0.5})]
    found = read_parquet(["alpha"], rows)
    types = {name: str(found.schema.field(name).type) for name in found.schema.names}
    assert types["alpha"] == "double"
    assert types["test_accuracy"] == "double"
    assert types["size_bytes"] == types["seed"] == "int64"
    assert types["test_leaked"] == "bool"
    assert types["state"] == types["code"] == "string"
    assert found.schema.field("size_bytes").metadata[b"unit"] == b"byte"
    assert found.schema.field("state").metadata[b"description"]
    assert found.to_pylist() == rows


@pytest.mark.parametrize(
    ("values", "type_", "read"),
    [
        ([1, 2], "int64", [1, 2]),
        ([1, 2.5], "double", [1.0, 2.5]),
        ([True, None], "bool", [True, None]),
        (["=a", None], "string", ["=a", None]),
        ([1, "a", None], "string", ["1", '"a"', "null"]),
        ([[1], [2, 3]], "string", ["[1]", "[2, 3]"]),
        ([True, 1], "string", ["true", "1"]),
        ([1 << 70, 1], "string", [str(1 << 70), "1"]),
        ([None, None], "string", [None, None]),
    ],
)
def test_an_axis_has_the_type_of_its_values(values: list[Any], type_: str, read: list[Any]) -> None:
    """Where they differ, each is JSON."""
    rows = [row(point, 0, {"axis": value}) for point, value in enumerate(values)]
    found = read_parquet(["axis"], rows).column("axis")
    assert (str(found.type), found.to_pylist()) == (type_, read)


def test_parquet_without_rows_has_its_columns() -> None:
    found = read_parquet(["alpha"], [])
    assert found.num_rows == 0
    assert found.schema.names == [column.name for column in columns(["alpha"], "answers")]
