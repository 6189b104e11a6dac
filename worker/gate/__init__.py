"""The gate: decides on an uploaded checkpoint with the standard library alone, before anything is built of it.

    admitted = admit(upload, out)      # or raises Refused, and leaves no file

It reads what torch.save writes (since 0.4), safetensors, and the course's pickles, as data: nothing that a file names is
called, nothing is allocated by a size that it only claims. `out` is then a safetensors file that any reader may open. This
package imports nothing of this project and nothing but Python's standard library, so it runs before PyTorch is loaded.
"""

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from worker.gate import foreign, legacy
from worker.gate.canonical import Open, write_canonical
from worker.gate.container import DAMAGE, MAGIC, open_container
from worker.gate.contents import Contents, find_contents, of_course_file, of_named_tensors
from worker.gate.legacy import read_legacy
from worker.gate.limits import LIMITS, Limits
from worker.gate.pickles import no_persistent_ids, walk
from worker.gate.refusal import Refused, unreadable, unsafe
from worker.gate.safetensors_file import looks_like_safetensors, read_safetensors
from worker.gate.tensors import Geometry, Storage, check_total

__all__ = ["Admitted", "Limits", "Refused", "admit"]


@dataclass
class Admitted:
    """What a file says beside the tensors that were written. Plain data: str, numbers, bool, None, lists, dicts.

    `kind`: "state_dict"; "artifact" (`document`: all of it but its tensor `data`); "soft_labels" (all but `values`);
    "course" (`encodings`: name → the encoding of a stored tensor, as docs/formats.md has them).
    """

    kind: str
    document: dict[str, Any] = field(default_factory=dict)
    encodings: dict[str, dict[str, Any]] = field(default_factory=dict)
    class_names: list[str] | None = None
    warnings: list[str] = field(default_factory=list)


def admit(path: Path, out: Path, limits: Limits = LIMITS) -> Admitted:
    """Check the file and write its tensors to `out`: safetensors, contiguous, sorted by name.

    Raises Refused, whose `code` is CHECKPOINT_UNREADABLE, CHECKPOINT_IS_CODE, CHECKPOINT_UNSAFE or DTYPE_MISMATCH, and
    OSError where the disk, not the file, is at fault.
    """
    try:
        return _admit(path, out, limits)
    except DAMAGE as error:
        out.unlink(missing_ok=True)
        raise unreadable(
            "DAMAGED", f"it is damaged ({type(error).__name__}); was the upload complete?"
        ) from error
    except BaseException:
        out.unlink(missing_ok=True)
        raise


def _admit(path: Path, out: Path, limits: Limits) -> Admitted:
    with contextlib.ExitStack() as opened:
        source = _source(opened, path, limits)
        contents = source.contents
        geometry = Geometry(limits)
        for tensor in contents.tensors.values():
            geometry.check(tensor)
        check_total(contents.tensors.values(), source.num_bytes, limits)
        write_canonical(contents.tensors, source.open, out, limits)
    return Admitted(
        contents.kind, contents.document, contents.encodings, contents.class_names, contents.warnings
    )


@dataclass
class _Source:
    """What a file holds, how its storages are opened, and how many bytes it has (unpacked)."""

    contents: Contents
    open: Open
    num_bytes: int


def _source(opened: contextlib.ExitStack, path: Path, limits: Limits) -> _Source:
    """`opened` closes what is read from."""
    file_bytes = path.stat().st_size
    file = opened.enter_context(path.open("rb"))
    head = file.read(512)
    if head.startswith(MAGIC):
        container = opened.enter_context(contextlib.closing(open_container(file, limits)))
        pickle = container.pickle(limits)
        value = walk(pickle, limits, container.storages())
        return _Source(
            find_contents(value, _for_a_pickle_of(len(pickle), limits)), container.open, container.num_bytes
        )
    if legacy.MAGIC.match(head):
        found = read_legacy(file, limits)
        return _Source(
            find_contents(found.value, _for_a_pickle_of(file_bytes, limits)), found.open, file_bytes
        )
    if looks_like_safetensors(head):
        named = read_safetensors(file, limits)
        return _Source(of_named_tensors(named.tensors, limits), named.open, file_bytes)
    if head.startswith(b"\x80"):
        if file_bytes > limits.bare_pickle_bytes:
            raise unsafe("PICKLE_BYTES", f"it is a bare pickle of {file_bytes} bytes")
        file.seek(0)
        value = walk(memoryview(file.read()), limits, no_persistent_ids)
        return _Source(of_course_file(value, limits), _nothing_outside, file_bytes)
    raise foreign.refusal(head, file_bytes)


def _for_a_pickle_of(num_bytes: int, limits: Limits) -> Limits:
    """What is spelled out has a byte at least; what is shared may repeat, but 3 KB must not mean a million values."""
    return replace(limits, document_values=min(limits.document_values, 10_000 + 4 * num_bytes))


def _nothing_outside(storage: Storage, first: int) -> NoReturn:
    raise AssertionError("a bare pickle holds its numbers itself")
