"""What a tenant may have: bytes, files, waiting and running jobs; nobody gets past by asking twice at once."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app import db, jobs
from app.access import quotas, tenancy, tenants
from app.errors import Problem
from app.scheduling import schedule
from app.scheduling.schedule import Offer
from app.settings import Settings
from app.tables import CANCELLING, Job
from tests.app.conftest import Service

KB = 1000


def limit(tenant: str, **limits: int) -> None:
    with db.transaction() as session:
        found = tenants.named(session, tenant)
        assert found is not None
        tenants.change(session, found.id, dict(limits))


def refused(answer: httpx.Response) -> bool:
    if answer.status_code != 403:
        assert answer.is_success, answer.text
        return False
    assert answer.json()["code"] == "QUOTA_EXCEEDED"
    return True


def used(service: Service) -> int:
    number: int = service.client.get("/v1/usage").json()["bytes"]["used"]
    return number


@pytest.fixture
def tenant(sqlite_service: Service) -> Service:
    return sqlite_service.as_tenant("acme")


@pytest.fixture
def small(tenant: Service) -> Service:
    """May store 10 kB."""
    limit("acme", max_bytes=10 * KB)
    return tenant


@pytest.fixture
def tenant_anywhere(service: Service) -> Service:
    """On both databases: for what their locks decide."""
    return service.as_tenant("acme")


# ---- bytes


def test_usage_says_what_there_is_and_what_may_be(small: Service) -> None:
    """Counted by hand: two names of one content are one object; an upload under way counts as declared."""
    small.upload("a", b"x" * 1000)
    small.upload("b", b"x" * 1000)
    small.client.post("/v1/uploads", json={"name": "c", "size_bytes": 500})
    usage = small.client.get("/v1/usage").json()
    assert usage["bytes"] == {"used": 1500, "limit": 10 * KB}
    assert usage["files"] == {"used": 3, "limit": 10_000}
    assert usage["running_jobs"] == {"used": 0, "limit": None}
    small.client.delete("/v1/files/a")
    assert used(small) == 1500
    small.client.delete("/v1/files/b")
    assert used(small) == 500


def test_what_teachers_data_sets_and_jobs_keep_counts_too(tenant: Service) -> None:
    """A deleted file's bytes are the teacher's still; by hand, with the sizes that the worker stored."""
    known = tenant.worker.answers
    teacher_found, dataset_found = known["teacher"], known["dataset"]
    known["teacher"] = lambda spec: {**_of(teacher_found, spec), "artifact_size_bytes": 300}
    known["dataset"] = lambda spec: {
        **_of(dataset_found, spec),
        "index_size_bytes": 20,
        "pack_size_bytes": 4000,
    }
    job_id = tenant.job()
    file = len(b"bytes")  # of both, so one object
    assert used(tenant) == file + 300 + 20 + 4000
    for name in ("teacher.pt", "photos.zip"):
        assert tenant.client.delete(f"/v1/files/{name}").status_code == 204
    assert used(tenant) == file + 300 + 20 + 4000
    tenant.worker.finish(job_id, b"student")
    assert used(tenant) == file + 300 + 20 + 4000 + len(b"student")


def _of(answer: Callable[[dict[str, Any]], Any], spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = answer(spec)
    return found


def test_a_file_beyond_the_quota_is_refused_and_the_rest_is_as_it_was(small: Service) -> None:
    """By its declared size at once, or, without one, when the room is used up."""
    small.upload("first", b"x" * 6000)
    for way in ("put", "chunked", "form", "upload"):
        assert refused(send(small, "second", b"y" * 4001, way)), way
        assert used(small) == 6000
        assert small.client.get("/v1/files/second").status_code == 404
        assert not refused(send(small, "second", b"y" * 4000, way)), way
        assert small.client.delete("/v1/files/second").status_code == 204


def send(service: Service, name: str, content: bytes, way: str) -> httpx.Response:
    if way == "form":
        return service.client.post("/v1/files", files={"file": (name, content)})
    if way == "upload":
        begun = service.client.post("/v1/uploads", json={"name": name, "size_bytes": len(content)})
        return service.client.put(begun.headers["location"], content=content) if begun.is_success else begun
    return service.client.put(f"/v1/files/{name}", content=pieces(content) if way == "chunked" else content)


def pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


def test_a_file_may_be_replaced_when_the_quota_is_full(small: Service) -> None:
    """But for a resumable upload, which is beside the file until it is complete."""
    small.upload("first", b"x" * 9000)
    for way in ("put", "form"):
        assert not refused(send(small, "first", way[:1].encode() * 10_000, way))
        assert used(small) == 10_000
        assert refused(send(small, "first", b"z" * 10_001, way))
    assert refused(send(small, "first", b"z", "upload"))


def test_what_was_begun_has_room_until_its_end(small: Service) -> None:
    """A resumable upload counts from its beginning, so others cannot take its room, and once afterwards."""
    begun = small.client.post("/v1/uploads", json={"name": "big", "size_bytes": 9000})
    assert refused(send(small, "other", b"x" * 2000, "put"))
    assert small.client.put(begun.headers["location"], content=b"y" * 9000).status_code == 201
    assert used(small) == 9000
    given_up = small.client.post("/v1/uploads", json={"name": "more", "size_bytes": 1000})
    assert small.client.delete(given_up.headers["location"]).status_code == 204
    assert not refused(send(small, "other", b"x" * 1000, "put"))


def test_uploads_at_once_do_not_pass_together(tenant_anywhere: Service) -> None:
    """Twelve of 2 kB, each of which would fit: five do."""
    limit("acme", max_bytes=10 * KB)
    answers = at_once(lambda n: send(tenant_anywhere, f"f{n}", bytes([n]) * 2000, "put"), 12)
    assert sorted(map(refused, answers)) == [False] * 5 + [True] * 7
    assert used(tenant_anywhere) == 10 * KB


def at_once(do: Callable[[int], Any], number: int) -> list[Any]:
    answers: list[Any] = [None] * number
    together = threading.Barrier(number)

    def one(n: int) -> None:
        together.wait()
        answers[n] = do(n)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_files_are_counted_with_uploads_under_way(small: Service) -> None:
    limit("acme", max_files=2)
    small.upload("a", b"1")
    begun = small.client.post("/v1/uploads", json={"name": "b", "size_bytes": 1})
    assert refused(send(small, "c", b"3", "put"))
    assert refused(small.client.post("/v1/uploads", json={"name": "c", "size_bytes": 1}))
    assert small.client.put(begun.headers["location"], content=b"2").status_code == 201
    assert not refused(send(small, "a", b"4", "put"))  # a name that is there is no new file


def test_a_tenant_over_its_quota_keeps_all_and_gets_nothing_new(small: Service) -> None:
    """As when its limit was lowered, or a job's artifacts passed it."""
    spec = small.job_spec()
    small.upload("more", b"x" * 100)
    limit("acme", max_bytes=50)
    assert refused(small.client.post("/v1/jobs", json=spec))
    assert refused(small.client.post("/v1/teachers", json={"file": "teacher.pt"}))
    assert len(small.client.get("/v1/files").json()["items"]) == 3
    assert small.client.get("/v1/jobs").json()["items"] == []
    limit("acme", max_bytes=0)  # none
    assert small.client.post("/v1/jobs", json=spec).status_code == 202


def test_another_tenants_quota_is_its_own(small: Service) -> None:
    other = small.as_tenant("other")
    assert refused(send(small, "a", b"x" * 20_000, "put"))
    assert not refused(send(other, "a", b"x" * 20_000, "put"))


# ---- waiting jobs


def test_too_many_waiting_jobs_are_refused_until_one_has_started(tenant: Service) -> None:
    """429 with Retry-After, also for trying again and for inspections; a replay is no new job."""
    spec = tenant.job_spec()
    limit("acme", max_queued_jobs=2)
    first = tenant.client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"})
    second = tenant.client.post("/v1/jobs", json=spec)
    assert (first.status_code, second.status_code) == (202, 202)
    assert too_many(tenant.client.post("/v1/jobs", json=spec))
    assert too_many(tenant.client.post("/v1/teachers", json={"file": "teacher.pt"}))
    assert tenant.client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"}).status_code == 202
    cancelled = f"/v1/jobs/{second.json()['id']}"
    assert tenant.client.post(f"{cancelled}/cancel").status_code == 200
    assert tenant.client.post("/v1/jobs", json=spec).status_code == 202
    assert too_many(tenant.client.post(f"{cancelled}/retry"))
    assert tenant.client.get(cancelled).json()["state"] == "cancelled"
    tenant.worker.claim(first.json()["id"])
    assert tenant.client.post(f"{cancelled}/retry").status_code == 202


def too_many(answer: httpx.Response) -> bool:
    if answer.status_code != 429:
        return False
    assert answer.json()["code"] == "TOO_MANY_JOBS"
    assert answer.json()["retryable"] is True
    assert int(answer.headers["retry-after"]) > 0
    return True


def test_jobs_submitted_at_once_do_not_pass_together(tenant_anywhere: Service) -> None:
    spec = tenant_anywhere.job_spec()
    limit("acme", max_queued_jobs=5)
    answers = at_once(lambda n: tenant_anywhere.client.post("/v1/jobs", json=spec), 12)
    assert sorted(map(too_many, answers)) == [False] * 5 + [True] * 7
    assert tenant_anywhere.client.get("/v1/usage").json()["queued_jobs"] == {"used": 5, "limit": 5}


# ---- running jobs


@pytest.fixture
def acme(database: str) -> str:
    with db.transaction() as session:
        return tenants.make(session, "acme").id


def submit(tenant_id: str, number: int = 1, kind: str = "compress") -> list[str]:
    with tenancy.transaction(tenant_id) as session:
        return [jobs.submit(session, kind=kind, spec={})[0].id for _ in range(number)]


def claim(job_id: str) -> jobs.Claim | None:
    with db.transaction() as session:
        return jobs.claim(session, job_id, worker="w")


def claim_next() -> str | None:
    """The job that a worker of every queue gets now."""
    offer = Offer(worker="w", queues=("compress", "inspect"))
    with db.transaction() as session:
        claimed = schedule.claim_next(session, offer)
    return claimed and claimed.job_id


def test_a_job_beyond_the_running_limit_stays_queued_until_another_ends(acme: str) -> None:
    """Nothing of it changes; the worker that ends the other finds it when it looks for more."""
    limit("acme", max_running_jobs=1)
    first, second = submit(acme, 2)
    running = claim(first)
    assert running is not None
    assert claim(second) is None
    assert claim_next() is None
    with db.reading() as session:
        waiting = session.get_one(Job, second)
        assert (waiting.state, waiting.attempt) == ("queued", 0)
    with db.transaction() as session:
        jobs.finish(session, running, {})
    assert claim_next() == second


def test_a_job_that_is_being_cancelled_still_runs(acme: str) -> None:
    limit("acme", max_running_jobs=1)
    first, second = submit(acme, 2)
    running = claim(first)
    assert running is not None
    with db.transaction() as session:
        assert jobs.cancel(session, first).state == CANCELLING
    assert claim(second) is None
    with db.transaction() as session:
        jobs.finish_cancel(session, running, None)
    assert claim(second) is not None


def test_others_and_inspections_are_not_held_back(acme: str, database: str) -> None:
    limit("acme", max_running_jobs=1)
    own = submit(acme, 3)
    inspections = submit(acme, 2, kind="inspect")
    [others] = submit(tenants.DEFAULT)
    assert [claim_next() for _ in range(5)] == [*inspections, own[0], others, None]


def test_claims_at_once_do_not_pass_together(acme: str) -> None:
    """Ten workers, each with another job of a tenant that may run three."""
    limit("acme", max_running_jobs=3)
    ids = submit(acme, 10)
    claims = at_once(lambda n: claim(ids[n]), 10)
    assert sum(made is not None for made in claims) == 3
    with db.reading() as session:
        assert quotas.num_running(session, acme) == 3


def test_a_lowered_limit_ends_nothing_that_runs(acme: str) -> None:
    ids = submit(acme, 3)
    claims = [claim(job_id) for job_id in ids[:2]]
    limit("acme", max_running_jobs=1)
    with db.transaction() as session:
        for made in claims:
            assert made is not None
            assert jobs.heartbeat(session, made) == "running"
    assert claim(ids[2]) is None


def test_limits_default_to_the_settings(acme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And null means them again."""
    monkeypatch.setattr(tenants, "settings", lambda: Settings(tenant_max_queued_jobs=1))
    submit(acme)
    with pytest.raises(Problem, match="TOO_MANY_JOBS"):
        submit(acme)
    limit("acme", max_queued_jobs=2)
    submit(acme)
    with db.reading() as session:
        assert tenants.limits(session, acme).max_queued_jobs == 2
    with db.transaction() as session:
        tenants.change(session, acme, {"max_queued_jobs": None})
        assert tenants.limits(session, acme).max_queued_jobs == 1
        assert session.scalar(select(Job.id).where(Job.tenant_id == acme).limit(1))
