"""Downloads: the bytes, parts of them, and the proof that they are whole."""

import base64
import hashlib

import pytest

from app import jobs
from app.db import transaction
from tests.app.conftest import Service

CONTENT = bytes(range(256)) * 3000
DIGEST = hashlib.sha256(CONTENT)


@pytest.fixture
def content(sqlite_service: Service) -> str:
    """The path of an artifact's bytes."""
    job_id = sqlite_service.job()
    sqlite_service.worker.finish(job_id, CONTENT)
    (artifact,) = sqlite_service.client.get(f"/v1/jobs/{job_id}/artifacts").json()["items"]
    path: str = artifact["links"]["content"]
    return path


def test_the_artifacts_of_a_job(service: Service) -> None:
    """As a list, one by one, and as the download of the final one."""
    job_id = service.job()
    early = service.client.get(f"/v1/jobs/{job_id}/download")
    assert (early.status_code, early.json()["code"], early.json()["retryable"]) == (409, "NOT_FINISHED", True)
    assert "queued" in early.json()["detail"]
    claim = service.worker.claim(job_id)
    files = [
        service.worker.artifact(b"of step 1", kind="stage", step=1),
        service.worker.artifact(CONTENT, step=2),
    ]
    with transaction() as session:
        jobs.finish(session, claim, {}, files)
    stage, final = service.client.get(f"/v1/jobs/{job_id}/artifacts").json()["items"]
    assert (stage["kind"], final["kind"], final["size_bytes"]) == ("stage", "final", len(CONTENT))
    assert service.client.get(final["links"]["self"]).json() == final
    answer = service.client.get(f"/v1/jobs/{job_id}/download")
    assert answer.content == CONTENT
    assert answer.headers["content-disposition"] == f'attachment; filename="{job_id}-final.pt"'
    assert service.client.get("/v1/artifacts/art_none").status_code == 404


def test_an_export_keeps_its_name_and_is_not_the_answer(sqlite_service: Service) -> None:
    """`download` stays the network; whatever a step offers beside it is fetched by its id."""
    job_id = sqlite_service.job()
    claim = sqlite_service.worker.claim(job_id)
    export = jobs.NewArtifact(
        1, "export", "final.course-8bit.pkl", sqlite_service.worker.put(b"pickle"), 6, {}
    )
    with transaction() as session:
        jobs.finish(session, claim, {}, [export, sqlite_service.worker.artifact(CONTENT)])
    items = sqlite_service.client.get(f"/v1/jobs/{job_id}/artifacts").json()["items"]
    (listed,) = (item for item in items if item["kind"] == "export")
    answer = sqlite_service.client.get(listed["links"]["content"])
    assert answer.content == b"pickle"
    disposition = f'attachment; filename="{job_id}-final.course-8bit.pkl"'
    assert answer.headers["content-disposition"] == disposition
    assert sqlite_service.client.get(f"/v1/jobs/{job_id}/download").content == CONTENT


def test_a_cancelled_job_points_at_what_it_kept(service: Service) -> None:
    """The best student so far is an artifact, but not the answer."""
    job_id = service.job()
    claim = service.worker.claim(job_id)
    with transaction() as session:
        jobs.cancel(session, job_id)
    with transaction() as session:
        jobs.finish_cancel(session, claim, {}, [service.worker.artifact(b"best", kind="best_so_far")])
    answer = service.client.get(f"/v1/jobs/{job_id}/download")
    assert (answer.status_code, answer.json()["retryable"]) == (409, False)
    assert f"/v1/jobs/{job_id}/artifacts" in answer.json()["detail"]


def test_the_whole_file_says_what_it_is(sqlite_service: Service, content: str) -> None:
    """Length, strong ETag, digest; HEAD the same without the bytes."""
    answer = sqlite_service.client.get(content)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    headed = sqlite_service.client.head(content)
    assert (headed.status_code, headed.content) == (200, b"")
    for headers in (answer.headers, headed.headers):
        assert headers["content-length"] == str(len(CONTENT))
        assert headers["etag"] == f'"{DIGEST.hexdigest()}"'
        assert headers["repr-digest"] == f"sha-256=:{base64.b64encode(DIGEST.digest()).decode()}:"
        assert headers["accept-ranges"] == "bytes"
        assert headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-299", 100, 300),
        ("bytes=700000-", 700_000, len(CONTENT)),
        ("bytes=-5", len(CONTENT) - 5, len(CONTENT)),
        ("bytes=-99999999", 0, len(CONTENT)),
        ("bytes=5-99999999", 5, len(CONTENT)),
    ],
)
def test_a_range(sqlite_service: Service, content: str, asked: str, start: int, stop: int) -> None:
    """206 with exactly these bytes; HEAD knows no ranges (RFC 9110, 14.2)."""
    answer = sqlite_service.client.get(content, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, CONTENT[start:stop])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"
    assert answer.headers["content-length"] == str(stop - start)
    headed = sqlite_service.client.head(content, headers={"Range": asked})
    assert (headed.status_code, headed.headers["content-length"]) == (200, str(len(CONTENT)))


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=99999999-999999999", "bytes=-0"])
def test_a_range_outside_of_the_file(sqlite_service: Service, content: str, asked: str) -> None:
    """416 tells the size: so `curl -C -` knows that its file is complete."""
    answer = sqlite_service.client.get(content, headers={"Range": asked})
    assert (answer.status_code, answer.json()["code"]) == (416, "RANGE_NOT_SATISFIABLE")
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes"]
)
def test_what_is_no_single_range_gets_the_whole(sqlite_service: Service, content: str, asked: str) -> None:
    """RFC 9110: such a header is ignored."""
    answer = sqlite_service.client.get(content, headers={"Range": asked})
    assert (answer.status_code, len(answer.content)) == (200, len(CONTENT))


def test_a_client_that_has_it_gets_304(sqlite_service: Service, content: str) -> None:
    """Also among others, weak, or `*`."""
    etag = f'"{DIGEST.hexdigest()}"'
    for known in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        answer = sqlite_service.client.get(content, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert sqlite_service.client.get(content, headers={"If-None-Match": '"x"'}).status_code == 200


def test_a_resumed_download_of_another_file_starts_over(sqlite_service: Service, content: str) -> None:
    """If-Range: the part only if the file is still the same."""
    part = {"Range": "bytes=5-"}
    same = sqlite_service.client.get(content, headers=part | {"If-Range": f'"{DIGEST.hexdigest()}"'})
    assert same.status_code == 206
    other = sqlite_service.client.get(content, headers=part | {"If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, CONTENT)


def test_bytes_that_were_lost_are_410(sqlite_service: Service, content: str) -> None:
    """The row is there, the object is not: no 500."""
    sqlite_service.worker.storage.delete(DIGEST.hexdigest())
    answer = sqlite_service.client.get(content)
    assert (answer.status_code, answer.json()["code"]) == (410, "OBJECT_MISSING")
