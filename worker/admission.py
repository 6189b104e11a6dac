"""The gate's verdict as callers see it. No torch in here: a refusal must not wait for it."""

import errno
from pathlib import Path

from app.errors import Problem
from worker.gate import Admitted, Refused, admit


def admitted(file: Path, canonical: Path) -> Admitted:
    """What `gate.admit` says. Raises Problem 422 with the gate's code, and its rule and way out under `errors`."""
    try:
        return admit(file, canonical)
    except Refused as refused:
        raise _problem(refused) from None
    except MemoryError:
        canonical.unlink(missing_ok=True)
        detail = "reading it needs more memory than any checkpoint of its size"
        raise _problem(Refused("CHECKPOINT_UNSAFE", "MEMORY", detail)) from None
    except OSError as error:
        if error.errno != errno.EFBIG:  # others are the disk's, and may be gone in the next attempt
            raise
        detail = "its tensors have more bytes than a file of this service may"
        raise _problem(Refused("CHECKPOINT_UNSAFE", "TENSOR_BYTES", detail)) from None


def _problem(refused: Refused) -> Problem:
    error = {"pointer": "/file", "code": refused.rule, "detail": refused.detail, "hint": refused.hint}
    detail = f"The file cannot be taken: {refused.detail}. {refused.hint}"
    return Problem(422, refused.code, detail, errors=[error])
