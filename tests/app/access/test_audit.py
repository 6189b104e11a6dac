"""The audit log: a row for every change, in the transaction of the change."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from app import db, jobs, resources
from app.access.tenancy import Caller
from app.access.tenants import DEFAULT, Limits
from app.errors import Problem
from app.tables import AuditEntry
from tests.app.access.test_isolation import operations
from tests.app.conftest import Service


def changes(service: Service) -> dict[str, Callable[[], str]]:
    """For every operation that changes something: how to do it; what is answered is the audited target."""
    client = service.client
    names = iter(range(100))

    def upload() -> str:
        return str(client.post("/v1/uploads", json={"name": f"u{next(names)}", "size_bytes": 1}).json()["id"])

    def cancelled() -> str:
        job_id = service.job()
        client.post(f"/v1/jobs/{job_id}/cancel")
        return job_id

    def paused() -> str:
        job_id = service.job()
        client.post(f"/v1/jobs/{job_id}/pause")
        return job_id

    def sweep() -> str:
        answer = client.post("/v1/sweeps", json={"job": service.job_spec(), "seeds": 2})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def sweep_after(verb: str) -> Callable[[], str]:
        return to("POST", f"/v1/sweeps/{{}}/{verb}", sweep)

    def key() -> str:
        return str(client.post("/v1/keys", json={"name": "k", "scope": "read"}).json()["id"])

    def to(method: str, template: str, make: Callable[[], str], **body: Any) -> Callable[[], str]:
        def do() -> str:
            target = make()
            answer = client.request(method, template.format(target), **body)
            assert answer.is_success, answer.text
            return target

        return do

    def file() -> str:
        service.upload("a")
        return "a"

    def finished_upload() -> str:
        path = client.post("/v1/uploads", json={"name": "u", "size_bytes": 1}).headers["location"]
        assert client.put(path, content=b"x").is_success
        return "u"

    return {
        "PUT /v1/files/{name}": file,
        "POST /v1/files": to("POST", "/v1/files", lambda: "f", files={"file": ("f", b"x")}),
        "DELETE /v1/files/{name}": to("DELETE", "/v1/files/{}", file),
        "POST /v1/uploads": upload,
        "PUT /v1/uploads/{upload_id}": finished_upload,
        "DELETE /v1/uploads/{upload_id}": to("DELETE", "/v1/uploads/{}", upload),
        "POST /v1/teachers": service.teacher,
        "DELETE /v1/teachers/{teacher_id}": to("DELETE", "/v1/teachers/{}", service.teacher),
        "POST /v1/datasets": service.dataset,
        "DELETE /v1/datasets/{dataset_id}": to("DELETE", "/v1/datasets/{}", service.dataset),
        "POST /v1/jobs": service.job,
        "POST /v1/jobs/{job_id}/cancel": cancelled,
        "POST /v1/jobs/{job_id}/pause": paused,
        "POST /v1/jobs/{job_id}/resume": to("POST", "/v1/jobs/{}/resume", paused),
        "POST /v1/jobs/{job_id}/retry": to("POST", "/v1/jobs/{}/retry", cancelled),
        "DELETE /v1/jobs/{job_id}": to("DELETE", "/v1/jobs/{}", cancelled),
        "POST /v1/sweeps": sweep,
        "POST /v1/sweeps/{sweep_id}/cancel": sweep_after("cancel"),
        "POST /v1/sweeps/{sweep_id}/pause": sweep_after("pause"),
        "POST /v1/sweeps/{sweep_id}/resume": to("POST", "/v1/sweeps/{}/resume", sweep_after("pause")),
        "POST /v1/sweeps/{sweep_id}/retry": to("POST", "/v1/sweeps/{}/retry", sweep_after("cancel")),
        "POST /v1/sweeps/{sweep_id}/extend": to("POST", "/v1/sweeps/{}/extend", sweep, json={"seeds": 3}),
        "DELETE /v1/sweeps/{sweep_id}": to("DELETE", "/v1/sweeps/{}", sweep_after("cancel")),
        "POST /v1/keys": key,
        "DELETE /v1/keys/{key_id}": to("DELETE", "/v1/keys/{}", key),
    }


READING = {"POST /v1/artifacts/{artifact_id}/verify"}
"""A POST, because it takes time and no cache may answer it; it changes nothing."""
ACTIONS = {
    "PUT /v1/files/{name}": "file.put",
    "POST /v1/files": "file.put",
    "DELETE /v1/files/{name}": "file.delete",
    "POST /v1/uploads": "upload.begin",
    "PUT /v1/uploads/{upload_id}": "file.put",
    "DELETE /v1/uploads/{upload_id}": "upload.delete",
    "POST /v1/teachers": "teacher.create",
    "DELETE /v1/teachers/{teacher_id}": "teacher.delete",
    "POST /v1/datasets": "dataset.create",
    "DELETE /v1/datasets/{dataset_id}": "dataset.delete",
    "POST /v1/jobs": "job.submit",
    "POST /v1/jobs/{job_id}/cancel": "job.cancel",
    "POST /v1/jobs/{job_id}/pause": "job.pause",
    "POST /v1/jobs/{job_id}/resume": "job.resume",
    "POST /v1/jobs/{job_id}/retry": "job.retry",
    "DELETE /v1/jobs/{job_id}": "job.delete",
    "POST /v1/sweeps": "sweep.submit",
    "POST /v1/sweeps/{sweep_id}/cancel": "sweep.cancel",
    "POST /v1/sweeps/{sweep_id}/pause": "sweep.pause",
    "POST /v1/sweeps/{sweep_id}/resume": "sweep.resume",
    "POST /v1/sweeps/{sweep_id}/retry": "sweep.retry",
    "POST /v1/sweeps/{sweep_id}/extend": "sweep.extend",
    "DELETE /v1/sweeps/{sweep_id}": "sweep.delete",
    "POST /v1/keys": "key.create",
    "DELETE /v1/keys/{key_id}": "key.revoke",
}


def test_every_operation_that_changes_something_is_written_down(sqlite_service: Service) -> None:
    """By which key, in which request; the table of operations is the application's own."""
    acme = sqlite_service.as_tenant("acme")
    acme.client.headers["X-Request-Id"] = "mine"
    [key] = acme.client.get("/v1/keys").json()["items"]
    ways = changes(acme)
    changing = {
        f"{method} {path}"
        for method, path in operations(sqlite_service.client)
        if method not in ("GET", "HEAD")
    } - READING
    assert changing == ways.keys() == ACTIONS.keys()
    for operation, do in ways.items():
        target = do()
        latest = acme.client.get("/v1/audit?page_size=1").json()["items"][0]
        assert (latest["action"], latest["target"]) == (ACTIONS[operation], target), operation
        assert (latest["key_id"], latest["request_id"]) == (key["id"], "mine")


def test_without_keys_the_log_has_no_key(sqlite_service: Service) -> None:
    """Pages of it are in order, the newest first."""
    for name in ("a", "b", "c"):
        sqlite_service.upload(name, name.encode())
    first = sqlite_service.client.get("/v1/audit?page_size=2").json()
    second = sqlite_service.client.get(f"/v1/audit?page_token={first['next_page_token']}").json()
    entries = first["items"] + second["items"]
    assert [entry["target"] for entry in entries] == ["c", "b", "a"]
    assert {entry["key_id"] for entry in entries} == {None}
    assert entries[0]["detail"]["size_bytes"] == 1


def test_what_did_not_happen_is_not_written_down(sqlite_service: Service) -> None:
    """A refused request, a replay, a cancel of what is being cancelled: none changed anything."""
    job_id = sqlite_service.job()
    sqlite_service.worker.claim(job_id)
    client = sqlite_service.client
    assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    before = len(client.get("/v1/audit?page_size=200").json()["items"])
    assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    assert client.post(f"/v1/jobs/{job_id}/retry").status_code == 409
    assert client.delete("/v1/files/none").status_code == 404
    assert client.post("/v1/teachers", json={"file": "none"}).status_code == 422
    assert len(client.get("/v1/audit?page_size=200").json()["items"]) == before


def test_a_change_that_is_undone_takes_its_entry_with_it(sqlite_service: Service) -> None:
    """Both are one transaction."""
    caller = Caller(DEFAULT, "admin", None, "req_1", Limits.of_settings(sqlite_service.settings))

    def fails_afterwards() -> None:
        with caller.transaction() as session:
            resources.save_file(session, name="a", sha256="0" * 64, size_bytes=1)
            session.flush()
            assert session.scalar(select(AuditEntry.action)) == "file.put"
            raise KeyError

    with pytest.raises(KeyError):
        fails_afterwards()
    with db.reading() as session:
        assert session.scalars(select(AuditEntry)).all() == []


def test_what_the_service_does_itself_is_not_in_it(sqlite_service: Service) -> None:
    """Claims and ends are in the job's events."""
    job_id = sqlite_service.job()
    before = sqlite_service.client.get("/v1/audit").json()["items"]
    claim = sqlite_service.worker.claim(job_id)
    with db.transaction() as session:
        jobs.fail(session, claim, Problem(422, "NO", "No."))
    assert sqlite_service.client.get("/v1/audit").json()["items"] == before
