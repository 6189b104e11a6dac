"""Who gets in: keys, scopes, revocation, the keyless door, rate limits."""

import logging
import re
import socket
import time
from collections.abc import Callable

import anyio
import httpx
import pytest
from sqlalchemy import select, update
from starlette.types import Message

from app.access import keys
from app.api import access, keyring
from app.api.access import Access
from app.api.buckets import Buckets
from app.db import reading, transaction
from app.errors import Problem
from app.settings import Settings
from app.tables import ApiKey
from tests.app.conftest import Service

OPEN = ("/", "/healthz", "/readyz", "/openapi.json", "/docs", "/v1/tools/load_artifact.py")


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_once_there_is_a_key_nothing_opens_without_one(service: Service) -> None:
    """401 with the challenge, for every path but the public ones; what is there shows to nobody."""
    key = service.key_of("acme", "read")
    for path in OPEN:
        assert service.client.get(path).status_code == 200
    for path in ("/v1/jobs", "/v1/files/a.pt", "/v1/nothing", "/v1/tools/a/b", "/docs/a/b"):
        answer = service.client.get(path)
        assert code(answer) == (401, "UNAUTHENTICATED"), path
        assert answer.headers["www-authenticate"] == 'Bearer realm="fewbytes"'
    assert service.with_key(key).get("/v1/jobs").status_code == 200


def test_what_is_no_key_is_refused(sqlite_service: Service) -> None:
    key = sqlite_service.key_of("acme")
    none = "fb_" + "0" * 32
    for sent in (
        "Bearer",
        "Bearer fb_",
        "Basic YTpi",
        key,
        f"Bearer {key}x",
        f"Bearer {none}",
        f"Bearer {key}, {key}",
    ):
        answer = sqlite_service.client.get("/v1/jobs", headers={"Authorization": sent})
        assert code(answer) == (401, "UNAUTHENTICATED"), sent
        assert answer.headers["www-authenticate"].startswith('Bearer realm="fewbytes", error="invalid_')
        assert key not in answer.text


def test_a_key_counts_in_its_header_alone(sqlite_service: Service) -> None:
    """A URL ends up in logs and histories."""
    key = sqlite_service.key_of("acme")
    for query in (f"?key={key}", f"?access_token={key}", f"?api_key={key}"):
        assert code(sqlite_service.client.get(f"/v1/jobs{query}")) == (401, "UNAUTHENTICATED")
    lower = {"Authorization": f"bearer  {key}"}
    assert sqlite_service.client.get("/v1/jobs", headers=lower).status_code == 200


def test_a_body_is_not_waited_for_from_somebody_who_may_not_send_it(sqlite_service: Service) -> None:
    """The answer comes before the body does, and nobody is asked to send it."""
    reader = sqlite_service.key_of("acme", "read")
    for authorization, status in (("", b"401"), (f"Authorization: Bearer {reader}\r\n", b"403")):
        head = f"PUT /v1/files/big HTTP/1.1\r\nHost: x\r\n{authorization}Content-Length: 500000\r\n"
        with socket.create_connection(("127.0.0.1", sqlite_service.port), timeout=5) as line:
            line.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            assert line.recv(100).startswith(b"HTTP/1.1 " + status)


_READS = {"GET /v1/jobs", "HEAD /v1/jobs", "GET /v1/usage"}
_CHANGES = {"PUT /v1/files/a", "DELETE /v1/files/a", "POST /v1/jobs", "PATCH /v1/jobs"}
_ADMINISTERS = {"GET /v1/keys", "GET /v1/audit", "POST /v1/keys", "DELETE /v1/keys/key_0"}
MAY: dict[keys.Scope, set[str]] = {
    "read": _READS,
    "write": _READS | _CHANGES,
    "admin": _READS | _CHANGES | _ADMINISTERS,
}


def test_a_scope_may_what_it_says(sqlite_service: Service) -> None:
    """What it may not is 403; what it may is whatever else the request deserves."""
    for scope, may in MAY.items():
        client = sqlite_service.with_key(sqlite_service.key_of("acme", scope))
        for request in sorted(MAY["admin"]):
            method, path = request.split()
            answer = client.request(method, path)
            assert (answer.status_code == 403) == (request not in may), (scope, request)
            if answer.status_code == 403:
                assert code(answer) == (403, "FORBIDDEN_SCOPE")
                assert scope in answer.json()["detail"]


def test_the_first_key_is_not_made_over_http(sqlite_service: Service) -> None:
    """Anybody on this machine would lock all others out."""
    body = {"name": "mine", "scope": "admin"}
    assert code(sqlite_service.client.post("/v1/keys", json=body)) == (409, "FIRST_KEY")
    assert sqlite_service.client.get("/v1/keys").json()["items"] == []


def test_a_key_made_over_http_is_shown_once_and_opens_the_door(service: Service) -> None:
    admin = service.as_tenant("acme").client
    made = admin.post("/v1/keys", json={"name": "mine", "scope": "admin"})
    assert made.status_code == 201
    secret = made.json()["secret"]
    assert re.fullmatch(r"fb_[0-9a-z]{32}", secret)
    client = service.with_key(secret)
    listed, _ = client.get("/v1/keys").json()["items"]
    assert listed == {name: value for name, value in made.json().items() if name != "secret"} | {
        "last_used_at": listed["last_used_at"]
    }
    assert secret.startswith(listed["prefix"])
    assert len(secret) - len(listed["prefix"]) >= 26  # 5 bits each: 130 stay unknown
    with reading() as session:
        rows = session.scalars(select(ApiKey)).all()
    assert secret not in repr([vars(row) for row in rows])


def test_a_revoked_key_opens_nothing_at_once_and_the_last_ones_end_opens_no_door(service: Service) -> None:
    admin, other = service.as_tenant("acme"), service.as_tenant("acme", "read")
    ids = {key["name"]: key["id"] for key in admin.client.get("/v1/keys").json()["items"]}
    assert other.client.get("/v1/jobs").status_code == 200
    assert admin.client.delete(f"/v1/keys/{ids['acme read']}").status_code == 204
    assert code(other.client.get("/v1/jobs")) == (401, "UNAUTHENTICATED")
    assert admin.client.delete(f"/v1/keys/{ids['acme read']}").status_code == 204
    assert admin.client.delete(f"/v1/keys/{ids['acme admin']}").status_code == 204
    for client in (admin.client, service.client):
        assert code(client.get("/v1/jobs")) == (401, "UNAUTHENTICATED")


def test_a_key_revoked_elsewhere_opens_nothing_after_some_seconds(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process's revocation is a row that changes; here it is believed when the remembered is too old."""
    monkeypatch.setattr(keyring, "REMEMBERED_SECONDS", 0.3)
    client = sqlite_service.as_tenant("acme").client
    assert client.get("/v1/jobs").status_code == 200
    with transaction() as session:
        session.execute(update(ApiKey).values(revoked_at=1.0))
    time.sleep(0.35)
    assert code(client.get("/v1/jobs")) == (401, "UNAUTHENTICATED")
    assert keyring.REMEMBERED_SECONDS <= 5


def test_an_expired_key_opens_nothing(sqlite_service: Service) -> None:
    """From the second on, also while it is remembered."""
    client = sqlite_service.with_key(sqlite_service.key_of("acme", days=1 / 86_400))
    assert client.get("/v1/jobs").status_code == 200
    time.sleep(1.1)
    assert code(client.get("/v1/jobs")) == (401, "UNAUTHENTICATED")


def test_the_last_use_is_written_at_most_once_a_minute(sqlite_service: Service) -> None:
    key = sqlite_service.key_of("acme")
    ring = keyring.Keyring()
    assert ring.look_up(key) is not None
    first = last_use()
    assert first is not None
    assert ring.look_up(key) is not None
    assert last_use() == first
    with transaction() as session:
        session.execute(update(ApiKey).values(last_used_at=first - 61))
    assert ring.look_up(key) is not None
    assert (last_use() or 0) >= first


def last_use() -> float | None:
    with reading() as session:
        return session.scalars(select(ApiKey.last_used_at)).one()


def test_what_is_denied_is_logged_without_the_key(
    sqlite_service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    key = sqlite_service.key_of("acme", "read")
    with caplog.at_level(logging.DEBUG):
        sqlite_service.client.get("/v1/jobs", headers={"X-Request-Id": "one"})
        sqlite_service.with_key(key + "0").get("/v1/jobs")
        sqlite_service.with_key(key).put("/v1/files/a", content=b"", headers={"X-Request-Id": "two"})
    denied = [vars(record) for record in caplog.records if record.message == "denied"]
    codes = ["UNAUTHENTICATED", "UNAUTHENTICATED", "FORBIDDEN_SCOPE"]
    assert [entry["code"] for entry in denied] == codes
    assert (denied[0]["request_id"], denied[2]["request_id"]) == ("one", "two")
    assert key not in repr([vars(record) for record in caplog.records])
    assert key[3:] not in caplog.text


# ---- the keyless door


def test_without_keys_this_machine_may_everything(sqlite_service: Service) -> None:
    """As the tenant "default"."""
    assert sqlite_service.client.get("/v1/usage").json()["tenant"] == "default"
    for host in ("localhost", "localhost:8000", "127.0.0.1:1", "127.8.8.8", "[::1]:8000", "a.localhost"):
        assert sqlite_service.client.get("/v1/jobs", headers={"Host": host}).status_code == 200


def test_without_keys_a_name_of_elsewhere_is_refused(sqlite_service: Service) -> None:
    """A page whose name was pointed at 127.0.0.1 (DNS rebinding) sends its own name as Host."""
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil:80", "10.0.0.1", "[::1", ""):
        answer = sqlite_service.client.get("/v1/jobs", headers={"Host": host})
        assert code(answer) == (421, "WRONG_HOST"), host


def test_without_keys_pages_of_elsewhere_are_refused(sqlite_service: Service) -> None:
    """A form of any page can POST here without asking first."""
    form = {"file": ("a.pt", b"x")}
    for origin in ("https://evil.example", "null", "http://[::1", "http://localhost.evil"):
        answer = sqlite_service.client.post("/v1/files", files=form, headers={"Origin": origin})
        assert code(answer) == (403, "WRONG_ORIGIN"), origin
    own = {"Origin": f"http://localhost:{sqlite_service.port}"}
    assert sqlite_service.client.post("/v1/files", files=form, headers=own).status_code == 201


def test_with_a_key_the_host_does_not_matter(sqlite_service: Service) -> None:
    """No page has the key."""
    client = sqlite_service.as_tenant("acme").client
    headers = {"Host": "fewbytes.example", "Origin": "https://fewbytes.example"}
    assert client.get("/v1/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("server", "allow_open", "expected"),
    [
        (("127.0.0.1", 80), False, None),
        (("::1", 80), False, None),
        (None, False, None),
        (("/run/socket", None), False, None),
        (("10.0.0.5", 80), False, "UNAUTHENTICATED"),
        (("2001:db8::5", 80), False, "UNAUTHENTICATED"),
        (("10.0.0.5", 80), True, None),
    ],
)
def test_the_keyless_door_is_where_only_this_machine_gets_in(
    sqlite_database: str, server: tuple[str, int] | None, allow_open: bool, expected: str | None
) -> None:
    """However the server was started: the address that the connection came in at decides."""
    assert asked_at(server, Settings(allow_open=allow_open)) == expected


def asked_at(server: object, settings: Settings, client: str = "10.0.0.7", times: int = 1) -> str | None:
    """The code with which the last of these requests is refused; None when it comes through."""

    async def inside(*_: object) -> None:
        pass

    door = Access(inside, settings, keyring.Keyring())
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/jobs",
        "headers": [(b"host", b"localhost")],
        "server": server,
        "client": (client, 1),
        "state": {"request_id": "req_1"},
    }

    async def ask() -> str | None:
        refused = None
        for _ in range(times):
            try:
                refused = None
                await door(scope, no_receive, no_send)
            except Problem as problem:
                refused = problem.code
        return refused

    return anyio.run(ask)


async def no_receive() -> Message:
    raise AssertionError("nobody may read the body")


async def no_send(_: Message) -> None:
    raise AssertionError("nobody may answer")


# ---- rates


def test_a_bucket_lets_a_minutes_worth_through_and_says_when_there_is_more() -> None:
    """By hand: 60 a minute is one a second."""
    now = 100.0
    buckets = Buckets(60, clock=lambda: now)
    assert [buckets.take("a") for _ in range(61)] == [0] * 60 + [1]
    assert buckets.take("b") == 0
    now += 0.5
    assert buckets.take("a") == 1
    now += 0.5
    assert (buckets.take("a"), buckets.take("a")) == (0, 1)
    now += 3600
    assert [buckets.take("a") for _ in range(61)] == [0] * 60 + [1]
    slow = Buckets(6, clock=lambda: now)
    assert [slow.take("a") for _ in range(7)] == [0] * 6 + [10]
    assert Buckets(0).take("a") == 0


def test_a_key_that_asks_too_often_is_told_when_to_come_back(
    sqlite_service: Service, service_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another key of the same tenant has a bucket of its own."""
    monkeypatch.setattr(Buckets, "take", few(Buckets.take))
    eager, patient = sqlite_service.as_tenant("acme").client, sqlite_service.as_tenant("acme").client
    answers = [eager.get("/v1/usage") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert code(answers[-1]) == (429, "RATE_LIMITED")
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert answers[-1].json()["retryable"] is True
    assert patient.get("/v1/usage").status_code == 200
    assert sqlite_service.client.get("/healthz").status_code == 200


def few(take: Callable[[Buckets, str], int]) -> Callable[[Buckets, str], int]:
    """Buckets of three."""

    def taken(buckets: Buckets, name: str) -> int:
        buckets._size, buckets._per_second = 3.0, 3 / 60
        return take(buckets, name)

    return taken


def test_wrong_keys_of_an_address_are_counted_and_right_ones_come_through(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever shares an address with somebody who guesses is not locked out."""
    right = sqlite_service.with_key(sqlite_service.key_of("acme"))
    wrong = sqlite_service.with_key("fb_" + "z" * 32)
    seen = {wrong.get("/v1/jobs").status_code for _ in range(access.FAILURES_PER_MINUTE)}
    assert seen == {401}
    assert code(wrong.get("/v1/jobs")) == (429, "RATE_LIMITED")
    assert right.get("/v1/jobs").status_code == 200


def test_the_open_door_counts_addresses_and_the_local_one_nothing(sqlite_database: str) -> None:
    few_requests = Settings(allow_open=True, requests_per_minute=5)
    assert asked_at(("10.0.0.5", 80), few_requests, times=5) is None
    assert asked_at(("10.0.0.5", 80), few_requests, times=6) == "RATE_LIMITED"
    assert asked_at(("127.0.0.1", 80), Settings(requests_per_minute=5), times=6) is None
