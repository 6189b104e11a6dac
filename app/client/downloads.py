"""Downloads that go on after a break, and end as a file only when every byte is what it should be."""

import base64
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import httpx

from app.client.connection import Connection
from app.client.errors import FewbytesError, unexpected, unreachable

Progress = Callable[[int, int], None]
"""Called with the bytes that are done and the bytes there are."""

WITHOUT_GAIN = 6
"""Tries in which not a byte comes, before the download is given up."""


def download(
    connection: Connection, path: str, target: Path | None = None, *, on_progress: Progress | None = None
) -> Path:
    """Fetch the file at `path`; returns where it lies: `target`, or in that folder (by default the current one) under the
    service's own name.

    What came lies in a file beside it that is named for its digest, so a download that was broken, even by this
    process's end, goes on where it was. Raises FewbytesError (DIGEST_MISMATCH: nothing was kept), OSError.
    """
    head = _head(connection, path)
    sha256, total = _digest(head), _total(head)
    target = _place(head, target)
    part = target.with_name(f".{target.name}.{sha256[:16]}.part")
    tell = on_progress or (lambda done, total: None)
    with part.open("ab") as file:
        _fill(connection, path, file, total, sha256, tell)
        os.fsync(file.fileno())
    tell(total, total)
    _verify(part, sha256, path)
    part.replace(target)
    return target


def _head(connection: Connection, path: str) -> httpx.Response:
    """The answer to HEAD. Why there is none is only in the body of the answer to GET."""
    try:
        return connection.request("HEAD", path)
    except FewbytesError as error:
        if error.status is not None and error.status >= 400:
            with connection.stream(path):
                pass
        raise


def _fill(connection: Connection, path: str, file: BinaryIO, total: int, sha256: str, tell: Progress) -> None:
    """Fetch what the file lacks, as often as the line breaks; raises FewbytesError once nothing gets through."""
    without_gain, patience = 0, connection.patience()
    while (done := file.tell()) < total:
        tell(done, total)
        trouble = _fetch(connection, path, file, total, sha256, tell)
        file.flush()
        if file.tell() > done:
            without_gain, patience = 0, connection.patience()
            continue
        without_gain += 1
        if without_gain >= WITHOUT_GAIN:
            raise trouble
        patience.wait(trouble)


def _fetch(
    connection: Connection, path: str, file: BinaryIO, total: int, sha256: str, tell: Progress
) -> FewbytesError:
    """Append what comes in one answer; returns what a caller who got nothing should be told."""
    start = file.tell()
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": f'"{sha256}"'}
    try:
        with connection.stream(path, headers=headers) as answer:
            if answer.status_code != (206 if start else 200):
                raise unexpected(answer, f"bytes from {start} on were asked for")
            for block in answer.iter_raw():
                file.write(block)
                tell(file.tell(), total)
            return unexpected(answer, f"nothing came from byte {start} on")
    except httpx.TransportError as error:
        return unreachable(connection.url, error)
    except FewbytesError as error:
        if error.status in (429, 503):
            return error
        raise


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
