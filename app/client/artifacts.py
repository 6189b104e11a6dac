"""Artifacts: the files that jobs leave, and their receipts."""

from pathlib import Path
from typing import Any

from app.client.answers import ArtifactView, VerdictView
from app.client.connection import Connection
from app.client.downloads import Progress, download
from app.client.operations import operation


class Artifacts:
    """Files that jobs leave."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @operation("GET /v1/artifacts/{artifact_id}")
    def get(self, artifact_id: str) -> ArtifactView:
        return self._connection.get(ArtifactView, f"/v1/artifacts/{artifact_id}")

    @operation("GET /v1/artifacts/{artifact_id}/content", local=("target", "on_progress"))
    def download(
        self, artifact_id: str, target: Path | None = None, *, on_progress: Progress | None = None
    ) -> Path:
        """Fetch it; returns where it lies."""
        path = f"/v1/artifacts/{artifact_id}/content"
        return download(self._connection, path, target, on_progress=on_progress)

    @operation("GET /v1/artifacts/{artifact_id}/receipt")
    def receipt(self, artifact_id: str) -> dict[str, Any]:
        """What it was made of and what was measured of it."""
        answer = self._connection.request("GET", f"/v1/artifacts/{artifact_id}/receipt")
        receipt: dict[str, Any] = answer.json()
        return receipt

    @operation("POST /v1/artifacts/{artifact_id}/verify")
    def verify(self, artifact_id: str) -> VerdictView:
        """Let the service read its bytes again and compare them with the receipt."""
        path = f"/v1/artifacts/{artifact_id}/verify"
        return self._connection.post(VerdictView, path, repeatable=True)
