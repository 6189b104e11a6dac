"""Reports: jobs and sweeps as pages to look at, and their plots."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Request, Response
from pydantic import BaseModel

from app import reads
from app.api.context import CurrentCaller
from app.api.jobs import JobId
from app.api.sweeps import SweepId
from app.errors import Problem
from app.reports.document import Document
from app.reports.html import as_html, policy
from app.reports.job_facts import read_job
from app.reports.job_report import job_document, job_plots
from app.reports.kept import Kept
from app.reports.markdown import as_markdown
from app.reports.plot import Plot, as_csv
from app.reports.sweep_facts import read_sweep
from app.reports.sweep_plots import sweep_plots
from app.reports.sweep_report import sweep_document
from app.sweeps import reads as sweeps

router = APIRouter(tags=["reports"])

RENDERER = 1
"""Grows when reports change: what an older version of this code drew is not shown again."""

PlotFile = Annotated[
    str, Path(pattern=r"^[a-z_]{1,40}\.(svg|png|csv)$", description="A plot's name, and .svg, .png or .csv.")
]
Format = Literal["html", "md"]
IfNoneMatch = Annotated[str | None, Header(max_length=1000)]

_TYPES = {
    "svg": "image/svg+xml",
    "png": "image/png",
    "csv": "text/csv; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
}
# A plot's own style, and the picture in a heat map.
_PLOT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
REPORT: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/html": {"schema": {"type": "string"}},
            "text/markdown": {"schema": {"type": "string"}},
        }
    },
    304: {"description": "Unchanged since If-None-Match."},
}
PLOT: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "image/svg+xml": {"schema": {"type": "string"}},
            "image/png": {"schema": {"type": "string", "format": "binary"}},
            "text/csv": {"schema": {"type": "string"}},
        }
    },
    304: {"description": "Unchanged since If-None-Match."},
}
"""For the OpenAPI."""

_kept = Kept()


class PlotView(BaseModel):
    """`alt`: what the plot shows, in words and numbers."""

    name: str
    title: str
    alt: str
    links: dict[str, str]


class PlotList(BaseModel):
    items: list[PlotView]


@router.get("/v1/jobs/{job_id}/report", response_class=Response, responses=REPORT)
def job_report(
    job_id: JobId,
    request: Request,
    caller: CurrentCaller,
    format: Format | None = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Everything about a job on one page: stages, curves, classes, layers, and how to repeat it.

    One HTML file without scripts that needs nothing else; `format=md` (or Accept: text/markdown) is Markdown. A job that
    waits, runs or failed has one too.
    """
    chosen = format or _preferred(request)
    with caller.reading() as session:
        etag = reads.snapshot(session, job_id).etag

    def document() -> Document:
        with caller.reading() as session:
            facts = read_job(session, job_id)
        return job_document(facts)

    return report_response((job_id, etag), document, chosen, if_none_match)


@router.get("/v1/jobs/{job_id}/plots", response_model=PlotList)
def list_job_plots(job_id: JobId, caller: CurrentCaller) -> PlotList:
    """The plots that there are for this job: they grow with what it has measured."""
    with caller.reading() as session:
        facts = read_job(session, job_id)
    return plot_list(job_plots(facts), f"/v1/jobs/{job_id}/plots")


@router.get("/v1/jobs/{job_id}/plots/{file}", response_class=Response, responses=PLOT)
def job_plot(
    job_id: JobId, file: PlotFile, caller: CurrentCaller, if_none_match: IfNoneMatch = None
) -> Response:
    """A plot of a job as SVG (light or dark as the reader's screen is) or PNG, or the numbers behind it as CSV."""
    with caller.reading() as session:
        etag = reads.snapshot(session, job_id).etag

    def plots() -> Mapping[str, Plot]:
        with caller.reading() as session:
            facts = read_job(session, job_id)
        return job_plots(facts)

    return plot_response((job_id, etag), plots, file, if_none_match)


@router.get("/v1/sweeps/{sweep_id}/report", response_class=Response, responses=REPORT)
def sweep_report(
    sweep_id: SweepId,
    request: Request,
    caller: CurrentCaller,
    format: Format | None = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """What a sweep says on one page: the metric along its axes with intervals, the Pareto front, who won or why nobody did,
    what gave no answer and why, and how to repeat it. While it runs, what there is so far."""
    with caller.reading() as session:
        etag = sweeps.snapshot(session, sweep_id).etag

    def document() -> Document:
        with caller.reading() as session:
            facts = read_sweep(session, sweep_id)
        return sweep_document(facts)

    return report_response((sweep_id, etag), document, format or _preferred(request), if_none_match)


@router.get("/v1/sweeps/{sweep_id}/plots", response_model=PlotList)
def list_sweep_plots(sweep_id: SweepId, caller: CurrentCaller) -> PlotList:
    """The plots that there are for this sweep: they grow with its answers."""
    with caller.reading() as session:
        facts = read_sweep(session, sweep_id)
    return plot_list(sweep_plots(facts), f"/v1/sweeps/{sweep_id}/plots")


@router.get("/v1/sweeps/{sweep_id}/plots/{file}", response_class=Response, responses=PLOT)
def sweep_plot(
    sweep_id: SweepId, file: PlotFile, caller: CurrentCaller, if_none_match: IfNoneMatch = None
) -> Response:
    """A plot of a sweep as SVG (light or dark as the reader's screen is) or PNG, or the numbers behind it as CSV."""
    with caller.reading() as session:
        etag = sweeps.snapshot(session, sweep_id).etag

    def plots() -> Mapping[str, Plot]:
        with caller.reading() as session:
            facts = read_sweep(session, sweep_id)
        return sweep_plots(facts)

    return plot_response((sweep_id, etag), plots, file, if_none_match)


# ---- what jobs and sweeps have in common


def _preferred(request: Request) -> Format:
    return "md" if "text/markdown" in request.headers.get("accept", "") else "html"


def report_response(
    key: tuple[str, str], document: Callable[[], Document], format: Format, if_none_match: str | None
) -> Response:
    """The document in this format. `key`: what it is of, and the version of that."""
    write = {"html": as_html, "md": as_markdown}[format]
    headers = {"Vary": "Accept"} | ({"Content-Security-Policy": policy()} if format == "html" else {})
    return _answer(
        (*key, "report", format), lambda: write(document()).encode(), format, headers, if_none_match
    )


def plot_response(
    key: tuple[str, str], plots: Callable[[], Mapping[str, Plot]], file: str, if_none_match: str | None
) -> Response:
    """Raises Problem 404 NO_SUCH_PLOT, which names those that there are."""
    name, _, suffix = file.rpartition(".")
    headers = {
        "Content-Security-Policy": _PLOT_POLICY,
        "Content-Disposition": f'inline; filename="{key[0]}-{file}"',
    }
    return _answer(
        (*key, "plot", file), lambda: _plot_file(plots(), name, suffix), suffix, headers, if_none_match
    )


def _plot_file(plots: Mapping[str, Plot], name: str, suffix: str) -> bytes:
    from app.reports import drawing

    plot = plots.get(name)
    if plot is None:
        there = ", ".join(plots) or "none yet"
        raise Problem(404, "NO_SUCH_PLOT", f"There is no plot {name!r} here; there are: {there}.")
    if suffix == "csv":
        return as_csv(plot).encode()
    return drawing.svg_file(plot) if suffix == "svg" else drawing.png_file(plot)


def _answer(
    key: tuple[str, ...],
    render: Callable[[], bytes],
    suffix: str,
    headers: dict[str, str],
    if_none_match: str | None,
) -> Response:
    """A strong ETag over what it is of, so that an unchanged one is not drawn to be compared."""
    key = (*key, str(RENDERER))
    etag = f'"{hashlib.sha256(chr(0).join(key).encode()).hexdigest()[:32]}"'
    headers |= {"ETag": etag, "Cache-Control": "private, no-cache"}
    known = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
    if etag in known:
        return Response(status_code=304, headers=headers)
    return Response(_kept.get(key, render), media_type=_TYPES[suffix], headers=headers)


def plot_list(plots: Mapping[str, Plot], path: str) -> PlotList:
    return PlotList(
        items=[
            PlotView(
                name=plot.name,
                title=plot.title,
                alt=plot.alt,
                links={suffix: f"{path}/{plot.name}.{suffix}" for suffix in ("svg", "png", "csv")},
            )
            for plot in plots.values()
        ]
    )
