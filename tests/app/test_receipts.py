"""A receipt over HTTP: served as one spelling of JSON, kept when what it names is deleted, and compared with the bytes."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from app import jobs, receipts
from app.db import transaction
from tests.app.conftest import Service

CONTENT = b"a student"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
RECEIPT = {
    "format": receipts.FORMAT,
    "artifact": {"name": "final.pt", "kind": "final", "sha256": SHA256, "size_bytes": len(CONTENT)},
    "measured": {"splits": {"test": {"accuracy": 1 / 3, "num_correct": 1, "num_images": 3}}},
    "spec": {"name": "é", "lr": 1e-5},
}


def artifact_of(service: Service, *, receipt: dict[str, Any] | None = RECEIPT) -> str:
    """The id of a finished job's only artifact."""
    job_id = service.job()
    claim = service.worker.claim(job_id)
    made = replace(service.worker.artifact(CONTENT), receipt=receipt)
    with transaction() as session:
        jobs.finish(session, claim, {}, [made])
    ident: str = service.client.get(f"/v1/jobs/{job_id}/artifacts").json()["items"][0]["id"]
    return ident


def test_a_receipt_is_served_as_canonical_json_under_its_digest(service: Service) -> None:
    """What both databases give back is what was put in, to the last digit; whoever has it need not ask again."""
    ident = artifact_of(service)
    link = service.client.get(f"/v1/artifacts/{ident}").json()["links"]["receipt"]
    answer = service.client.get(link)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == RECEIPT
    assert answer.content == json.dumps(RECEIPT, sort_keys=True, separators=(",", ":")).encode()
    etag = f'"{hashlib.sha256(answer.content).hexdigest()}"'
    assert answer.headers["etag"] == etag
    head = service.client.head(link)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)
    assert head.headers["content-length"] == str(len(answer.content))
    again = service.client.get(link, headers={"If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)


def test_a_receipt_stays_when_all_that_it_names_is_deleted(service: Service) -> None:
    ident = artifact_of(service)
    before = service.client.get(f"/v1/artifacts/{ident}/receipt").content
    for kind in ("teachers", "datasets"):
        for item in service.client.get(f"/v1/{kind}").json()["items"]:
            assert service.client.delete(f"/v1/{kind}/{item['id']}").status_code == 204
    for item in service.client.get("/v1/files").json()["items"]:
        assert service.client.delete(f"/v1/files/{item['name']}").status_code == 204
    assert service.client.get(f"/v1/artifacts/{ident}/receipt").content == before


def test_an_artifact_of_before_there_were_receipts(sqlite_service: Service) -> None:
    ident = artifact_of(sqlite_service, receipt=None)
    for method, path in (("GET", "receipt"), ("POST", "verify")):
        answer = sqlite_service.client.request(method, f"/v1/artifacts/{ident}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "NO_RECEIPT")
    assert sqlite_service.client.get("/v1/artifacts/art_none/receipt").json()["code"] == "NOT_FOUND"


def verdict(service: Service, ident: str) -> dict[str, Any]:
    answer = service.client.post(f"/v1/artifacts/{ident}/verify")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_stored_bytes_are_compared_with_the_receipt(sqlite_service: Service) -> None:
    """As they are now: whole, with one bit changed, and gone."""
    ident = artifact_of(sqlite_service)
    assert verdict(sqlite_service, ident) == {
        "ok": True,
        "checks": [
            {"what": "size_bytes", "claimed": len(CONTENT), "found": len(CONTENT), "ok": True},
            {"what": "sha256", "claimed": SHA256, "found": SHA256, "ok": True},
        ],
    }
    place = sqlite_service.worker.storage.path(SHA256)
    place.chmod(0o644)
    place.write_bytes(b"b student")
    damaged = verdict(sqlite_service, ident)
    assert (damaged["ok"], [check["ok"] for check in damaged["checks"]]) == (False, [True, False])
    place.unlink()
    gone = verdict(sqlite_service, ident)
    assert (gone["ok"], [check["found"] for check in gone["checks"]]) == (False, [None, None])


def test_a_large_file_is_not_read_while_somebody_waits(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ident = artifact_of(sqlite_service)
    monkeypatch.setattr(receipts, "VERIFY_BYTES", len(CONTENT) - 1)
    answer = sqlite_service.client.post(f"/v1/artifacts/{ident}/verify")
    assert (answer.status_code, answer.json()["code"]) == (413, "TOO_LARGE_TO_VERIFY")
    assert "load_artifact.py FILE verify RECEIPT" in answer.json()["detail"]
