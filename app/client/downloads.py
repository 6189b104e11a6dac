"""Downloads that go on after a break, and end as a file only when every byte is what it should be."""

import base64
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import httpx

from app.client.connection import Connection
from app.client.errors import FewbytesError, unexpected, unreachable

Progress = Callable[[int, int], None]
"""Called with the bytes that are done and the bytes there are."""

BLOCK_BYTES = 256 << 10
WITHOUT_GAIN = 6
"""Tries in which not a byte comes, before the download is given up."""


def download(
    connection: Connection, path: str, target: Path | None = None, *, on_progress: Progress | None = None
) -> Path:
    """Fetch the file at `path`; returns where it lies: `target`, by default (or in that folder) under the service's own name.

    What came lies in a file beside it that is named for its digest, so a download that was broken, even by this
    process's end, goes on where it was. Raises FewbytesError (DIGEST_MISMATCH: nothing was kept), OSError.
    """
    head = connection.request("HEAD", path)
    sha256, total = _digest(head), _total(head)
    target = _place(head, target)
    part = target.with_name(f".{target.name}.{sha256[:16]}.part")
    tell = on_progress or (lambda done, total: None)
    without_gain, patience = 0, connection.patience()
    with part.open("ab") as file:
        while (done := file.tell()) < total:
            tell(done, total)
            try:
                _fetch(connection, path, file.write, done, sha256, lambda more, at=done: tell(at + more, total))  # type: ignore[misc]
                trouble = None
            except httpx.TransportError as error:
                trouble = unreachable(connection.url, error)
            except FewbytesError as error:
                if error.status not in (429, 503):
                    raise
                trouble = error
            file.flush()
            if file.tell() > done:
                without_gain, patience = 0, connection.patience()
            elif trouble is not None:
                without_gain += 1
                if without_gain >= WITHOUT_GAIN:
                    raise trouble
                patience.wait(trouble)
        os.fsync(file.fileno())
    tell(total, total)
    _verify(part, sha256, path)
    part.replace(target)
    return target


def _fetch(
    connection: Connection,
    path: str,
    write: Callable[[bytes], object],
    start: int,
    sha256: str,
    tell: Callable[[int], None],
) -> None:
    """The bytes from `start` on."""
    headers = {"Range": f"bytes={start}-", "If-Range": f'"{sha256}"'} if start else {}
    with connection.stream(path, headers=headers) as answer:
        if answer.status_code != (206 if start else 200):
            raise unexpected(answer, f"bytes from {start} on were asked for")
        count = 0
        for block in answer.iter_bytes(BLOCK_BYTES):
            write(block)
            count += len(block)
            tell(count)


def _verify(part: Path, sha256: str, path: str) -> None:
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        part.unlink()
        detail = (
            f"What came from {path} has sha256 {found}, and {sha256} was promised: it was damaged on the way. Nothing was "
            "kept; download again."
        )
        raise FewbytesError("DIGEST_MISMATCH", detail, retryable=True)


def _digest(head: httpx.Response) -> str:
    """The sha256 that the service promises: Repr-Digest (RFC 9530)."""
    found = re.fullmatch(r"sha-256=:([A-Za-z0-9+/]{43}=):", head.headers.get("repr-digest", ""))
    if found is None:
        raise unexpected(head, "Repr-Digest does not say the file's sha256")
    return base64.b64decode(found[1]).hex()


def _total(head: httpx.Response) -> int:
    length = head.headers.get("content-length", "")
    if not length.isdigit():
        raise unexpected(head, "Content-Length does not say how long the file is")
    return int(length)


def _place(head: httpx.Response, target: Path | None) -> Path:
    if target is not None and not target.is_dir():
        return target
    found = re.search(r'filename="([A-Za-z0-9][A-Za-z0-9._-]*)"', head.headers.get("content-disposition", ""))
    if found is None:
        raise unexpected(head, "it names no file: say where it should go")
    return (target or Path()) / found[1]
