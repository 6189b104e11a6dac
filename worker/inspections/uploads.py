"""An uploaded teacher: first through the gate, in a process that has not loaded torch yet, then on to torch.

What the gate refuses costs no import of torch: the verdict comes in a tenth of a second. While it reads, the process has
far less memory and time than afterwards.
"""

import re
from pathlib import Path
from typing import Any

from worker.admission import admitted
from worker.limits import tightened
from worker.messages import Line, Stops

# "path" is the first word of a table of soft labels in CSV, which is read as the text that it is.
_TABLE = re.compile(rb'(\xef\xbb\xbf)?\s*"?path"?\s*,', re.IGNORECASE)
CANONICAL = "tensors.safetensors"


def teacher(order: dict[str, Any], line: Line, stops: Stops) -> dict[str, Any]:
    """Admit the upload, then have it inspected. Raises Problem 422."""
    file, canonical = Path(order["file"]), Path(order["work_dir"]) / CANONICAL
    said = None
    if not _is_table(file):
        with tightened(file.stat().st_size):
            said = admitted(file, canonical)
    from worker.inspections import teachers  # here: it brings torch

    return teachers.inspect(order, said, canonical)


def _is_table(file: Path) -> bool:
    with file.open("rb") as opened:
        return _TABLE.match(opened.read(64)) is not None
