"""Data sets: photos in classes and splits."""

import contextlib
import csv
import io
from collections.abc import Generator, Iterator
from itertools import chain, islice
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

import ijson
from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from app import resources, tables
from app.access.tenancy import Caller
from app.api import inspected
from app.api.context import CurrentCaller, CurrentOutbox, CurrentSettings, CurrentStorage
from app.api.parameters import PageSize, PageToken, cursor_of, page_of, position_of, token_of
from app.api.views import DatasetView, Page, dataset_view
from app.api.waiting import Prefer
from app.errors import Problem
from app.settings import Settings
from app.spec.base import Split
from app.spec.resources import DatasetSpec
from app.storage.objects import Storage

_CSV_ROWS = 2000

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

DatasetId = Annotated[str, Path(pattern="^dst_[0-9a-z]{1,40}$")]


class ImageView(BaseModel):
    """`label` is the class name; null in the split `unlabeled`."""

    path: str
    split: str
    label: str | None
    size_bytes: int | None
    sha256: str


@router.post(
    "",
    response_model=DatasetView,
    status_code=201,
    responses={202: {"model": DatasetView, "description": "Still being inspected: poll the Location."}},
)
async def post_dataset(
    spec: DatasetSpec,
    response: Response,
    caller: CurrentCaller,
    settings: CurrentSettings,
    outbox: CurrentOutbox,
    prefer: Prefer = None,
) -> DatasetView:
    """Register an uploaded archive or the operator's folder.

    Answers when a worker has read every image: 201, or 422.
    """
    ident = await run_in_threadpool(_register, caller, spec, settings)
    outbox.wake()
    seconds = settings.inspect_wait_seconds
    return await inspected.registered(caller, "dataset", ident, dataset_view, response, prefer, seconds)


def _register(caller: Caller, spec: DatasetSpec, settings: Settings) -> str:
    with caller.transaction() as session:
        return resources.register_dataset(session, spec, settings).id


@router.get("", response_model=Page[DatasetView])
def list_datasets(
    caller: CurrentCaller, page_size: PageSize = 50, page_token: PageToken = None
) -> Page[DatasetView]:
    """The newest first."""
    with caller.reading() as session:
        rows = resources.newest(session, tables.Dataset, after=cursor_of(page_token), limit=page_size + 1)
    return page_of(rows, page_size, dataset_view)


@router.get("/{dataset_id}", response_model=DatasetView)
def get_dataset(dataset_id: DatasetId, caller: CurrentCaller) -> DatasetView:
    return dataset_view(inspected.read(caller, "dataset", dataset_id))


@router.get(
    "/{dataset_id}/files",
    response_model=Page[ImageView],
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def list_images(
    dataset_id: DatasetId,
    caller: CurrentCaller,
    storage: CurrentStorage,
    split: Split | None = None,
    format: Annotated[
        Literal["json", "csv"], Query(description="csv: `path,label`, all rows at once.")
    ] = "json",
    page_size: PageSize = 50,
    page_token: PageToken = None,
) -> Any:
    """The images, by split and path."""
    with caller.reading() as session:
        dataset = resources.find(session, "dataset", dataset_id)
    images = _images(_index(dataset, storage), split)
    if format == "csv":
        return StreamingResponse(_csv(images), media_type="text/csv")
    start = position_of(page_token)
    with contextlib.closing(images):
        shown = list(islice(images, start, start + page_size + 1))
    return Page[ImageView](
        items=[ImageView.model_validate(image) for image in shown[:page_size]],
        next_page_token=token_of(start + page_size) if len(shown) > page_size else None,
    )


def _index(dataset: tables.Dataset, storage: Storage) -> FilePath:
    if dataset.index_sha256 is None:
        detail = f"The data set is {dataset.state}: its images are listed once it is ready."
        waiting = dataset.state == resources.INSPECTING
        raise Problem(409, "NOT_READY", detail, retryable=waiting)
    return storage.path(dataset.index_sha256)


def _images(index: FilePath, split: str | None) -> Generator[dict[str, Any], None, None]:
    """One by one: the index of 200,000 images would take 160 MB at once, for each that asks."""
    with index.open("rb") as file:
        names = next(ijson.items(file, "class_names"))
        file.seek(0)
        for image in ijson.items(file, "images.item"):
            if split is None or image["split"] == split:
                yield {
                    "path": image["path"],
                    "split": image["split"],
                    "label": None if image["label"] is None else names[image["label"]],
                    "size_bytes": image.get("nbytes"),
                    "sha256": image["sha256"],
                }


def _csv(images: Iterator[dict[str, Any]]) -> Iterator[str]:
    """In pieces of some thousand rows, with a heading."""
    rows: Iterator[list[str]] = ([image["path"], image["label"] or ""] for image in images)
    rows = chain([["path", "label"]], rows)
    while batch := list(islice(rows, _CSV_ROWS)):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(batch)
        yield text.getvalue()


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(dataset_id: DatasetId, caller: CurrentCaller) -> None:
    """409 while a job that is not finished needs it."""
    with caller.transaction() as session:
        resources.remove(session, "dataset", dataset_id)
