"""Immutable bytes for download, with ranges, a strong ETag and a digest: a broken download can go on."""

import base64
import re
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from fastapi import Request, Response
from starlette.responses import StreamingResponse

from app.api.threads import with_file
from app.errors import Problem

# What each download that nobody reads holds in memory.
_BLOCK_BYTES = 64 << 10

_BYTES: dict[str, Any] = {
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
}
DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: _BYTES,
    206: _BYTES | {"description": "The range asked for."},
    304: {"description": "Unchanged."},
}
"""For the OpenAPI of a route that answers with `content_response`."""


def content_response(
    request: Request, path: Path, *, size_bytes: int, sha256: str, filename: str, media_type: str
) -> Response:
    """Answer with the file or the one range asked for: 200, 206, 304, or Problem 416.

    Several ranges at once are answered with the whole, as RFC 9110 allows.
    """
    etag = f'"{sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": f'attachment; filename="{filename}"',
    }
    if _names(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    start, stop = 0, size_bytes
    # Ranges are defined for GET alone (RFC 9110, 14.2): a HEAD tells of the whole.
    span = None if request.state.head else _span(request, etag, size_bytes)
    if span is not None:
        start, stop = span
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size_bytes}"
    headers["Content-Length"] = str(stop - start)
    status = 200 if span is None else 206
    if request.state.head:
        return Response(status_code=status, headers=headers, media_type=media_type)
    return StreamingResponse(
        _blocks(path, start, stop), status_code=status, headers=headers, media_type=media_type
    )


def document_response(request: Request, content: bytes, *, sha256: str, filename: str) -> Response:
    """Answer with a JSON document that never changes: 200, or 304."""
    etag = f'"{sha256}"'
    headers = {
        "ETag": etag,
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": f'inline; filename="{filename}"',
    }
    if _names(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="application/json")


def _names(header: str, etag: str) -> bool:
    return header.strip() == "*" or etag in {tag.strip().removeprefix("W/") for tag in header.split(",")}


def _span(request: Request, etag: str, size_bytes: int) -> tuple[int, int] | None:
    """First byte, and the one after the last, of a single range; None: all. Problem 416 beyond the end."""
    match = re.fullmatch(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", request.headers.get("range", ""), re.ASCII)
    if match is None or match[0].endswith("=-") or request.headers.get("if-range", etag) != etag:
        return None
    first, last = match[1], match[2]
    if first and last and int(last) < int(first):
        return None  # not a range at all, so it is ignored
    if first:
        start, stop = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
    else:
        start, stop = max(0, size_bytes - int(last)), size_bytes
    if start >= stop:
        detail = f"The file has {size_bytes} bytes: this range holds none of them."
        raise Problem(
            416, "RANGE_NOT_SATISFIABLE", detail, headers={"Content-Range": f"bytes */{size_bytes}"}
        )
    return start, stop


async def _blocks(path: Path, start: int, stop: int) -> AsyncIterator[bytes]:
    """A block is read when the one before is on its way: who reads slowly holds one block and no thread."""
    # Opened here: whatever ends the request before the first block leaves no file open. On the stack before the
    # thread returns: a request that is cancelled meanwhile never sees the file.
    with ExitStack() as stack:
        file: BinaryIO = await with_file(lambda: stack.enter_context(path.open("rb")))
        await with_file(file.seek, start)
        while start < stop and (block := await with_file(file.read, min(_BLOCK_BYTES, stop - start))):
            start += len(block)
            yield block
