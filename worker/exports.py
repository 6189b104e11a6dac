"""The answer in the course's formats: written, read again by a fresh process, and measured as it was read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
from app.errors import Problem
from models import Network
from models.course_files import write_course_8bit, write_course_16bit
from worker.measuring import Measuring
from worker.stages import write_whole

_FORMATS: dict[str, tuple[str, Callable[[Network], bytes]]] = {
    "course_8bit": ("course-8bit.pkl", write_course_8bit),
    "course_16bit": ("course-16bit.pkl", write_course_16bit),
}


def export(
    final: Path, format: str, measuring: Measuring, *, outputs: list[int]
) -> tuple[Path, dict[str, Any]]:
    """Write the artifact `final` in `format` beside it; the new file, and what was measured of it.

    Raises Problem NOT_EXPORTABLE where the format cannot hold a tensor.
    """
    suffix, write = _FORMATS[format]
    path = final.with_suffix(f".{suffix}")
    try:
        content = write(models.load(final))
    except ValueError as error:
        raise Problem(
            422,
            "NOT_EXPORTABLE",
            f"The answer cannot be exported as {format}: {error}. Leave that export out.",
        ) from error
    write_whole(path, content)
    # A file of tensors alone: the network around them is the artifact's.
    return path, measuring.measure(final, outputs=outputs, latency=False, tensors=path)


def export_name(format: str) -> str:
    """What the file is called among the job's artifacts."""
    return f"final.{_FORMATS[format][0]}"
