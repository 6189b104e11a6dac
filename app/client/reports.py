"""Reports and plots of jobs and sweeps."""

from typing import Literal
from urllib.parse import quote

from app.client.connection import SLACK_SECONDS, Connection
from app.client.operations import operation
from app.client.sweep_answers import PlotList

Format = Literal["html", "md"]


class Reports:
    """Pages to look at: each is one file that needs nothing else."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @operation("GET /v1/jobs/{job_id}/report", sets=("If-None-Match",))
    def job(self, job_id: str, *, format: Format = "html") -> str:
        """What a job did, as HTML or Markdown."""
        return self._drawn(f"/v1/jobs/{job_id}/report?format={format}").decode()

    @operation("GET /v1/sweeps/{sweep_id}/report", sets=("If-None-Match",))
    def sweep(self, sweep_id: str, *, format: Format = "html") -> str:
        """What a sweep says, as HTML or Markdown."""
        return self._drawn(f"/v1/sweeps/{sweep_id}/report?format={format}").decode()

    @operation("GET /v1/jobs/{job_id}/plots")
    def job_plots(self, job_id: str) -> PlotList:
        """The plots that there are: they grow with what the job has measured."""
        return self._connection.get(PlotList, f"/v1/jobs/{job_id}/plots")

    @operation("GET /v1/sweeps/{sweep_id}/plots")
    def sweep_plots(self, sweep_id: str) -> PlotList:
        """The plots that there are."""
        return self._connection.get(PlotList, f"/v1/sweeps/{sweep_id}/plots")

    @operation("GET /v1/jobs/{job_id}/plots/{file}", sets=("If-None-Match",))
    def job_plot(self, job_id: str, file: str) -> bytes:
        """One of them: its name and .svg, .png, or .csv for the numbers behind it."""
        return self._drawn(f"/v1/jobs/{job_id}/plots/{quote(file, safe='')}")

    @operation("GET /v1/sweeps/{sweep_id}/plots/{file}", sets=("If-None-Match",))
    def sweep_plot(self, sweep_id: str, file: str) -> bytes:
        """One of them: its name and .svg, .png, or .csv for the numbers behind it."""
        return self._drawn(f"/v1/sweeps/{sweep_id}/plots/{quote(file, safe='')}")

    def _drawn(self, path: str) -> bytes:
        # Of many jobs it takes a while.
        return self._connection.request("GET", path, wait=SLACK_SECONDS).content
