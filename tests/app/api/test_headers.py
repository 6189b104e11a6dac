"""What every answer tells a browser, and the page that shows the OpenAPI without the internet."""

import re

import httpx
import pytest

from app import resources
from tests.app.conftest import Service

PROTECTED = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def assert_protected(answer: httpx.Response) -> None:
    assert {name: answer.headers.get(name) for name in PROTECTED} == PROTECTED
    assert "server" not in answer.headers


def test_every_answer_is_protected(sqlite_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also refusals, those of the connection itself, and the 500 that comes from outside of everything."""
    client = sqlite_service.client
    job_id = sqlite_service.job()
    for path in ("/", "/v1/jobs", f"/v1/jobs/{job_id}", "/v1/nothing", "/v1/jobs?a=1", "/openapi.json"):
        assert_protected(client.get(path))
    assert_protected(client.get("/" + "a" * 9000))
    assert_protected(client.delete("/v1/files/none"))
    monkeypatch.setattr(resources, "newest", lambda *_, **__: 1 / 0)
    answer = client.get("/v1/files")
    assert answer.status_code == 500
    assert_protected(answer)


def test_an_artifact_may_be_kept_by_its_owner(sqlite_service: Service) -> None:
    """It never changes; but no cache that others share may have it."""
    job_id = sqlite_service.job()
    sqlite_service.worker.finish(job_id, b"student")
    answer = sqlite_service.client.get(f"/v1/jobs/{job_id}/download")
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert answer.headers["content-security-policy"] == PROTECTED["content-security-policy"]


def test_a_broken_download_goes_on_only_with_the_same_bytes(sqlite_service: Service) -> None:
    """If-Range: a tag that is weak, another's, or a date answers with the whole."""
    job_id = sqlite_service.job()
    sqlite_service.worker.finish(job_id, b"student")
    path = f"/v1/jobs/{job_id}/download"
    tag = sqlite_service.client.head(path).headers["etag"]
    for if_range, status in (
        (tag, 206),
        (f"W/{tag}", 200),
        ('"other"', 200),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 200),
    ):
        headers = {"Range": "bytes=2-3", "If-Range": if_range}
        answer = sqlite_service.client.get(path, headers=headers)
        assert (answer.status_code, answer.content) == (status, b"ud" if status == 206 else b"student")
    headers = {"Range": "bytes=2-3", "If-None-Match": tag}
    assert sqlite_service.client.get(path, headers=headers).status_code == 304


def test_the_page_needs_nobody_but_this_server(sqlite_service: Service) -> None:
    """Its policy lets no script run that is written into a page, and every file it names is here."""
    page = sqlite_service.client.get("/docs")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "default-src 'none'" in policy
    names = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert len(names) == 3
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|https?:", page.text)
    for name in names:
        asset = sqlite_service.client.get(name)
        assert asset.status_code == 200
        assert asset.headers["content-type"].split(";")[0] in ("text/css", "text/javascript")
    assert "/openapi.json" in sqlite_service.client.get("/docs/start.js").text
