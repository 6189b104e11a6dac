"""The report's experiments: what each asks and takes, and the sweep that it stands for."""

import inspect
import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel

from app import presets
from app.api.parameters import family, values_of_family
from app.api.views import Page
from app.presets.base import Preset
from app.presets.cost import Cost, cost
from app.spec.sweep import SweepSpec

router = APIRouter(prefix="/v1/presets", tags=["presets"])

_IDS = r"^tch_[0-9a-z]{1,40}(,tch_[0-9a-z]{1,40}){0,15}$"
_OPTION = family("option.", "[a-z_]{1,40}", "An option, as JSON: `option.epochs=5`, `option.alphas=[0,0.8]`.")


class TeachersNeeded(BaseModel):
    min: int
    max: int


class PresetView(BaseModel):
    """`title` and `asks` say what it is, `found` what the report says to it, `rows` which of the report's rows it repeats.

    `options`: the JSON schema of what `options` may say, with defaults; `short` the values that replace defaults under
    `"short": true`. `cost`: jobs and epochs with the defaults and with `short`. `splits`: what the data must have beside
    val or test.
    """

    name: str
    title: str
    description: str
    asks: str
    found: str
    rows: list[str]
    teachers: TeachersNeeded
    splits: list[str]
    options: dict[str, Any]
    short: dict[str, Any]
    curve_within_jobs: bool
    cost: dict[str, Cost]
    links: dict[str, str]


@router.get("", response_model=Page[PresetView])
def list_presets() -> Page[PresetView]:
    """The experiments that one request repeats: `POST /v1/sweeps {"preset": NAME, "teachers": […], "dataset": …}`."""
    return Page(items=[_view(kind) for kind in presets.PRESETS.values()])


@router.get("/{name}", response_model=SweepSpec, response_model_exclude_unset=True, openapi_extra=_OPTION)
def get_preset(
    name: Annotated[str, Path(max_length=100, examples=["alpha"])],
    request: Request,
    teachers: Annotated[
        str | None,
        Query(max_length=800, pattern=_IDS, description="Ids with commas between, the weaker first."),
    ] = None,
    dataset: Annotated[str | None, Query(pattern=r"^dst_[0-9a-z]{1,40}$")] = None,
) -> SweepSpec:
    """The sweep that a preset stands for, to read, to edit, and to POST to `/v1/sweeps`.

    Without teachers and data it has placeholders in their place.
    """
    presets.find(name)
    options = {key: _value(text) for key, text in values_of_family(request, "option.").items()}
    named = presets.placeholders(name) if teachers is None else teachers.split(",")
    return presets.expand(name, named, dataset or presets.PLACEHOLDER_DATASET, options)


def _value(text: str) -> Any:
    """A query's text as JSON; what is none is a name."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _view(kind: type[Preset]) -> PresetView:
    description = inspect.getdoc(kind) or ""
    least, most = kind.NUM_TEACHERS
    return PresetView(
        name=kind.NAME,
        title=description.split("\n")[0],
        description=description,
        asks=kind.ASKS,
        found=kind.FOUND,
        rows=list(kind.ROWS),
        teachers=TeachersNeeded(min=least, max=most),
        splits=kind.splits(),
        options=kind.model_json_schema(),
        short=kind.SHORT,
        curve_within_jobs=kind.ITERATIONS,
        cost={"full": cost(kind.NAME, short=False), "short": cost(kind.NAME, short=True)},
        links={"self": f"/v1/presets/{kind.NAME}", "sweeps": "/v1/sweeps"},
    )
