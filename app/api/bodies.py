"""Raw bodies: streamed to disk as they come, never whole in memory."""

import base64
import binascii
import re
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.datastructures import Headers

from app.api.threads import with_file
from app.errors import Problem
from app.storage.objects import Writer

# A thread costs about as much as hashing 64 KiB, which is what the server hands out at a time.
_BLOCK_BYTES = 256 << 10


async def blocks(request: Request) -> AsyncIterator[bytes]:
    """The body in blocks of about a quarter of a mebibyte.

    What arrived before the client hung up is handed out before the exception.
    """
    waiting = bytearray()
    try:
        async for chunk in request.stream():
            if not waiting and len(chunk) >= _BLOCK_BYTES:
                yield chunk  # as most come from a quick client: not copied twice
                continue
            waiting += chunk
            if len(waiting) >= _BLOCK_BYTES:
                yield bytes(waiting)
                waiting.clear()
    except Exception:
        if waiting:
            yield bytes(waiting)
        raise
    if waiting:
        yield bytes(waiting)


async def receive(request: Request, writer: Writer) -> None:
    """Write the body into the storage's writer. Problem 413, or 400 when the Content-Digest does not fit."""
    wanted = content_digest(request.headers)
    async for block in blocks(request):
        await with_file(writer.write, block)
    verify(wanted, writer.sha256)


def content_digest(headers: Headers) -> str | None:
    """The sha256 (hex) that the client promises in Content-Digest (RFC 9530).

    Other algorithms are not checked.
    """
    sent = re.search(r"(?:^|,)\s*sha-256=:([^:]*):", headers.get("content-digest", ""))
    if sent is None:
        return None
    try:
        digest = base64.b64decode(sent[1], validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 32:
        raise Problem(400, "INVALID_DIGEST", "Content-Digest is not sha-256=:<base64 of 32 bytes>:.")
    return digest.hex()


def verify(wanted: str | None, sha256: str) -> None:
    if wanted is not None and wanted.lower() != sha256:
        detail = (
            f"The bytes that arrived have sha256 {sha256}, not the one promised: they were damaged on "
            "the way. Send again."
        )
        raise Problem(400, "DIGEST_MISMATCH", detail, retryable=True)


def declared_length(headers: Headers) -> int | None:
    """Content-Length. The connection has made sure that it is one number of at most 20 digits."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None
