"""Teachers and data sets: registered, then looked at by a worker, then usable."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx

from app.client.answers import DatasetView, ImageView, Page, TeacherView
from app.client.connection import Connection, parsed
from app.client.downloads import Progress, download
from app.client.errors import FewbytesError
from app.client.operations import operation
from app.client.pages import LARGEST_PAGE, walk

V = TypeVar("V", TeacherView, DatasetView)
Spec = Mapping[str, Any]

_PAUSE_SECONDS = 2.0


class Teachers:
    """Trained networks that jobs learn from."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @operation("POST /v1/teachers", sets=("Prefer",))
    def register(self, spec: Spec) -> TeacherView:
        """Register an uploaded checkpoint and wait until a worker has looked at it. Raises FewbytesError with what is wrong
        with it."""
        first = self._connection.request("POST", "/v1/teachers", json=spec, wait=120.0)
        return _inspected(self._connection, parsed(TeacherView, first), first)

    @operation("GET /v1/teachers")
    def list(self, *, page_size: int | None = None, page_token: str | None = None) -> Page[TeacherView]:
        """A page, the newest first."""
        return self._connection.get(
            Page[TeacherView], "/v1/teachers", page_size=page_size, page_token=page_token
        )

    def all(self) -> Iterator[TeacherView]:
        return walk(lambda token: self.list(page_size=LARGEST_PAGE, page_token=token))

    @operation("GET /v1/teachers/{teacher_id}")
    def get(self, teacher_id: str) -> TeacherView:
        return self._connection.get(TeacherView, f"/v1/teachers/{teacher_id}")

    @operation("GET /v1/teachers/{teacher_id}/tensors", local=("target", "on_progress"))
    def download_tensors(
        self, teacher_id: str, target: Path | None = None, *, on_progress: Progress | None = None
    ) -> Path:
        """What was read of the upload, as safetensors; returns where it lies."""
        path = f"/v1/teachers/{teacher_id}/tensors"
        return download(self._connection, path, target, on_progress=on_progress)

    @operation("DELETE /v1/teachers/{teacher_id}")
    def delete(self, teacher_id: str) -> None:
        self._connection.delete(f"/v1/teachers/{teacher_id}")


class Datasets:
    """Photos in classes and splits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @operation("POST /v1/datasets", sets=("Prefer",))
    def register(self, spec: Spec) -> DatasetView:
        """Register an uploaded archive, or a folder of the operator's, and wait until a worker has read every image. Raises
        FewbytesError with what is wrong with it."""
        first = self._connection.request("POST", "/v1/datasets", json=spec, wait=120.0)
        return _inspected(self._connection, parsed(DatasetView, first), first)

    @operation("GET /v1/datasets")
    def list(self, *, page_size: int | None = None, page_token: str | None = None) -> Page[DatasetView]:
        """A page, the newest first."""
        return self._connection.get(
            Page[DatasetView], "/v1/datasets", page_size=page_size, page_token=page_token
        )

    def all(self) -> Iterator[DatasetView]:
        return walk(lambda token: self.list(page_size=LARGEST_PAGE, page_token=token))

    @operation("GET /v1/datasets/{dataset_id}")
    def get(self, dataset_id: str) -> DatasetView:
        return self._connection.get(DatasetView, f"/v1/datasets/{dataset_id}")

    @operation("GET /v1/datasets/{dataset_id}/files", sets=("format",))
    def images(
        self,
        dataset_id: str,
        *,
        split: str | None = None,
        page_size: int | None = None,
        page_token: str | None = None,
    ) -> Page[ImageView]:
        """A page of its images, by split and path."""
        path = f"/v1/datasets/{dataset_id}/files"
        return self._connection.get(
            Page[ImageView], path, split=split, page_size=page_size, page_token=page_token
        )

    def all_images(self, dataset_id: str, *, split: str | None = None) -> Iterator[ImageView]:
        def page_of(token: str | None) -> Page[ImageView]:
            return self.images(dataset_id, split=split, page_size=LARGEST_PAGE, page_token=token)

        return walk(page_of)

    @operation("GET /v1/datasets/{dataset_id}/files", sets=("format", "page_size", "page_token"))
    def images_csv(self, dataset_id: str, *, split: str | None = None) -> str:
        """All its images as CSV: path, label."""
        params = {"format": "csv", "split": split}
        return self._connection.request("GET", f"/v1/datasets/{dataset_id}/files", params=params).text

    @operation("DELETE /v1/datasets/{dataset_id}")
    def delete(self, dataset_id: str) -> None:
        self._connection.delete(f"/v1/datasets/{dataset_id}")


def _inspected(connection: Connection, row: V, answer: httpx.Response) -> V:
    """The row once a worker has looked at it. Raises FewbytesError with its verdict when it is refused."""
    path = f"/v1/{'teachers' if isinstance(row, TeacherView) else 'datasets'}/{row.id}"
    while row.state == "inspecting":
        connection.sleep(_PAUSE_SECONDS)
        row = connection.get(type(row), path)
    if row.error is not None:
        problem = row.error
        raise FewbytesError(
            problem["code"],
            f"{problem['detail']} (It stays readable as {path}.)",
            status=422,
            errors=problem.get("errors"),
            retryable=bool(problem.get("retryable")),
            headers=answer.headers,
        )
    return row
