"""Uploads that go on after a break."""

import base64
import hashlib
import socket
import time

import httpx

from app.db import transaction
from app.storage import leftovers
from app.storage.uploads import Parts
from app.tables import Upload
from tests.app.conftest import Service

CONTENT = bytes(range(100))


def begin(service: Service, **spec: object) -> str:
    answer = service.client.post("/v1/uploads", json={"name": "f.bin", "size_bytes": 100, **spec})
    assert answer.status_code == 201
    location: str = answer.headers["location"]
    return location


def put(service: Service, path: str, first: int, last: int, **headers: str) -> httpx.Response:
    """What `curl -C FIRST -T FILE` sends."""
    ranged = {"Content-Range": f"bytes {first}-{last}/100", **headers}
    return service.client.put(path, content=CONTENT[first : last + 1], headers=ranged)


def offset(service: Service, path: str) -> int:
    return int(service.client.head(path).headers["upload-offset"])


def test_pieces_become_the_file(service: Service) -> None:
    """204 with the offset after a piece, 201 with the file after the last."""
    path = begin(service, sha256=hashlib.sha256(CONTENT).hexdigest())
    assert offset(service, path) == 0
    part = put(service, path, 0, 39)
    assert (part.status_code, part.headers["upload-offset"]) == (204, "40")
    assert offset(service, path) == 40
    last = put(service, path, 40, 99)
    assert last.status_code == 201
    assert last.json() == service.client.get("/v1/files/f.bin").json()
    assert last.json()["sha256"] == hashlib.sha256(CONTENT).hexdigest()


def test_a_lost_last_answer_is_found_again(sqlite_service: Service) -> None:
    """The client that did not hear "complete" asks for the offset, and learns it."""
    path = begin(sqlite_service)
    assert sqlite_service.client.put(path, content=CONTENT).status_code == 201
    assert offset(sqlite_service, path) == 100
    assert sqlite_service.client.get(path).json()["file"]["name"] == "f.bin"
    again = sqlite_service.client.put(path, content=CONTENT)
    assert (again.status_code, again.headers["upload-offset"]) == (409, "100")


def test_a_process_that_died_before_the_end_is_made_good(sqlite_service: Service) -> None:
    """All bytes were here, but not yet named: looking finishes it."""
    path = begin(sqlite_service)
    Parts(sqlite_service.settings.resolved_data_dir).path(path.split("/")[-1]).write_bytes(CONTENT)
    assert sqlite_service.client.get(path).json()["file"]["size_bytes"] == 100
    assert sqlite_service.client.get("/v1/files/f.bin").status_code == 200


def test_a_wrong_offset_is_told_the_right_one(sqlite_service: Service) -> None:
    """409 with Upload-Offset, and nothing is written."""
    path = begin(sqlite_service)
    put(sqlite_service, path, 0, 39)
    for first in (0, 39, 41):
        answer = put(sqlite_service, path, first, 60)
        assert (answer.status_code, answer.headers["upload-offset"]) == (409, "40")
    assert offset(sqlite_service, path) == 40


def test_a_broken_line_loses_nothing_that_arrived(sqlite_service: Service) -> None:
    """The client hangs up after 30 of 100 bytes; the upload goes on at 30."""
    path = begin(sqlite_service)
    with socket.create_connection(("127.0.0.1", sqlite_service.port)) as line:
        line.sendall(
            f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n".encode() + CONTENT[:30]
        )
        time.sleep(0.2)
    give_up = time.monotonic() + 5
    while offset(sqlite_service, path) != 30 and time.monotonic() < give_up:
        time.sleep(0.02)
    assert offset(sqlite_service, path) == 30
    assert put(sqlite_service, path, 30, 99).status_code == 201


def test_two_writers_do_not_mix_their_bytes(sqlite_service: Service) -> None:
    """While one request appends, another is refused at once."""
    path = begin(sqlite_service)
    with Parts(sqlite_service.settings.resolved_data_dir).append(path.split("/")[-1]):
        answer = put(sqlite_service, path, 0, 39)
    assert (answer.status_code, answer.json()["code"]) == (409, "UPLOAD_BUSY")
    assert put(sqlite_service, path, 0, 39).status_code == 204


def test_damaged_bytes_are_dropped(sqlite_service: Service) -> None:
    """A piece with a wrong Content-Digest is taken back; a whole with the wrong sha256 begins again."""
    path = begin(sqlite_service, sha256="0" * 64)
    put(sqlite_service, path, 0, 39)
    digest = base64.b64encode(hashlib.sha256(b"others").digest()).decode()
    piece = put(sqlite_service, path, 40, 59, **{"Content-Digest": f"sha-256=:{digest}:"})
    assert (piece.status_code, piece.json()["code"]) == (400, "DIGEST_MISMATCH")
    assert offset(sqlite_service, path) == 40
    whole = put(sqlite_service, path, 40, 99)
    assert (whole.status_code, whole.json()["code"]) == (400, "DIGEST_MISMATCH")
    assert offset(sqlite_service, path) == 0
    assert sqlite_service.client.get("/v1/files/f.bin").status_code == 404


def test_ranges_that_cannot_be_are_refused(sqlite_service: Service) -> None:
    """Other totals, lengths that differ from the range, and what is no range."""
    path = begin(sqlite_service)
    for header in (
        "bytes 0-39/99",
        "bytes 0-38/100",
        "bytes 39-0/100",
        "bytes 60-100/100",
        "lines 1-2/3",
        "x",
    ):
        answer = sqlite_service.client.put(path, content=CONTENT[:40], headers={"Content-Range": header})
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_RANGE"), header
    assert sqlite_service.client.put(path, content=iter([CONTENT, b"more"])).json()["code"] == "BODY_TOO_LONG"


def test_an_upload_that_is_given_up_or_expires_is_gone(service: Service) -> None:
    """Its bytes too; those of an expired one with the next collection."""
    parts = Parts(service.settings.resolved_data_dir)
    given_up, expired = begin(service), begin(service)
    assert service.client.delete(given_up).status_code == 204
    with transaction() as session:
        upload = session.get(Upload, expired.split("/")[-1])
        assert upload is not None
        upload.expires_at = 1.0
    for path in (given_up, expired):
        assert service.client.get(path).status_code == 404
    assert parts.offset(given_up.split("/")[-1]) is None
    list(leftovers.uploads(service.settings, dry_run=False))
    assert parts.offset(expired.split("/")[-1]) is None


def test_an_upload_over_the_limit_is_refused_at_its_beginning(sqlite_service: Service) -> None:
    """Before any byte is sent."""
    answer = sqlite_service.client.post("/v1/uploads", json={"name": "f", "size_bytes": 2 << 20})
    assert (answer.status_code, answer.json()["code"]) == (413, "FILE_TOO_LARGE")
