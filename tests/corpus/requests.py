"""Hostile HTTP requests, each the bytes of a whole connection, with the status and the code of its answer.

Status 0: the server may hang up without a word, for what is no HTTP at all.
"""

import json
from collections.abc import Iterator
from typing import Any

from tests.corpus.case import Case

JOB = {"teachers": ["tch_a"], "dataset": "dst_a", "steps": [{"method": "distill", "student": "student_net"}]}
JSON = "Content-Type: application/json\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
MAX_BODY_BYTES = 16 << 10
MAX_FILE_BYTES = 1 << 20
"""The limits that the service must have for these answers; small, so that they are reached quickly."""


def cases() -> Iterator[Case]:
    yield from _json_bodies()
    yield from _specs()
    yield from _parameters()
    yield from _targets()
    yield from _headers()
    yield from _framing()
    yield from _methods_and_versions()
    yield from _files_and_forms()


def _raw(name: str, content: bytes, status: int, code: str) -> Case:
    return Case(name, lambda: content, status, code)


def _request(
    name: str, line: str, status: int, code: str = "", *, headers: str = "", body: bytes | None = None
) -> Case:
    """`line` is method and target; a body brings its Content-Length."""
    length = "" if body is None else f"Content-Length: {len(body)}\r\n"
    head = f"{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}{length}\r\n"
    return _raw(name, head.encode("latin-1") + (body or b""), status, code)


def _post(
    name: str, body: bytes, status: int, code: str, path: str = "/v1/jobs", *, headers: str = ""
) -> Case:
    return _request(name, f"POST {path}", status, code, headers=JSON + headers, body=body)


def _job(**changes: Any) -> bytes:
    return json.dumps(JOB | changes).encode()


def _with_seed(text: str) -> bytes:
    return _job(seed=0).replace(b'"seed": 0', f'"seed": {text}'.encode())


def _with_name(escaped: str) -> bytes:
    return _job(name="x").replace(b'"name": "x"', f'"name": "{escaped}"'.encode())


def _json_bodies() -> Iterator[Case]:
    bad = 400, "INVALID_JSON"
    yield _post("NaN", _with_seed("NaN"), *bad)
    yield _post("Infinity", _with_seed("-Infinity"), *bad)
    yield _post("number beyond doubles", _with_seed("1e400"), *bad)
    yield _post("number beyond doubles, negative", _with_seed("-1e99999"), *bad)
    yield _post("exponent of 10,000 digits", _with_seed("1e" + "9" * 10_000), *bad)
    yield _post("2^63", _with_seed(str(2**63)), *bad)
    yield _post("2^53 + 1", _with_seed(str(2**53 + 1)), *bad)
    yield _post("integer of 10,000 digits", _with_seed("9" * 10_000), *bad)
    yield _post("fraction of 10,000 digits", _with_seed("0." + "9" * 10_000), 422, "INVALID_SPEC")
    yield _post("leading zero", _with_seed("01"), *bad)
    yield _post("hexadecimal", _with_seed("0x10"), *bad)
    yield _post("lone surrogate", _with_name("\\ud800"), *bad)
    yield _post("surrogates the wrong way round", _with_name("\\udc00\\ud800"), *bad)
    yield _post("lone surrogate in a key", b'{"\\udfff": 1}', *bad)
    yield _post("NUL in a key", b'{"a\\u0000": 1}', *bad)
    yield _post("NUL in a name", _with_name("a\\u0000b"), *bad)
    yield _post("NUL in a label", _job(labels={"a": "b\x00"}), *bad)
    yield _post("raw NUL", b'{"a": "\x00"}', *bad)
    yield _post("raw line break in a text", b'{"a": "\n"}', *bad)
    yield _post("a key twice", b'{"dataset": "dst_a", "dataset": "dst_b"}', *bad)
    yield _post("a key twice, once escaped", b'{"dataset": "dst_a", "d\\u0061taset": "dst_b"}', *bad)
    yield _post("a key twice, deep inside", _job(labels={}).replace(b"{}", b'{"a": "1", "a": "2"}'), *bad)
    yield _post("arrays 8,000 deep", b"[" * 8000 + b"]" * 8000, *bad)
    yield _post("arrays 8,000 deep and open", b"[" * 8000, *bad)
    yield _post("objects 40 deep", b'{"a":' * 40 + b"1" + b"}" * 40, *bad)
    yield _post("unclosed", b'{"teachers": [', *bad)
    yield _post("two documents", b"{}{}", *bad)
    yield _post("two lines of JSON", b"{}\n{}", *bad)
    yield _post("comment", b"{/* */}", *bad)
    yield _post("trailing comma", b'{"a": 1,}', *bad)
    yield _post("single quotes", b"{'a': 1}", *bad)
    yield _post("only spaces", b"   ", *bad)
    yield _post("not UTF-8", b'{"name": "\xff\xfe"}', *bad)
    yield _post("overlong UTF-8", b'{"name": "\xc0\x80"}', *bad)
    yield _post("UTF-8 of a surrogate", b'{"name": "\xed\xa0\x80"}', *bad)
    yield _post("UTF-16", '{"name": "x"}'.encode("utf-16"), *bad)
    yield _post("UTF-32", '{"name": "x"}'.encode("utf-32"), *bad)
    yield _post("byte order mark", b"\xef\xbb\xbf{}", *bad)
    yield _post("body over the limit", b'"' + b"x" * (17 << 10) + b'"', 413, "BODY_TOO_LARGE")
    chunks = b"4000\r\n" + b" " * 0x4000 + b"\r\n2\r\n{}\r\n0\r\n\r\n"
    over = _request("body over the limit in chunks", "POST /v1/jobs", 413, headers=JSON + CHUNKED)
    yield _raw(over.name, over.content + chunks, 413, "BODY_TOO_LARGE")
    yield _request(
        "form for JSON",
        "POST /v1/jobs",
        415,
        "JSON_EXPECTED",
        headers="Content-Type: application/x-www-form-urlencoded\r\n",
        body=b"a=1",
    )
    yield _request("no content type", "POST /v1/jobs", 415, "JSON_EXPECTED", body=b"{}")
    yield _request(
        "senseless content type",
        "POST /v1/jobs",
        415,
        "JSON_EXPECTED",
        headers="Content-Type: application/json/../x;;;=\r\n",
        body=b"{}",
    )


def _specs() -> Iterator[Case]:
    bad = 422, "INVALID_SPEC"
    yield _post("negative seed", _with_seed("-1"), *bad)
    yield _post("fractional seed", _with_seed("0.5"), *bad)
    yield _post("boolean for a number", _with_seed("true"), *bad)
    yield _post("text for a number", _with_seed('"0x7"'), *bad)
    yield _post("control character in a name", _with_name("a\\u0007b"), *bad)
    yield _post("name of 201", _job(name="n" * 201), *bad)
    yield _post("bad label key", _job(labels={"a b": "c"}), *bad)
    yield _post("33 labels", _job(labels={f"k{n}": "v" for n in range(33)}), *bad)
    yield _post("label that is no text", _job(labels={"a": {"b": "c"}}), *bad)
    yield _post("empty object", b"{}", *bad)
    yield _post("an array", b"[]", *bad)
    yield _post("a text", b'"x"', *bad)
    yield _post("null", b"null", *bad)
    yield _post("empty body", b"", *bad)
    yield _post("unknown field", _job(extra=1), *bad)
    yield _post("unknown field of 8,000", _job(**{"x" * 8000: 1}), *bad)
    yield _post("1,000 unknown fields", _job(**{f"x{n}": 1 for n in range(1000)}), *bad)
    yield _post("__proto__", _job(__proto__={"a": 1}), *bad)
    yield _post("teacher twice", _job(teachers=["tch_a", "tch_a"]), *bad)
    yield _post("17 teachers", _job(teachers=[f"tch_{n}" for n in range(17)]), *bad)
    yield _post("path as a teacher", _job(teachers=["../../etc/passwd"]), *bad)
    yield _post("line break after a teacher", _job(teachers=["tch_a\n"]), *bad)
    yield _post("SQL as a data set", _job(dataset="dst_' OR 1=1 --"), *bad)
    yield _post("33 steps", _job(steps=[{"method": "quantize"}] * 33), *bad)
    yield _post("no step", _job(steps=[]), *bad)
    yield _post("step without a method", _job(steps=[{}]), *bad)
    yield _post("method of a wrong type", _job(steps=[{"method": ["distill"]}]), *bad)
    yield _post("step that is no object", _job(steps=[1]), *bad)
    student = {"architecture": "student_net", "options": {"a": []}}
    yield _post("array in an option", _job(steps=[{"method": "distill", "student": student}]), *bad)
    student["options"] = {"abcdefghij"[n % 10] * (n // 10 + 1): n for n in range(200)}
    yield _post("200 options", _job(steps=[{"method": "distill", "student": student}]), *bad)
    yield _post("deadline of 1e308", _job(deadline_seconds=1e308), *bad)
    yield _post("both sources of a data set", b'{"file": "a", "folder": "b"}', *bad, "/v1/datasets")
    yield _post("folder that is a path", b'{"folder": "../etc"}', *bad, "/v1/datasets")
    yield _post("folder nobody registered", b'{"folder": "etc"}', *bad, "/v1/datasets")
    yield _post("file as a URL", b'{"file": "http://169.254.169.254/"}', *bad, "/v1/teachers")
    yield _post("file that is not there", b'{"file": "none.pt"}', *bad, "/v1/teachers")
    yield _post("one class", b'{"file": "a", "class_names": ["x"]}', *bad, "/v1/teachers")
    yield _post("architecture that is a number", b'{"file": "a", "architecture": 7}', *bad, "/v1/teachers")
    yield _post("file name with a slash", b'{"name": "a/b", "size_bytes": 1}', *bad, "/v1/uploads")
    yield _post("file name with a line break", b'{"name": "a\\n", "size_bytes": 1}', *bad, "/v1/uploads")
    yield _post("upload of no bytes", b'{"name": "a", "size_bytes": 0}', *bad, "/v1/uploads")
    yield _post("upload of 2^53", b'{"name": "a", "size_bytes": 9007199254740992}', *bad, "/v1/uploads")
    yield _post(
        "upload over the limit",
        b'{"name": "a", "size_bytes": 9007199254740991}',
        413,
        "FILE_TOO_LARGE",
        "/v1/uploads",
    )


def _parameters() -> Iterator[Case]:
    bad = 422, "INVALID_PARAMETER"
    token = 422, "INVALID_PARAMETER"
    yield _request("page of 0", "GET /v1/jobs?page_size=0", *bad)
    yield _request("page of -1", "GET /v1/jobs?page_size=-1", *bad)
    yield _request("page of 201", "GET /v1/jobs?page_size=201", *bad)
    yield _request("page of 2^70", f"GET /v1/jobs?page_size={2**70}", *bad)
    yield _request("page size that is none", "GET /v1/jobs?page_size=ten", *bad)
    yield _request("page size of 5,000 digits", "GET /v1/jobs?page_size=" + "9" * 5000, *bad)
    yield _request("token that is no base64", "GET /v1/jobs?page_token=%21%21", *token)
    yield _request("token of other JSON", "GET /v1/jobs?page_token=e30", *token)
    yield _request("token of NaN", "GET /v1/jobs?page_token=W05hTiwgIngiXQ", *token)
    yield _request("token with NUL", "GET /v1/jobs?page_token=WzEuMCwgIlx1MDAwMCJd", *token)
    yield _request("token with a surrogate", "GET /v1/jobs?page_token=WzEuMCwgIlx1ZDgwMCJd", *token)
    yield _request("token of a huge time", "GET /v1/jobs?page_token=WzFlOTksICJ4Il0", *token)
    yield _request("token of 501", "GET /v1/jobs?page_token=" + "A" * 501, *bad)
    yield _request("time that is none", "GET /v1/jobs?created_after=yesterday", *token)
    yield _request("time without an offset", "GET /v1/jobs?created_after=2026-01-01T00:00:00", *token)
    yield _request("time before year 1", "GET /v1/jobs?created_after=0001-01-01T00:00:00%2B23:59", 200, "")
    yield _request("label with a quote", "GET /v1/jobs?label.a%22b=c", *token)
    yield _request(
        "33 labels to filter by", "GET /v1/jobs?" + "&".join(f"label.k{n}=v" for n in range(33)), *token
    )
    yield _request(
        "700 labels to filter by", "GET /v1/jobs?" + "&".join(f"label.{n}=" for n in range(700)), *token
    )
    yield _request("event 2^31", f"GET /v1/jobs/job_a/events?after={2**31}", *bad)
    yield _request("event -1", "GET /v1/jobs/job_a/events?after=-1", *bad)
    yield _request(
        "last event that is none",
        "GET /v1/jobs/job_a/events",
        404,
        "NOT_FOUND",
        headers=f"Last-Event-ID: {'9' * 30}\r\n",
    )
    yield _request("wait of NaN", "GET /v1/jobs/job_a?wait=nan", *bad)
    yield _request("wait of 1e9", "GET /v1/jobs/job_a?wait=1e9", *bad)
    yield _request("wait without an end", "GET /v1/jobs/job_a?wait=Infinity", *bad)
    yield _request("job id of 1,000", "GET /v1/jobs/job_" + "a" * 1000, *bad)
    yield _request("job id with an umlaut", "GET /v1/jobs/job_%C3%BC", *bad)
    yield _request("job id with a line break", "GET /v1/jobs/job_a%0A", *bad)
    yield _request("classes 2^63", f"GET /v1/architectures/report/final?num_classes={2**63}", *bad)
    yield _request("option with a bang", "GET /v1/architectures/student_net?option.A!=9", *bad)
    yield _request(
        "500 options",
        "GET /v1/architectures/student_net?" + "&".join(f"option.{n}=" for n in range(500)),
        *token,
    )
    yield _request("unknown parameter", "GET /v1/jobs?sate=queued", 400, "UNKNOWN_PARAMETER")
    yield _request(
        "1,000 parameters",
        "GET /v1/jobs?" + "&".join(f"a{n}=1" for n in range(1000)),
        400,
        "UNKNOWN_PARAMETER",
    )
    yield _request("parameter twice", "GET /v1/jobs?state=queued&state=failed", *token)
    yield _request("PHP array", "GET /v1/jobs?state[]=queued", 400, "UNKNOWN_PARAMETER")
    yield _request(
        "range of nothing",
        "GET /v1/artifacts/art_a/content",
        404,
        headers="Range: bytes=9-1,,-\r\n",
        code="NOT_FOUND",
    )
    yield _post("idempotency key of 256", _job(), *bad, headers=f"Idempotency-Key: {'k' * 256}\r\n")
    yield _post("idempotency key with a space", _job(), *bad, headers="Idempotency-Key: a b\r\n")
    yield _post("validate_only of a wrong type", _job(), *bad, "/v1/jobs?validate_only=maybe")


def _targets() -> Iterator[Case]:
    bad = 400, "INVALID_TARGET"
    lost = 404, "NOT_FOUND"
    yield _request("NUL in a path", "GET /v1/files/a%00", *bad)
    yield _request("NUL in a value", "GET /v1/jobs?label.a=%00", *bad)
    yield _request("NUL in a parameter's name", "GET /v1/jobs?a%00=b", *bad)
    yield _request("path that is no UTF-8", "GET /v1/files/%ff%fe", *bad)
    yield _request("overlong path", "GET /v1/%c0%ae%c0%ae/", *bad)
    yield _request("surrogate in a value", "GET /v1/jobs?label.a=%ED%A0%80", *bad)
    yield _request("value that is no UTF-8", "GET /v1/jobs?label.a=%ff", *bad)
    yield _request("fragment", "GET /v1/jobs#a", *bad)
    yield _request("no slash", "GET v1/jobs", *bad)
    yield _request("another server", "GET http://evil.example/v1/nothing", *lost)
    yield _request("another scheme", "GET ftp://evil.example/v1/jobs", *bad)
    yield _request("escaped slash", "GET /v1/jobs/..%2f..%2fetc", *lost)
    yield _request("dots", "GET /v1/../../etc/passwd", *lost)
    yield _request("file outside of its folder", "GET /v1/files/..%2fx", *lost)
    yield _request("tool outside of its folder", "GET /v1/tools/..%2fload_artifact.py", *lost)
    yield _request("page outside of its folder", "GET /docs/..%2fcore.py", *lost)
    yield _request("page that is none", "GET /docs/core.py", 422, "INVALID_PARAMETER")
    yield _request("backslash", "GET /v1\\jobs", *lost)
    yield _request("double slash", "GET //v1/jobs", *lost)
    yield _request("slash at the end", "GET /v1/jobs/", *lost)
    yield _request("bad escape", "GET /v1/%zz%1", *lost)
    yield _request("path parameter", "GET /v1/jobs;a=b", *lost)
    yield _request("upper case", "GET /V1/JOBS", *lost)
    yield _request("path of 7,000", "GET /" + "a" * 7000, *lost)
    yield _request("path of 9,000", "GET /" + "a" * 9000, 414, "TARGET_TOO_LONG")
    yield _request("path of a megabyte", "GET /" + "a" * (1 << 20), 414, "TARGET_TOO_LONG")
    yield _request("raw bytes in a path", "GET /v1/files/\xc3\xbc", 400, "MALFORMED_REQUEST")
    yield _request("space in a path", "GET /v1/fi les", 400, "MALFORMED_REQUEST")


def _headers() -> Iterator[Case]:
    broken = 400, "MALFORMED_REQUEST"
    twofold = 400, "AMBIGUOUS_REQUEST"
    get = "GET /v1/jobs"
    yield _request("header without a name", get, *broken, headers=": y\r\n")
    yield _request("header with a space in its name", get, *broken, headers="A B: y\r\n")
    yield _request("header without a colon", get, *broken, headers="AAAA\r\n")
    yield _request("space before the colon", get, *broken, headers="A : y\r\n")
    yield _request("NUL in a header", get, *broken, headers="A: a\x00b\r\n")
    yield _request("CR in a header", get, *broken, headers="A: a\rb\r\n")
    yield _request("folded header", get, *twofold, headers="A: b\r\n c\r\n")
    yield _request("header that ends with LF alone", get, *twofold, headers="A: b\nB: c\r\n")
    yield _request("header of 20,000", get, 431, "HEAD_TOO_LARGE", headers=f"A: {'a' * 20_000}\r\n")
    yield _request("header of a megabyte", get, 431, "HEAD_TOO_LARGE", headers=f"A: {'a' * (1 << 20)}\r\n")
    yield _request("101 headers", get, 431, "HEAD_TOO_LARGE", headers="A: b\r\n" * 101)
    yield _request("10,000 headers", get, 431, "HEAD_TOO_LARGE", headers="A: b\r\n" * 10_000)
    yield _request("second host", get, *broken, headers="Host: evil\r\n")
    yield _raw("no host", b"GET /v1/jobs HTTP/1.1\r\n\r\n", *broken)
    host = b"GET /v1/nothing HTTP/1.1\r\nHost: [::1\r\nConnection: close\r\n\r\n"
    yield _raw("host that is none", host, 421, "WRONG_HOST")
    yield _request(
        "request id that is no ASCII", "GET /v1/nothing", 404, "NOT_FOUND", headers="X-Request-Id: \xff\r\n"
    )
    yield _request(
        "request id that forges a line",
        "GET /v1/nothing",
        404,
        "NOT_FOUND",
        headers="X-Request-Id: a\x0bb\r\n".replace("\x0b", "%0a"),
    )
    yield _request(
        "another method by a header",
        "GET /v1/jobs/job_a/cancel",
        405,
        "METHOD_NOT_ALLOWED",
        headers="X-HTTP-Method-Override: POST\r\n",
    )
    yield _request(
        "another path by a header",
        "GET /v1/nothing",
        404,
        "NOT_FOUND",
        headers="X-Original-URL: /v1/jobs\r\nX-Forwarded-Prefix: /v1\r\nForwarded: for=\x22_\r\n",
    )
    key = "Idempotency-Key: a\r\nIdempotency-Key: b\r\n"
    yield _post("two idempotency keys", _job(), 400, "DUPLICATE_HEADER", headers=key)
    yield _post("two content types", _job(), 400, "DUPLICATE_HEADER", headers="Content-Type: text/plain\r\n")
    yield _post("gzip", b"\x1f\x8b", 415, "ENCODING_NOT_ACCEPTED", headers="Content-Encoding: gzip\r\n")
    yield _request(
        "zstd of a file",
        "PUT /v1/files/a",
        415,
        "ENCODING_NOT_ACCEPTED",
        headers="Content-Encoding: zstd\r\n",
        body=b"x",
    )
    yield _post(
        "digest that is none", b"{}", 400, "INVALID_DIGEST", headers="Content-Digest: sha-256=:%%:\r\n"
    )
    other = f"Content-Digest: sha-256=:{'A' * 43}=:\r\n"
    yield _post("digest of other JSON", b"{}", 400, "DIGEST_MISMATCH", headers=other)


def _framing() -> Iterator[Case]:
    twofold = 400, "AMBIGUOUS_REQUEST"
    broken = 400, "MALFORMED_REQUEST"
    put = "PUT /v1/files/a"
    for name, headers, body, answer in (
        ("length and chunks", "Content-Length: 4\r\n" + CHUNKED, b"0\r\n\r\n", twofold),
        ("chunks and length", CHUNKED + "Content-Length: 5\r\n", b"0\r\n\r\n", twofold),
        ("same length twice", "Content-Length: 1\r\nContent-Length: 1\r\n", b"x", twofold),
        ("two lengths", "Content-Length: 1\r\nContent-Length: 2\r\n", b"xy", twofold),
        ("two lengths in one", "Content-Length: 1, 1\r\n", b"x", twofold),
        ("folded length", "Content-Length:\r\n 1\r\n", b"x", twofold),
        ("negative length", "Content-Length: -1\r\n", b"x", broken),
        ("length with a plus", "Content-Length: +1\r\n", b"x", broken),
        ("length with an underscore", "Content-Length: 1_0\r\n", b"x", broken),
        ("hexadecimal length", "Content-Length: 0x1\r\n", b"x", broken),
        ("empty length", "Content-Length: \r\n", b"x", broken),
        ("length of 30 digits", f"Content-Length: {'9' * 30}\r\n", b"x", broken),
        ("length of 20 digits", f"Content-Length: {'9' * 20}\r\n", b"x", (413, "FILE_TOO_LARGE")),
        ("gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n", broken),
        ("chunked twice", CHUNKED + CHUNKED, b"0\r\n\r\n", broken),
        ("xchunked", "Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n", broken),
        ("chunked after a vertical tab", "Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n", broken),
        ("chunk size that is none", CHUNKED, b"z\r\n", broken),
        ("negative chunk size", CHUNKED, b"-1\r\n", broken),
        ("chunk size with 0x", CHUNKED, b"0x1\r\nx\r\n0\r\n\r\n", broken),
        ("chunk size of 21 digits", CHUNKED, b"f" * 21 + b"\r\nx", broken),
        ("chunk longer than it says", CHUNKED, b"1\r\nxyz0\r\n\r\n", broken),
        ("chunk extension of a megabyte", CHUNKED, b"1;" + b"a" * (1 << 20), (431, "HEAD_TOO_LARGE")),
        ("trailer of a megabyte", CHUNKED, b"0\r\nA: " + b"a" * (1 << 20), (431, "HEAD_TOO_LARGE")),
        ("trailer that is none", CHUNKED, b"0\r\nA\r\n\r\n", broken),
    ):
        head = _request(name, put, *answer, headers=headers)
        yield _raw(name, head.content + body, *answer)


def _methods_and_versions() -> Iterator[Case]:
    wrong = 405, "METHOD_NOT_ALLOWED"
    host = b"Host: localhost\r\nConnection: close\r\n\r\n"
    for method in ("TRACE", "PATCH", "CONNECT", "OPTIONS", "PROPFIND", "get", "A" * 1000):
        yield _request(f"method {method[:9]}", f"{method} /v1/jobs", *wrong)
    yield _request("put on a list", "PUT /v1/jobs", *wrong, headers=JSON, body=b"{}")
    yield _request("method that is none", "G@T /v1/jobs", 400, "MALFORMED_REQUEST")
    yield _request("CONNECT as to a proxy", "CONNECT evil.example:80", 400, "INVALID_TARGET")
    yield _request("OPTIONS of the server", "OPTIONS *", 404, "NOT_FOUND")
    version = 400, "UNKNOWN_HTTP_VERSION"
    for number in (b"0.9", b"1.2", b"2.0", b"9.9"):
        name = f"HTTP/{number.decode()}"
        yield _raw(name, b"GET /v1/jobs HTTP/" + number + b"\r\n" + host, *version)
    yield _raw("preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", *version)
    yield _raw("HTTP/11.1", b"GET / HTTP/11.1\r\n" + host, 400, "MALFORMED_REQUEST")
    chunks = b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    yield _raw("chunks in HTTP/1.0", b"PUT /v1/files/a HTTP/1.0\r\n" + chunks, 400, "AMBIGUOUS_REQUEST")
    yield _raw("HTTP/0.9 as it was", b"GET /\r\n\r\n", 400, "MALFORMED_REQUEST")
    yield _raw("no HTTP", b"\x00\x01\x02\r\n\r\n", 400, "MALFORMED_REQUEST")
    yield _raw("TLS", bytes.fromhex("160301020001000001fc0303") + bytes(200), 400, "MALFORMED_REQUEST")
    yield _raw("line breaks only", b"\r\n" * 20_000, 400, "MALFORMED_REQUEST")
    ssh = b"SSH-2.0-OpenSSH_9.6\r\n"
    yield _raw("SSH", ssh + b"\r\n", 400, "MALFORMED_REQUEST")
    ordinary = b"GET /v1/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
    yield _raw("junk after a request", ordinary + b"\x00\x00junk\r\n\r\n", 404, "NOT_FOUND")
    socket = (
        "Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    )
    yield _request("websocket", "GET /v1/nothing", 404, "NOT_FOUND", headers=socket)


def _files_and_forms() -> Iterator[Case]:
    put = "PUT /v1/files/"
    bad = 422, "INVALID_PARAMETER"
    yield _request("file name of 201", put + "a" * 201, *bad, body=b"x")
    yield _request("file name with a dot first", put + ".bashrc", *bad, body=b"x")
    yield _request("file to store with a line break", put + "a%0A", *bad, body=b"x")
    yield _request("file name that is a device", put + "..", *bad, body=b"x")
    yield _request("file over the limit", put + "a", 413, "FILE_TOO_LARGE", body=bytes(MAX_FILE_BYTES + 1))
    wrong = "Content-Digest: sha-256=:%%%:\r\n"
    yield _request("file with no digest", put + "a", 400, "INVALID_DIGEST", headers=wrong, body=b"x")
    digest = f"Content-Digest: sha-256=:{'A' * 43}=:\r\n"
    yield _request("file of another digest", put + "a", 400, "DIGEST_MISMATCH", headers=digest, body=b"x")
    piece = "Content-Range: bytes 0-0/1\r\n"
    yield _request("unknown upload", "PUT /v1/uploads/upl_none", 404, "NOT_FOUND", headers=piece, body=b"x")
    broken = 400, "INVALID_FORM"
    yield _form("form without its boundary", b"x", *broken, content_type="multipart/form-data")
    yield _form("form that is none", b"x", *broken)
    yield _form("boundary of 300", b"x", *broken, content_type=f"multipart/form-data; boundary={'b' * 300}")
    yield _form(
        "form of another type", b"a=1", 415, "FORM_EXPECTED", content_type="application/x-www-form-urlencoded"
    )
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    yield _form("form that ends in its file", part + b"half of it", *broken)
    yield _form("form without an end", part + b"whole\r\n--b", *broken)
    spec = 422, "INVALID_SPEC"
    yield _form("form of nothing", b"--b--\r\n", *spec)
    field = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n'
    yield _form("field for a file", field, *spec)
    yield _form("two files", part + b"x\r\n" + part + b"y\r\n--b--\r\n", *spec)
    yield _form("1,000 parts", (part + b"x\r\n") * 1000 + b"--b--\r\n", *spec)
    yield _form("part without a name", b"--b\r\n\r\nx\r\n--b--\r\n", *spec)
    for name in (b"../evil", b"/etc/passwd", b"a\\b", b"a\x00b", b"", b"\xff", b"a" * 201):
        other = part.replace(b'"a"', b'"' + name + b'"') + b"x\r\n--b--\r\n"
        yield _form(f"form file {name[:12]!r}", other, 422, "INVALID_NAME")
    headers = part.replace(b"\r\n\r\n", b"\r\n" + b"A: b\r\n" * 100 + b"\r\n")
    yield _form("part with 100 headers", headers + b"x\r\n--b--\r\n", *broken)
    long = part.replace(b"\r\n\r\n", b"\r\nA: " + b"b" * 100_000 + b"\r\n\r\n")
    yield _form("part with a header of 100,000", long + b"x\r\n--b--\r\n", *broken)
    large = part + bytes(MAX_FILE_BYTES + 1) + b"\r\n--b--\r\n"
    yield _form("form file over the limit", large, 413, "FILE_TOO_LARGE")
    yield _form("form over the limit", bytes(MAX_FILE_BYTES + (1 << 20)), 413, "FILE_TOO_LARGE")


def _form(
    name: str, body: bytes, status: int, code: str, content_type: str = "multipart/form-data; boundary=b"
) -> Case:
    headers = f"Content-Type: {content_type}\r\n"
    return _request(name, "POST /v1/files", status, code, headers=headers, body=body)
