"""What strangers send: every probe is answered with a problem of 4xx, never with 5xx, on both databases."""

import json
import socket
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.app.conftest import Service

JSON = {"Content-Type": "application/json"}
JOB = {"teachers": ["tch_a"], "dataset": "dst_a", "steps": [{"method": "distill", "student": "student_net"}]}


def job(**changes: Any) -> bytes:
    return json.dumps(JOB | changes).encode()


def with_seed(text: str) -> bytes:
    return job(seed=0).replace(b'"seed": 0', f'"seed": {text}'.encode())


def with_name(escaped: str) -> bytes:
    return job(name="x").replace(b'"name": "x"', f'"name": "{escaped}"'.encode())


@dataclass
class Probe:
    name: str
    method: str
    path: str
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def post(name: str, body: bytes, status: int, path: str = "/v1/jobs", **headers: str) -> Probe:
    return Probe(
        name, "POST", path, status, body, JSON | {k.replace("_", "-"): v for k, v in headers.items()}
    )


def get(name: str, path: str, status: int, **headers: str) -> Probe:
    return Probe(name, "GET", path, status, headers={k.replace("_", "-"): v for k, v in headers.items()})


def put(name: str, path: str, status: int, body: bytes = b"x", **headers: str) -> Probe:
    return Probe(name, "PUT", path, status, body, {k.replace("_", "-"): v for k, v in headers.items()})


PROBES = [
    post("NaN", with_seed("NaN"), 400),
    post("Infinity", with_seed("-Infinity"), 400),
    post("number beyond doubles", with_seed("1e400"), 400),
    post("2^63", with_seed(str(2**63)), 400),
    post("million digits", with_seed("9" * 10_000), 400),
    post("negative seed", with_seed("-1"), 422),
    post("fractional seed", with_seed("0.5"), 422),
    post("boolean for a number", with_seed("true"), 422),
    post("lone surrogate", with_name("\\ud800"), 400),
    post("lone surrogate in a key", b'{"\\udfff": 1}', 400),
    post("NUL in a name", with_name("a\\u0000b"), 400),
    post("control character in a name", with_name("a\\u0007b"), 422),
    post("NUL in a label", job(labels={"a": "b\x00"}), 400),
    post("bad label key", job(labels={"a b": "c"}), 422),
    post("raw NUL", b'{"a": "\x00"}', 400),
    post("duplicate key", b'{"dataset": "dst_a", "dataset": "dst_b"}', 400),
    post("arrays 10,000 deep", b"[" * 8000 + b"]" * 8000, 400),
    post("objects 40 deep", b'{"a":' * 40 + b"1" + b"}" * 40, 400),
    post("unclosed", b'{"teachers": [', 400),
    post("two documents", b"{}{}", 400),
    post("empty object", b"{}", 422),
    post("an array", b"[]", 422),
    post("a string", b'"x"', 422),
    post("null", b"null", 422),
    post("no body", b"", 422),
    post("not UTF-8", b'{"name": "\xff\xfe"}', 400),
    post("UTF-16", '{"name": "x"}'.encode("utf-16"), 400),
    post("BOM", b"\xef\xbb\xbf{}", 400),
    post("body over the limit", b'"' + b"x" * (17 << 10) + b'"', 413),
    post("form instead of JSON", b"a=1", 415, Content_Type="application/x-www-form-urlencoded"),
    post("no content type", b"{}", 415, Content_Type=""),
    post("senseless content type", b"{}", 415, Content_Type="application/json/../x;;;=\x7f"),
    post("unknown field", job(extra=1), 422),
    post("teacher twice", job(teachers=["tch_a", "tch_a"]), 422),
    post("17 teachers", job(teachers=[f"tch_{n}" for n in range(17)]), 422),
    post("path as a teacher", job(teachers=["../../etc/passwd"]), 422),
    post("SQL as a data set", job(dataset="dst_' OR 1=1 --"), 422),
    post("33 steps", job(steps=[{"method": "quantize"}] * 33), 422),
    post("no step", job(steps=[]), 422),
    post("step without a method", job(steps=[{}]), 422),
    post("method of a wrong type", job(steps=[{"method": ["distill"]}]), 422),
    post("step that is no object", job(steps=[1]), 422),
    post(
        "unhashable in an option", job(steps=[{"method": "distill", "student": {"options": {"a": []}}}]), 422
    ),
    post("idempotency key of 256", job(), 422, Idempotency_Key="k" * 256),
    post("idempotency key with spaces", job(), 422, Idempotency_Key="a b"),
    post("validate_only of a wrong type", job(), 422, "/v1/jobs?validate_only=maybe"),
    post("name of a file with a slash", b'{"name": "a/b", "size_bytes": 1}', 422, "/v1/uploads"),
    post("name of a file with a newline", b'{"name": "a\\n", "size_bytes": 1}', 422, "/v1/uploads"),
    post("upload of no bytes", b'{"name": "a", "size_bytes": 0}', 422, "/v1/uploads"),
    post("upload of 2^53 bytes", b'{"name": "a", "size_bytes": 9007199254740992}', 422, "/v1/uploads"),
    post("upload of 2^53 - 1 bytes", b'{"name": "a", "size_bytes": 9007199254740991}', 413, "/v1/uploads"),
    post("form without its boundary", b"x", 400, "/v1/files", Content_Type="multipart/form-data"),
    post("form that is none", b"x", 400, "/v1/files", Content_Type="multipart/form-data; boundary=y"),
    post("form without a file", b"a=1", 422, "/v1/files", Content_Type="application/x-www-form-urlencoded"),
    post("both sources of a data set", b'{"file": "a", "folder": "b"}', 422, "/v1/datasets"),
    post("teacher of 1 class", b'{"file": "a", "class_names": ["x"]}', 422, "/v1/teachers"),
    post("architecture that is a number", b'{"file": "a", "architecture": 7}', 422, "/v1/teachers"),
    get("page of 0", "/v1/jobs?page_size=0", 422),
    get("page of -1", "/v1/jobs?page_size=-1", 422),
    get("page of 201", "/v1/jobs?page_size=201", 422),
    get("page of 2^70", f"/v1/jobs?page_size={2**70}", 422),
    get("page size that is none", "/v1/jobs?page_size=ten", 422),
    get("token that is no base64", "/v1/jobs?page_token=%21%21", 400),
    get("token of other JSON", "/v1/jobs?page_token=e30", 400),
    get("token of NaN", "/v1/jobs?page_token=W05hTiwgIngiXQ", 400),
    get("token with NUL", "/v1/jobs?page_token=WzEuMCwgIlx1MDAwMCJd", 400),
    get("token with a surrogate", "/v1/jobs?page_token=WzEuMCwgIlx1ZDgwMCJd", 400),
    get("token of a huge time", "/v1/jobs?page_token=WzFlOTksICJ4Il0", 400),
    get("token of 501", "/v1/jobs?page_token=" + "A" * 501, 422),
    get("time that is none", "/v1/jobs?created_after=yesterday", 400),
    get("time without an offset", "/v1/jobs?created_after=2026-01-01T00:00:00", 400),
    get("time of year 1", "/v1/jobs?created_after=0001-01-01T00:00:00%2B23:59", 200),
    get("label with a quote", "/v1/jobs?label.a%22b=c", 400),
    get("label of NUL", "/v1/jobs?label.a=%00", 400),
    get("label of half a surrogate pair", "/v1/jobs?label.a=%ED%A0%80", 200),
    get("event 2^31", f"/v1/jobs/job_a/events?after={2**31}", 422),
    get("event -1", "/v1/jobs/job_a/events?after=-1", 422),
    get("last event that is none", "/v1/jobs/job_a/events", 404, Last_Event_ID="9" * 30),
    get("wait of NaN", "/v1/jobs/job_a?wait=nan", 422),
    get("wait of 1e9", "/v1/jobs/job_a?wait=1e9", 422),
    get("job id with NUL", "/v1/jobs/job_%00", 422),
    get("job id with a path", "/v1/jobs/..%2f..%2fetc", 404),
    get("job id with an umlaut", "/v1/jobs/job_%C3%BC", 422),
    get("job id of 1,000", "/v1/jobs/job_" + "a" * 1000, 422),
    get("file with NUL", "/v1/files/a%00", 422),
    get("file outside of its folder", "/v1/files/..%2fx", 404),
    get("tool outside of its folder", "/v1/tools/..%2fload_artifact.py", 404),
    get("architecture with NUL", "/v1/architectures/a%00b", 404),
    get("classes 2^63", f"/v1/architectures/report/final?num_classes={2**63}", 422),
    get("range of an unknown artifact", "/v1/artifacts/art_a/content", 404, Range="bytes=9-1,,-"),
    put("file name of 201", "/v1/files/" + "a" * 201, 422),
    put("file name that begins with a dot", "/v1/files/.bashrc", 422),
    put("digest that is none", "/v1/files/a", 400, Content_Digest="sha-256=:%%%:"),
    put("unknown upload", "/v1/uploads/upl_none", 404, Content_Range="bytes 0-0/1"),
    put("job that is put", "/v1/jobs", 405, b"{}", **JSON),
]


def test_no_probe_is_answered_with_5xx(service: Service) -> None:
    """Each has its exact status and, when it is an error, a problem with a code."""
    wrong = []
    for probe in PROBES:
        answer = service.client.request(probe.method, probe.path, content=probe.body, headers=probe.headers)
        problem = answer.headers["content-type"] == "application/problem+json"
        fits = answer.status_code == probe.status and (problem or answer.status_code == 200)
        if not fits or (problem and answer.json()["status"] != probe.status):
            wrong.append(f"{probe.name}: {answer.status_code} {answer.text[:200]}")
    assert wrong == []
    assert len(PROBES) == len({probe.name for probe in PROBES}) >= 40


RAW = {
    "no request": b"\x00\x01\x02\r\n\r\n",
    "header without a name": b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
    "negative length": b"PUT /v1/files/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "length twice": b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "bad chunk size": b"PUT /v1/files/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
    "header of 1 MB": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * (1 << 20) + b"\r\n\r\n",
    "path that is no UTF-8": b"GET /v1/files/%ff%fe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "query that is no UTF-8": b"GET /v1/jobs?label.a=%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "header that is no ASCII": b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Request-Id: \xff\r\n\r\n",
}


@pytest.mark.parametrize("name", RAW)
def test_no_broken_request_is_answered_with_5xx(sqlite_service: Service, name: str) -> None:
    """Bytes that no client library would send; afterwards the service answers as before."""
    with socket.create_connection(("127.0.0.1", sqlite_service.port), timeout=10) as line:
        try:
            line.sendall(RAW[name])
            line.shutdown(socket.SHUT_WR)
            first = line.recv(12)
        except OSError:  # the server hung up in the middle of it
            first = b""
    assert first == b"" or first[9:10] in (b"2", b"4"), first
    assert sqlite_service.client.get("/healthz").status_code == 200
