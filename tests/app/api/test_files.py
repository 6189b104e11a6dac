"""Uploads in one request."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.conftest import Service


def test_put_stores_the_body_under_its_digest(service: Service) -> None:
    """201 for a new name, 200 for the same or other content under it."""
    first = service.client.put("/v1/files/teacher.pt", content=b"one")
    assert first.status_code == 201
    assert first.headers["location"] == "/v1/files/teacher.pt"
    assert first.json()["sha256"] == hashlib.sha256(b"one").hexdigest()
    again = service.client.put("/v1/files/teacher.pt", content=b"one")
    assert (again.status_code, again.json()["updated_at"]) == (200, first.json()["updated_at"])
    other = service.client.put("/v1/files/teacher.pt", content=b"other")
    assert (other.status_code, other.json()["size_bytes"]) == (200, 5)
    assert other.json() == service.client.get("/v1/files/teacher.pt").json()
    assert service.worker.storage.path(hashlib.sha256(b"other").hexdigest()).read_bytes() == b"other"


def test_a_form_is_stored_under_its_file_name(sqlite_service: Service) -> None:
    """What curl -F sends; names that could be paths are refused."""
    client = sqlite_service.client
    assert client.post("/v1/files", files={"file": ("photos.zip", b"zip")}).status_code == 201
    assert client.get("/v1/files/photos.zip").json()["size_bytes"] == 3
    answer = client.post("/v1/files", files={"file": ("../evil", b"x")})
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_NAME")


def test_a_promised_digest_is_checked(sqlite_service: Service) -> None:
    """Content-Digest of other bytes: 400, and the file keeps what it had."""
    client = sqlite_service.client
    sqlite_service.upload("a.bin", b"good")
    digest = base64.b64encode(hashlib.sha256(b"sent").digest()).decode()
    headers = {"Content-Digest": f"sha-512=:AA==:, sha-256=:{digest}:"}
    assert client.put("/v1/files/b.bin", content=b"sent", headers=headers).status_code == 201
    damaged = client.put("/v1/files/a.bin", content=b"sant", headers=headers)
    assert (damaged.status_code, damaged.json()["code"]) == (400, "DIGEST_MISMATCH")
    assert client.get("/v1/files/a.bin").json()["sha256"] == hashlib.sha256(b"good").hexdigest()
    senseless = client.put("/v1/files/a.bin", content=b"x", headers={"Content-Digest": "sha-256=:AA==:"})
    assert (senseless.status_code, senseless.json()["code"]) == (400, "INVALID_DIGEST")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_over_the_limit_is_refused(sqlite_service: Service, chunked: bool) -> None:
    """By its declared length at once, or, without one, when the limit is passed; nothing is left behind."""
    size = sqlite_service.settings.max_file_bytes + 1
    before = _stored(sqlite_service.settings.resolved_data_dir)

    def pieces() -> Iterator[bytes]:
        yield b"x" * (size - 1)
        yield b"x"

    answer = sqlite_service.client.put("/v1/files/big", content=pieces() if chunked else b"x" * size)
    assert (answer.status_code, answer.json()["code"]) == (413, "FILE_TOO_LARGE")
    assert _stored(sqlite_service.settings.resolved_data_dir) == before


def test_a_form_over_the_limit_is_refused_before_it_is_read_to_its_end(sqlite_service: Service) -> None:
    """The form parser would spool any amount to disk."""
    size = sqlite_service.settings.max_file_bytes + (1 << 20)
    answer = sqlite_service.client.post("/v1/files", files={"file": ("big", b"x" * size)})
    assert (answer.status_code, answer.json()["code"]) == (413, "FILE_TOO_LARGE")


def _stored(data_dir: Path) -> list[Path]:
    return [path for path in data_dir.rglob("*") if path.is_file() and "objects" in path.parts]


def test_files_are_listed_newest_first_in_pages(service: Service) -> None:
    """Pages by keyset: every file once, whatever is uploaded in between."""
    for name in ("a", "b", "c"):
        service.upload(name)
    first = service.client.get("/v1/files?page_size=2").json()
    assert [file["name"] for file in first["items"]] == ["c", "b"]
    service.upload("d")
    rest = service.client.get(
        "/v1/files", params={"page_size": 2, "page_token": first["next_page_token"]}
    ).json()
    assert [file["name"] for file in rest["items"]] == ["a"]
    assert rest["next_page_token"] is None


def test_a_deleted_file_is_gone(service: Service) -> None:
    """204, then 404."""
    service.upload("a")
    assert service.client.delete("/v1/files/a").status_code == 204
    assert service.client.get("/v1/files/a").status_code == 404
    assert service.client.delete("/v1/files/a").status_code == 404
