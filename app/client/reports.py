"""Reports and plots of jobs and sweeps."""

from typing import Literal
from urllib.parse import quote

from app.client.connection import Connection
from app.client.operations import operation

ReportFormat = Literal["html", "md"]
PlotFormat = Literal["svg", "png"]


class Reports:
    """Pages to look at: each is one file that needs nothing else."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @operation("GET /v1/jobs/{job_id}/report")
    def job(self, job_id: str, *, format: ReportFormat = "html") -> str:
        """What a job did, as HTML or Markdown."""
        return self._text(f"/v1/jobs/{job_id}/report", format)

    @operation("GET /v1/sweeps/{sweep_id}/report")
    def sweep(self, sweep_id: str, *, format: ReportFormat = "html") -> str:
        """What a sweep says, as HTML or Markdown."""
        return self._text(f"/v1/sweeps/{sweep_id}/report", format)

    def job_plot(self, job_id: str, name: str, *, format: PlotFormat = "svg") -> bytes:
        """One plot of a job's report, as SVG or PNG."""
        return self._plot(f"/v1/jobs/{job_id}", name, format)

    def sweep_plot(self, sweep_id: str, name: str, *, format: PlotFormat = "svg") -> bytes:
        """One plot of a sweep's report, as SVG or PNG."""
        return self._plot(f"/v1/sweeps/{sweep_id}", name, format)

    def _text(self, path: str, format: ReportFormat) -> str:
        # A report of many jobs is drawn while we wait.
        return self._connection.request("GET", path, params={"format": format}, wait=60.0).text

    def _plot(self, path: str, name: str, format: PlotFormat) -> bytes:
        return self._connection.request("GET", f"{path}/plots/{quote(name, safe='')}.{format}", wait=60.0).content
