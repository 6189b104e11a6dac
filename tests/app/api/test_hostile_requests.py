"""What strangers send: each has the answer that the corpus says, a problem and never a 5xx, on both databases."""

import contextlib
import json
import socket
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from tests.app.conftest import Service
from tests.corpus.case import Case
from tests.corpus.requests import MAX_BODY_BYTES, MAX_FILE_BYTES, cases


def answer_to(content: bytes, port: int) -> tuple[int, dict[str, str], bytes]:
    """Send these bytes on a connection of their own; status, headers and body of the first answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        with contextlib.suppress(OSError):  # refused in the middle of it: the answer is there all the same
            line.sendall(content)
        answer = HTTPResponse(line)
        answer.begin()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def fault_of(case: Case, port: int) -> str | None:
    """What is wrong with the answer; None when it is as the case says."""
    try:
        status, headers, body = answer_to(case.content, port)
    except (OSError, HTTPException) as error:
        return f"{case.name}: no answer: {error!r}"
    if case.status == 200:
        return None if status == 200 else f"{case.name}: {status} {body[:200]!r}"
    problem: dict[str, Any] = json.loads(body or b"{}")
    found = (status, headers.get("content-type"), problem.get("status"), problem.get("code"))
    if found != (case.status, "application/problem+json", case.status, case.code):
        return f"{case.name}: {found}, not {case.status} {case.code}: {body[:300]!r}"
    missing = {"x-request-id", "x-content-type-options", "content-security-policy"} - headers.keys()
    return f"{case.name}: without {missing}" if missing else None


def test_every_hostile_request_is_answered_as_expected(service: Service) -> None:
    """Afterwards the service answers as before, and nothing that was refused has been stored."""
    assert (service.settings.max_body_bytes, service.settings.max_file_bytes) == (
        MAX_BODY_BYTES,
        MAX_FILE_BYTES,
    )
    before = objects(service)
    corpus = list(cases())
    faults = [fault for case in corpus if (fault := fault_of(case, service.port))]
    assert faults == []
    assert len(corpus) == len({case.name for case in corpus}) >= 200
    for kind in ("files", "teachers", "datasets", "jobs"):
        assert service.client.get(f"/v1/{kind}").json()["items"] == []
    assert objects(service) == before


def objects(service: Service) -> set[Path]:
    """What is in the storage, complete or not."""
    folder = service.settings.resolved_data_dir / "objects"
    return {path for path in folder.rglob("*") if path.is_file()}
