"""A receipt: what an artifact was made of and what was measured of it, in a JSON document beside the file.

It is written in the transaction that commits the artifact and never changes; it stays when teachers, data set and their
files are deleted. docs/receipts.md has its fields, and how it is checked without this service.
"""

import hashlib
from typing import Any

from app.canonical import canonical_json
from app.errors import Problem
from app.storage.objects import Storage
from app.tables import Artifact

FORMAT = "fewbytes/receipt/1"

VERIFY_BYTES = 256 << 20
"""The largest artifact that the service reads again while its caller waits: half a second a processor."""


def receipt_of(artifact: Artifact) -> dict[str, Any]:
    """Problem 404 NO_RECEIPT for an artifact of before there were receipts."""
    if artifact.receipt is None:
        raise Problem(
            404,
            "NO_RECEIPT",
            f"Artifact {artifact.id} was made before artifacts had receipts: run its job again for one that has.",
        )
    return artifact.receipt


def canonical(receipt: dict[str, Any]) -> tuple[bytes, str]:
    """The receipt as it is downloaded, and the sha256 of those bytes."""
    content = canonical_json(receipt).encode()
    return content, hashlib.sha256(content).hexdigest()


def verify(artifact: Artifact, storage: Storage) -> list[dict[str, Any]]:
    """What the receipt claims of the bytes, against the bytes as they are stored now: what, claimed, found, ok.

    Problem 413 TOO_LARGE_TO_VERIFY, 404 NO_RECEIPT.
    """
    claimed = receipt_of(artifact)["artifact"]
    if artifact.size_bytes > VERIFY_BYTES:
        raise Problem(
            413,
            "TOO_LARGE_TO_VERIFY",
            f"This file has {artifact.size_bytes} bytes, and up to {VERIFY_BYTES} are read again while you wait: "
            "download it and its receipt, and run `python load_artifact.py FILE verify RECEIPT`.",
        )
    found: dict[str, Any] = {"size_bytes": None, "sha256": None}
    if storage.exists(artifact.sha256):
        path = storage.path(artifact.sha256)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        found = {"size_bytes": path.stat().st_size, "sha256": sha256}
    return [
        {"what": what, "claimed": claimed[what], "found": value, "ok": claimed[what] == value}
        for what, value in found.items()
    ]
