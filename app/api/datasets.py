"""Data sets: photos in classes and splits."""

import csv
import io
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from app import resources, tables
from app.api import inspected
from app.api.context import CurrentCaller, CurrentOutbox, CurrentSettings, CurrentStorage
from app.api.parameters import PageSize, PageToken, cursor_of, page_of, position_of, token_of
from app.api.views import DatasetView, Page, dataset_view
from app.api.waiting import Prefer
from app.errors import Problem
from app.settings import Settings
from app.spec.base import Split
from app.spec.resources import DatasetSpec
from app.storage import Storage
from app.tenancy import Caller

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
    images = _images(dataset, split, storage)
    if format == "csv":
        return Response(_csv(images), media_type="text/csv")
    start = position_of(page_token)
    end = start + page_size
    return Page[ImageView](
        items=[ImageView.model_validate(image) for image in images[start:end]],
        next_page_token=token_of(end) if end < len(images) else None,
    )


def _images(dataset: tables.Dataset, split: str | None, storage: Storage) -> list[dict[str, Any]]:
    if dataset.index_sha256 is None:
        detail = f"The data set is {dataset.state}: its images are listed once it is ready."
        waiting = dataset.state == resources.INSPECTING
        raise Problem(409, "NOT_READY", detail, retryable=waiting)
    with storage.open(dataset.index_sha256) as file:
        index = json.load(file)
    names = index["class_names"]
    return [
        {
            "path": image["path"],
            "split": image["split"],
            "label": None if image["label"] is None else names[image["label"]],
            "size_bytes": image.get("nbytes"),
            "sha256": image["sha256"],
        }
        for image in index["images"]
        if split is None or image["split"] == split
    ]


def _csv(images: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label"])
    writer.writerows([image["path"], image["label"] or ""] for image in images)
    return text.getvalue()


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(dataset_id: DatasetId, caller: CurrentCaller) -> None:
    """409 while a job that is not finished needs it."""
    with caller.transaction() as session:
        resources.remove(session, "dataset", dataset_id)
