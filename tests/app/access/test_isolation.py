"""Every operation, tried with another tenant's ids: it answers as if they did not exist, and tells nothing of them.

The operations come from the application's own OpenAPI: a new route is covered, or `BODIES` is missing it and the
test fails.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app import jobs
from app.db import reading, transaction
from app.scheduling import workers
from app.tables import Job
from tests.app.conftest import Service

SENTINEL = "zanzibar"  # in every name, label, class and log line of the one tenant

Body = Callable[[str], dict[str, Any]]
_STEPS = [{"method": "distill", "student": "student_net"}]

# What a request with a body sends, given an id: `json`, `content` or `files` of httpx.
BODIES: dict[str, Body] = {
    "PUT /v1/files/{name}": lambda ident: {"content": b"mine"},
    "POST /v1/files": lambda ident: {"files": {"file": (ident, b"mine")}},
    "POST /v1/uploads": lambda ident: {"json": {"name": ident, "size_bytes": 4}},
    "PUT /v1/uploads/{upload_id}": lambda ident: {"content": b"mine"},
    "POST /v1/teachers": lambda ident: {"json": {"file": ident}},
    "POST /v1/datasets": lambda ident: {"json": {"file": ident}},
    "POST /v1/jobs": lambda ident: {"json": {"teachers": [ident], "dataset": ident, "steps": _STEPS}},
    "POST /v1/sweeps": lambda ident: {
        "json": {"job": {"teachers": [ident], "dataset": ident, "steps": _STEPS}, "seeds": 2}
    },
    "POST /v1/sweeps/{sweep_id}/cancel": lambda ident: {},
    "POST /v1/sweeps/{sweep_id}/pause": lambda ident: {},
    "POST /v1/sweeps/{sweep_id}/resume": lambda ident: {},
    "POST /v1/sweeps/{sweep_id}/retry": lambda ident: {},
    "POST /v1/sweeps/{sweep_id}/extend": lambda ident: {"json": {"seeds": 9}},
    "POST /v1/keys": lambda ident: {"json": {"name": ident, "scope": "read"}},
    "POST /v1/jobs/{job_id}/cancel": lambda ident: {},
    "POST /v1/jobs/{job_id}/pause": lambda ident: {},
    "POST /v1/jobs/{job_id}/resume": lambda ident: {},
    "POST /v1/jobs/{job_id}/retry": lambda ident: {},
    "POST /v1/artifacts/{artifact_id}/verify": lambda ident: {},
}


class Owner:
    """A tenant with one of everything, and how to see whether any of it shows or changed."""

    def __init__(self, service: Service) -> None:
        self.service = service
        service.worker.know(names=[f"{SENTINEL} cat", f"{SENTINEL} dog"])
        file, photos = f"{SENTINEL}.pt", f"{SENTINEL}.zip"
        service.upload(file)
        service.upload(photos)
        teacher = self.post("/v1/teachers", {"file": file, "name": f"{SENTINEL} teacher"})
        dataset = self.post("/v1/datasets", {"file": photos, "name": f"{SENTINEL} photos"})
        upload = self.post("/v1/uploads", {"name": f"{SENTINEL}.later", "size_bytes": 9})
        spec = {"teachers": [teacher["id"]], "dataset": dataset["id"], "steps": _STEPS}
        self.spec = spec | {"name": f"{SENTINEL} job", "labels": {"team": SENTINEL}}
        done, running = (self.post("/v1/jobs", self.spec)["id"] for _ in range(2))
        self.work(done, running)
        sweep = self.post("/v1/sweeps", {"job": self.spec, "seeds": 2, "name": f"{SENTINEL} sweep"})
        artifact = self.get(f"/v1/jobs/{done}/artifacts")["items"][0]["id"]
        key = self.post("/v1/keys", {"name": f"{SENTINEL} key", "scope": "read"})
        inspection = teacher["links"]["inspection"].rsplit("/", 1)[1]
        self.ids = [
            *(
                file,
                upload["id"],
                teacher["id"],
                dataset["id"],
                done,
                running,
                inspection,
                artifact,
                key["id"],
                sweep["id"],
            )
        ]
        # Digests of content are nobody's secret: the same photos have the same in every tenant.
        self.secrets = [SENTINEL, *self.ids, key["secret"]]
        self.before = self.everything()
        service.worker.know(names=["cat", "dog"])  # what others register is not called as the owner's

    def work(self, done: str, running: str) -> None:
        worker = self.service.worker
        for job_id in (done, running):
            claim = worker.claim(job_id)
            line = ("log", {"level": "info", "message": f"{SENTINEL} logged"})
            with transaction() as session:
                jobs.record(session, claim, events=[line], phase=SENTINEL)
                if job_id == done:
                    jobs.finish(session, claim, {"text": SENTINEL}, [worker.artifact(SENTINEL.encode())])
                else:
                    workers.seen(session, "host:1", queues=["compress"], device="cpu", job_id=job_id)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self.service.client.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def get(self, path: str) -> Any:
        answer = self.service.client.get(path)
        assert answer.is_success, answer.text
        return answer.json()

    def everything(self) -> dict[str, Any]:
        """All that the tenant can see of its own, less when its key was used."""
        paths = [
            f"/v1/{kind}" for kind in ("files", "teachers", "datasets", "jobs", "sweeps", "audit", "usage")
        ]
        paths += [f"/v1/{kind}/{ident}" for ident in self.ids if (kind := _kind(ident)) not in (None, "keys")]
        seen = {path: self.get(path) for path in paths}
        for path, found in seen.items():
            if path.startswith("/v1/sweeps/"):
                found.pop("progress")  # an estimate: it changes with the clock and the workers
        return seen | {"keys": [(key["id"], key["revoked_at"]) for key in self.get("/v1/keys")["items"]]}


def _kind(ident: str) -> str | None:
    kinds = {"upl": "uploads", "tch": "teachers", "dst": "datasets", "job": "jobs", "ins": "jobs"}
    kinds |= {"art": "artifacts", "key": "keys", "swp": "sweeps"}
    return kinds.get(ident.split("_")[0])


def operations(client: httpx.Client) -> Iterator[tuple[str, str]]:
    """(method, path template) of all that the application offers; HEAD for every GET."""
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            yield method.upper(), path
            if method == "get":
                yield "HEAD", path


def ask(client: httpx.Client, method: str, path: str, ident: str) -> httpx.Response:
    body = BODIES[f"{method} {path}"](ident) if method in ("POST", "PUT") else {}
    return client.request(method, re.sub(r"{[^}]*}", ident, path), **body)


def unknown(ident: str) -> str:
    """An id of the same kind that nobody has, another for every id."""
    prefix, mark, _ = ident.rpartition("_")
    return prefix + mark + hashlib.sha256(ident.encode()).hexdigest()[:26]


def verdict(answer: httpx.Response) -> tuple[int, str | None, list[str]]:
    """Status, code, and the codes of its details."""
    if "problem+json" not in answer.headers.get("content-type", "") or not answer.content:
        return answer.status_code, None, []
    problem = answer.json()
    return answer.status_code, problem["code"], [error["code"] for error in problem["errors"]]


def leaks(answer: httpx.Response, owner: Owner, sent: str) -> list[str]:
    """What the answer says of the owner, less what was sent."""
    text = answer.text + json.dumps(list(answer.headers.items()))
    text = text.replace(sent, "")
    return [secret for secret in owner.secrets if secret in text]


@pytest.fixture
def owner(service: Service) -> Owner:
    return Owner(service.as_tenant("owner"))


@pytest.fixture
def sqlite_owner(sqlite_service: Service) -> Owner:
    return Owner(sqlite_service.as_tenant("owner"))


def test_another_tenants_ids_are_as_unknown_as_any(service: Service, owner: Owner) -> None:
    """Every operation x every id of the other's x an admin's and a reader's key, each against an id of nobody."""
    num_checks = 0
    for scope in ("admin", "read"):
        stranger = service.as_tenant(f"stranger who may {scope}", scope).client
        # What reads comes first: a stranger may give a file of its own any name, and that would be listed.
        for method, path in sorted(operations(stranger)):
            for ident in owner.ids if "{" in path or method == "POST" else owner.ids[:1]:
                if path.startswith("/v1/tools/") or ("{name}" in path and "architectures" in path):
                    continue  # programs and networks that everybody may have, by their public names
                control = ask(stranger, method, path, unknown(ident))
                answer = ask(stranger, method, path, ident)
                assert verdict(answer) == verdict(control), (method, path, ident, answer.text, control.text)
                assert leaks(answer, owner, ident) == [], (method, path, ident)
                assert answer.status_code < 500
                num_checks += 1
    assert num_checks >= 500
    assert owner.everything() == owner.before


def test_lists_counts_and_filters_tell_nothing_of_others(
    sqlite_service: Service, sqlite_owner: Owner
) -> None:
    """With the other's own page tokens, labels and states."""
    stranger = sqlite_service.as_tenant("stranger").client
    token = sqlite_owner.get("/v1/jobs?page_size=1")["next_page_token"]
    assert token is not None
    for query in (f"page_token={token}", f"label.team={SENTINEL}", "state=running", "page_size=200"):
        answer = stranger.get(f"/v1/jobs?{query}")
        assert answer.json()["items"] == []
    assert stranger.get("/v1/usage").json()["bytes"]["used"] == 0
    [worker] = stranger.get("/v1/workers").json()["items"]
    [own] = sqlite_owner.get("/v1/workers")["items"]
    assert (worker["job_id"], own["job_id"]) == (None, sqlite_owner.ids[5])
    stream = stranger.get(f"/v1/jobs/{sqlite_owner.ids[5]}/events?stream=true")
    assert stream.status_code == 404


def test_hints_name_none_of_anothers_files(sqlite_service: Service, sqlite_owner: Owner) -> None:
    """ "Did you mean" looks among one's own."""
    stranger = sqlite_service.as_tenant("stranger").client
    wrong = {"file": f"{SENTINEL[:-1]}.pt"}
    assert f"{SENTINEL}.pt" in sqlite_owner.service.client.post("/v1/teachers", json=wrong).text
    answer = stranger.post("/v1/teachers", json=wrong)
    assert verdict(answer) == (422, "INVALID_SPEC", ["UNKNOWN_FILE"])
    assert f"{SENTINEL}.pt" not in answer.text


def test_one_name_and_one_idempotency_key_are_two_things_in_two_tenants(
    sqlite_service: Service, sqlite_owner: Owner
) -> None:
    """Neither sees nor replaces the other's."""
    stranger = sqlite_service.as_tenant("stranger")
    assert stranger.client.put(f"/v1/files/{SENTINEL}.pt", content=b"another").status_code == 201
    assert sqlite_owner.get(f"/v1/files/{SENTINEL}.pt")["size_bytes"] == len(b"bytes")
    key = {"Idempotency-Key": "the-same"}
    first = sqlite_owner.service.client.post("/v1/jobs", json=sqlite_owner.spec, headers=key)
    second = stranger.client.post("/v1/jobs", json=stranger.job_spec(), headers=key)
    assert (first.status_code, second.status_code) == (202, 202)
    assert "idempotency-replayed" not in second.headers
    assert first.json()["id"] != second.json()["id"]


def test_layer_tables_are_inspected_for_each_tenant(sqlite_service: Service, sqlite_owner: Owner) -> None:
    """What one asked about shows neither as an answer that is suddenly there nor in the other's jobs."""
    for client in (sqlite_owner.service.client, sqlite_service.as_tenant("stranger").client):
        for _ in range(2):
            answer = client.get("/v1/architectures/student_net", headers={"Prefer": "respond-async"})
            assert answer.status_code == 202
    with reading() as session:
        asked = select(Job.tenant_id).where(Job.spec["inspect"].as_string() == "architecture")
        assert len(set(session.scalars(asked))) == 2
        assert len(session.scalars(asked).all()) == 2
