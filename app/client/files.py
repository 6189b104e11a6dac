"""Files: uploaded whole, or in pieces that survive a broken line."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import httpx

from app.client.answers import FileView, Page, UploadView
from app.client.connection import SLACK_SECONDS, Connection, parsed
from app.client.errors import FewbytesError, unexpected, unreachable
from app.client.operations import operation
from app.client.pages import LARGEST_PAGE, walk

Progress = Callable[[int, int], None]
"""Called with the bytes that are done and the bytes there are."""

BLOCK_BYTES = 256 << 10
IN_PIECES_BYTES = 8 << 20
"""Files from this size on are uploaded so that a broken line costs nothing that arrived."""
WITHOUT_GAIN = 6
"""Tries of an upload in which not a byte arrives, before it is given up."""


class Files:
    """Uploaded bytes by name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._uploads = Uploads(connection)

    def upload(
        self,
        path: Path,
        name: str | None = None,
        *,
        on_progress: Progress | None = None,
        on_begin: Callable[[str], None] | None = None,
        resume: str | None = None,
    ) -> FileView:
        """Upload a file under this name, by default its own; one that is there with the same bytes is not sent again.

        A large one goes through /v1/uploads: a line that breaks costs nothing that arrived. `on_begin` is told the upload's
        id, and `resume` takes such an id to go on where another process stopped. Raises FewbytesError; OSError when the
        file cannot be read.
        """
        name = name or path.name
        sha256, size = digest_of(path)
        if resume is None and (there := self._same(name, sha256)):
            return there
        tell = on_progress or _nobody
        if size < IN_PIECES_BYTES and resume is None:
            with path.open("rb") as file:
                return self.put(name, file.read())
        if resume is None:
            resume = self._uploads.begin(name, size_bytes=size, sha256=sha256).id
        if on_begin:
            on_begin(resume)
        return self._uploads.send(resume, path, on_progress=tell)

    def _same(self, name: str, sha256: str) -> FileView | None:
        try:
            file = self.get(name)
        except FewbytesError as error:
            if error.status in (404, 422):  # 422: no such name can be; the upload itself says it better
                return None
            raise
        return file if file.sha256 == sha256 else None

    @operation("PUT /v1/files/{name}", local=("content",))
    def put(self, name: str, content: bytes) -> FileView:
        """Store these bytes in one request."""

        def ask() -> httpx.Response:
            return self._connection.http.put(_path(name), content=content, timeout=SLACK_SECONDS * 10)

        return parsed(FileView, self._connection.patiently(ask, repeatable=True))

    @operation("GET /v1/files")
    def list(self, *, page_size: int | None = None, page_token: str | None = None) -> Page[FileView]:
        """A page, the newest first."""
        return self._connection.get(Page[FileView], "/v1/files", page_size=page_size, page_token=page_token)

    def all(self) -> Iterator[FileView]:
        return walk(lambda token: self.list(page_size=LARGEST_PAGE, page_token=token))

    @operation("GET /v1/files/{name}")
    def get(self, name: str) -> FileView:
        return self._connection.get(FileView, _path(name))

    @operation("DELETE /v1/files/{name}")
    def delete(self, name: str) -> None:
        self._connection.delete(_path(name))


class Uploads:
    """Uploads in pieces. `Files.upload` is what one usually wants."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @operation("POST /v1/uploads", local=("name", "size_bytes", "sha256"))
    def begin(self, name: str, *, size_bytes: int, sha256: str | None = None) -> UploadView:
        body = {"name": name, "size_bytes": size_bytes, "sha256": sha256}
        return self._connection.post(UploadView, "/v1/uploads", body)

    @operation("GET /v1/uploads/{upload_id}")
    def get(self, upload_id: str) -> UploadView:
        """How much has arrived; and the file, once all has."""
        return self._connection.get(UploadView, f"/v1/uploads/{upload_id}")

    @operation("DELETE /v1/uploads/{upload_id}")
    def delete(self, upload_id: str) -> None:
        self._connection.delete(f"/v1/uploads/{upload_id}")

    @operation("PUT /v1/uploads/{upload_id}", local=("path", "on_progress"))
    def send(self, upload_id: str, path: Path, *, on_progress: Progress) -> FileView:
        """Send what has not arrived yet, as often as the line breaks; raises FewbytesError once nothing gets through."""
        without_gain, patience, arrived = 0, self._connection.patience(), -1
        while True:
            upload = self.get(upload_id)
            if upload.file is not None:
                on_progress(upload.size_bytes, upload.size_bytes)
                return upload.file
            if upload.offset > arrived:
                without_gain, patience = 0, self._connection.patience()
            arrived = upload.offset
            try:
                if arrived < upload.size_bytes:
                    return self._send_rest(upload, path, on_progress)
                trouble = _unfinished(upload)
            except httpx.TransportError as error:
                trouble = unreachable(self._connection.url, error)
            except FewbytesError as error:
                # 409 (WRONG_OFFSET, UPLOAD_BUSY): what a broken request left is only now being put away.
                if error.status not in (408, 409, 429, 503):
                    raise
                trouble = error
            without_gain += 1
            if without_gain >= WITHOUT_GAIN:
                raise trouble
            patience.wait(trouble)

    def _send_rest(self, upload: UploadView, path: Path, on_progress: Progress) -> FileView:
        total, start = upload.size_bytes, upload.offset
        if os.path.getsize(path) != total:
            raise FewbytesError(
                "OTHER_FILE",
                f"{path} has {os.path.getsize(path)} bytes, and {upload.id} was begun for one of {total}.",
            )
        headers = {
            "Content-Length": str(total - start),
            "Content-Range": f"bytes {start}-{total - 1}/{total}",
            "Content-Type": "application/octet-stream",
        }
        with path.open("rb") as file:
            file.seek(start)
            answer = self._connection.http.put(
                f"/v1/uploads/{upload.id}",
                content=_blocks(file, start, total, on_progress),
                headers=headers,
                timeout=SLACK_SECONDS * 10,  # a large file is hashed and copied before the last answer
            )
        if self._connection.checked(answer).status_code not in (200, 201):
            raise unexpected(answer, "all bytes were sent")
        return parsed(FileView, answer)


def digest_of(path: Path) -> tuple[str, int]:
    """sha256 and size of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size


def _blocks(file: BinaryIO, start: int, total: int, on_progress: Progress) -> Iterator[bytes]:
    """The rest of the file, no more than was announced; tells how far it is."""
    done = start
    on_progress(done, total)
    while done < total and (block := file.read(min(BLOCK_BYTES, total - done))):
        yield block
        done += len(block)
        on_progress(done, total)


def _unfinished(upload: UploadView) -> FewbytesError:
    detail = f"All bytes of {upload.id} have arrived, and the service is still storing them: look again in a moment."
    return FewbytesError("UPLOAD_BUSY", detail, retryable=True)


def _nobody(_done: int, _total: int) -> None:
    pass


def _path(name: str) -> str:
    return f"/v1/files/{quote(name, safe='')}"
