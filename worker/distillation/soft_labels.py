"""Soft labels as a file: what a teacher said about each picture, by the picture's name.

The ensemble that made them need not be here, or exist any more. Two forms are read:

* a torch file (`weights_only=True`): `{"format": "fewbytes/soft-labels/1", "kind": "logits" | "probabilities",
  "class_names": [C str], "paths": [N str], "values": float [N, C], "temperature": float}`. `temperature` (1 when left
  out) is the one at which probabilities were taken: softmax(logits / temperature);
* CSV with the header `path,<class name>,...`: probabilities (at temperature 1) when every row is one, else logits.

Shapes: N pictures in the file, C classes in the file's order.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor

from app.errors import Problem
from app.spec.base import Split
from worker.gate.class_names import RULE, are_usable
from worker.run import Data
from worker.stages import write_whole

FORMAT = "fewbytes/soft-labels/1"
Kind = Literal["logits", "probabilities"]

# Half precision keeps about three decimals a value, and a row has many.
_SUM_TOLERANCE = 1e-2
_MAX_SHOWN = 200
_TORCH_MAGIC = (b"PK\x03\x04", b"\x80")


@dataclass(frozen=True)
class SoftLabels:
    """What a file of soft labels holds."""

    kind: Kind
    class_names: list[str]
    paths: list[str]
    values_NC: Tensor
    """float32."""
    temperature: float = 1.0

    @property
    def rows(self) -> dict[str, int]:
        """path -> row of `values_NC`."""
        return {path: row for row, path in enumerate(self.paths)}


def read_soft_labels(path: Path) -> SoftLabels:
    """Read and check a file of soft labels that we wrote ourselves, or a CSV.

    Raises Problem 422 SOFT_LABELS_UNREADABLE naming what is wrong: neither form, a class or path that is named twice,
    shapes that disagree, numbers that are not finite, "probabilities" whose rows do not sum to 1 (within 0.01).
    """
    with path.open("rb") as file:
        is_torch = file.read(4).startswith(_TORCH_MAGIC)
    return _checked(_read_torch(path) if is_torch else _read_csv(path))


def read_table(path: Path) -> SoftLabels:
    """An uploaded CSV. Raises Problem 422 SOFT_LABELS_UNREADABLE."""
    return _checked(_read_csv(path))


def read_document(document: Mapping[str, Any]) -> SoftLabels:
    """The content of an uploaded torch file, as the gate read it. Raises Problem 422 SOFT_LABELS_UNREADABLE."""
    return _checked(_from_content(document))


def write_soft_labels(path: Path, labels: SoftLabels) -> None:
    """Write the torch form; the same labels give the same bytes. Values keep their precision (float16 or float32)."""
    content = {
        "format": FORMAT,
        "kind": labels.kind,
        "class_names": labels.class_names,
        "paths": labels.paths,
        "values": labels.values_NC.cpu().contiguous(),
        "temperature": labels.temperature,
    }
    buffer = io.BytesIO()  # torch.save would write the name of a file into it
    torch.save(content, buffer)
    write_whole(path, buffer.getbuffer())


def rows_for(rows: Mapping[str, int], data: Data, splits: Sequence[Split]) -> Tensor:
    """int64 [M]: for each picture of `splits`, one after the other, its row in a table; -1 where it has none.

    A picture is found by its path in the data set, else by its file name where that names one row of the table and
    one picture of the whole data set.
    """
    every_split: tuple[Split, ...] = ("train", "val", "test", "unlabeled")
    in_data = Counter(_name(path) for split in every_split if data.has(split) for path in data.paths(split))
    in_table = Counter(_name(path) for path in rows)
    by_name = {_name(path): row for path, row in rows.items() if in_table[_name(path)] == 1}

    def row_of(path: str) -> int:
        if path in rows:
            return rows[path]
        return by_name.get(_name(path), -1) if in_data[_name(path)] == 1 else -1

    return torch.tensor([row_of(path) for split in splits for path in data.paths(split)], dtype=torch.int64)


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _unreadable(why: str) -> Problem:
    return Problem(
        422,
        "SOFT_LABELS_UNREADABLE",
        f"The file cannot be read as soft labels: {why}. Upload a CSV with the header path,<class name>,... "
        f"or a torch file with format {FORMAT!r} (docs/formats.md).",
    )


def _read_torch(path: Path) -> SoftLabels:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # a damaged or foreign pickle raises whatever its reader stumbles over
        if "Allocator" in str(error) or "not enough memory" in str(error):
            raise
        reason = (str(error).splitlines() or [""])[0][:200]
        raise _unreadable(f"torch.load says {type(error).__name__}: {reason}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _unreadable(f"it is a torch file, but its 'format' is not {FORMAT!r}")
    return _from_content(content)


def _from_content(content: Mapping[str, Any]) -> SoftLabels:
    kind, values = content.get("kind"), content.get("values")
    temperature = content.get("temperature", 1.0)
    if kind not in ("logits", "probabilities"):
        raise _unreadable(f"its 'kind' is {str(kind)[:_MAX_SHOWN]!r}, not 'logits' or 'probabilities'")
    for key in ("class_names", "paths"):
        names = content.get(key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _unreadable(f"its {key!r} is no list of str")
    if not isinstance(values, Tensor) or values.layout != torch.strided or not values.is_floating_point():
        raise _unreadable("its 'values' is no tensor of floating-point numbers")
    expected = (len(content["paths"]), len(content["class_names"]))
    if tuple(values.shape) != expected:  # before it is copied: a view may claim any size
        raise _unreadable(
            f"its 'values' has the shape {list(values.shape)}, "
            f"and its paths and class_names need {list(expected)}"
        )
    if not isinstance(temperature, float | int) or not 0 < temperature < math.inf:
        raise _unreadable(f"its 'temperature' is {str(temperature)[:_MAX_SHOWN]!r}, not a positive number")
    return SoftLabels(
        kind, content["class_names"], content["paths"], values.float().contiguous(), float(temperature)
    )


def _read_csv(path: Path) -> SoftLabels:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            if len(header) < 2 or header[0].strip().lower() != "path":
                raise _unreadable(
                    f"its first line is {','.join(header)[:80]!r}, not the header path,<class name>,..."
                )
            paths, values = _csv_rows(lines, num_columns=len(header))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(f"it is no CSV in UTF-8 ({error})") from None
    values_NC = torch.tensor(values, dtype=torch.float32).view(len(paths), len(header) - 1)
    kind: Kind = "probabilities" if _are_probabilities(values_NC) else "logits"
    return SoftLabels(kind, header[1:], paths, values_NC)


def _csv_rows(lines: Any, *, num_columns: int) -> tuple[list[str], list[list[float]]]:
    paths, values = [], []
    for cells in lines:
        if not cells:
            continue
        if len(cells) != num_columns:
            raise _unreadable(f"line {lines.line_num} has {len(cells)} cells, the header has {num_columns}")
        try:
            values.append([float(cell) for cell in cells[1:]])
        except ValueError as error:
            raise _unreadable(f"line {lines.line_num}: {error}") from None
        paths.append(cells[0])
    return paths, values


def _are_probabilities(values_NC: Tensor) -> bool:
    sums_N = values_NC.double().sum(dim=1)
    return bool((values_NC >= 0).all() and ((sums_N - 1).abs() <= _SUM_TOLERANCE).all())


def _checked(labels: SoftLabels) -> SoftLabels:
    if not labels.paths or len(labels.class_names) < 2:
        raise _unreadable(
            f"it has {len(labels.paths)} pictures and {len(labels.class_names)} classes: at least 1 and 2 are needed"
        )
    if not are_usable(labels.class_names):
        raise _unreadable(RULE)
    for what, names in (("path", labels.paths), ("class", labels.class_names)):
        (name, count), *_ = Counter(names).most_common(1)
        if count > 1:
            raise _unreadable(f"it names the {what} {name[:_MAX_SHOWN]!r} {count} times")
    if not bool(labels.values_NC.isfinite().all()):
        row = int((~labels.values_NC.isfinite()).any(dim=1).nonzero()[0])
        _refuse_row(labels, row, "holds a number that is not finite")
    if labels.kind == "probabilities" and not _are_probabilities(labels.values_NC):
        wrong_N = (labels.values_NC < 0).any(dim=1) | (
            (labels.values_NC.double().sum(dim=1) - 1).abs() > _SUM_TOLERANCE
        )
        _refuse_row(
            labels, int(wrong_N.nonzero()[0]), "holds no probabilities: negative, or not summing to 1"
        )
    return labels


def _refuse_row(labels: SoftLabels, row: int, why: str) -> NoReturn:
    raise _unreadable(f"the row of {labels.paths[row][:_MAX_SHOWN]!r} {why}")
