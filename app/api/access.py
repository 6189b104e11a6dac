"""Who calls, decided before a byte of the body is read: 401, 403, 429, or a `Caller` in `request.state.caller`.

While there never was a key, everybody on this machine is the tenant "default" with every right: the embedded service
works without ceremony. Such a door trusts the address that a connection came in at, so a web page must not borrow
it: a Host that is no name of this machine (DNS rebinding) and an Origin of elsewhere are refused.
"""

import ipaddress
import logging
import re
from urllib.parse import urlsplit

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.access import keys
from app.access.tenancy import Caller
from app.access.tenants import DEFAULT, Limits
from app.api.buckets import Buckets
from app.api.keyring import Keyring, Opened
from app.database.outage import explain, say
from app.errors import Problem, database_unavailable
from app.settings import Settings

log = logging.getLogger(__name__)

FAILURES_PER_MINUTE = 60
"""Wrong keys of one address. Nobody guesses 160 bits; this is so that trying costs us little."""

_OPEN = re.compile(
    r"/|/web/[0-9a-f]{1,64}/[a-z_./]*|/healthz|/readyz|/openapi\.json|/docs(/[^/]*)?|/v1/tools/[^/]*"
)
_ADMINISTRATION = re.compile(r"/v1/(keys|audit)(/.*)?")
_READS = ("GET", "HEAD")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="fewbytes"'}
_MAKE_A_KEY = "The operator makes one: fewbytes keys create --tenant NAME --scope write --name LABEL."


class Access:
    """ASGI middleware, inside of the one that gives requests their ids and outside of all that reads a body."""

    def __init__(self, app: ASGIApp, settings: Settings, keyring: Keyring) -> None:
        self.app = app
        self._settings = settings
        self._keyring = keyring
        self._defaults = Limits.of_settings(settings)
        self._requests = Buckets(settings.requests_per_minute)
        self._failures = Buckets(FAILURES_PER_MINUTE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _OPEN.fullmatch(scope["path"]):
            request = Request(scope)
            try:
                request.state.caller = await self._caller(request)
            except Problem as problem:
                _say(request, problem)
                raise
            except SQLAlchemyError as error:
                outage = await run_in_threadpool(explain, error)
                if outage is None:
                    raise
                say(outage)
                raise database_unavailable(other_tables=outage.other_tables) from None
        await self.app(scope, receive, send)

    async def _caller(self, request: Request) -> Caller:
        if await self._is_keyless(request):
            return self._everybody(request)
        opened = await self._opened(request)
        self._limit(opened.key_id)
        _refuse_beyond_scope(request, opened)
        return self._caller_of(request, opened.tenant_id, opened.scope, opened.key_id)

    async def _is_keyless(self, request: Request) -> bool:
        needed = self._keyring.was_needed()
        if needed:
            return False
        # The address at this end: whoever got in where only this machine does is of this machine.
        if not (self._settings.allow_open or _is_local(request.scope.get("server"))):
            return False
        return not (await run_in_threadpool(self._keyring.is_needed) if needed is None else needed)

    def _everybody(self, request: Request) -> Caller:
        if self._settings.allow_open:
            self._limit(_address(request))
        else:
            _refuse_borrowed_browser(request)
        return self._caller_of(request, DEFAULT, "admin", None)

    async def _opened(self, request: Request) -> Opened:
        secret = _secret(request)
        if secret is None:
            raise _unauthenticated(f"This needs a key: send Authorization: Bearer fb_…. {_MAKE_A_KEY}")
        opened = self._keyring.remembered(secret) or await run_in_threadpool(self._keyring.look_up, secret)
        if opened is not None:
            return opened
        if seconds := self._failures.take(_address(request)):
            raise _too_many(f"Too many wrong keys came from your address. Try again in {seconds} s.", seconds)
        raise _unauthenticated(f"This key is wrong, revoked or expired. {_MAKE_A_KEY}", error="invalid_token")

    def _limit(self, name: str) -> None:
        if seconds := self._requests.take(name):
            most = self._settings.requests_per_minute
            raise _too_many(f"{most} requests a minute are taken. Try again in {seconds} s.", seconds)

    def _caller_of(self, request: Request, tenant_id: str, scope: str, key_id: str | None) -> Caller:
        request.state.tenant, request.state.key_id = tenant_id, key_id  # for the log
        return Caller(
            tenant_id=tenant_id,
            scope=scope,
            key_id=key_id,
            request_id=request.state.request_id,
            defaults=self._defaults,
        )


def _secret(request: Request) -> str | None:
    """What the one Authorization header bears. Problem 401 for another scheme, or for several headers."""
    sent = request.headers.getlist("authorization")
    if not sent:
        return None
    scheme, _, secret = sent[0].partition(" ")
    if len(sent) > 1 or scheme.lower() != "bearer":
        raise _unauthenticated(
            "Send the key in one header: Authorization: Bearer fb_….", error="invalid_request"
        )
    return secret.strip()


def _refuse_beyond_scope(request: Request, opened: Opened) -> None:
    needed = _needed_scope(request)
    if keys.SCOPES.index(opened.scope) < keys.SCOPES.index(needed):
        detail = f"This key has the scope {opened.scope}; {request.method} of this path needs {needed}."
        raise Problem(403, "FORBIDDEN_SCOPE", f"{detail} Use a key with that scope.")


def _needed_scope(request: Request) -> keys.Scope:
    if _ADMINISTRATION.fullmatch(request.scope["path"]):
        return "admin"
    return "read" if request.method in _READS else "write"


def _refuse_borrowed_browser(request: Request) -> None:
    for host in request.headers.getlist("host"):
        if not _names_this_machine(urlsplit(f"//{host}").hostname if _is_sane(host) else None):
            raise Problem(
                421,
                "WRONG_HOST",
                "Without keys this service answers under names of this machine only, as localhost or 127.0.0.1. "
                "For another name make a key (fewbytes keys create), or set FEWBYTES_ALLOW_OPEN=1 behind a proxy "
                "that checks who comes.",
            )
    for origin in request.headers.getlist("origin"):
        if not _names_this_machine(urlsplit(origin).hostname if _is_sane(origin) else None):
            raise Problem(
                403, "WRONG_ORIGIN", "Without keys no web page of elsewhere may use this service: make a key."
            )


def _is_sane(text: str) -> bool:
    """Whether `urlsplit` takes it: it raises for half an IPv6 address."""
    try:
        urlsplit(text if "://" in text else f"//{text}")
    except ValueError:
        return False
    return True


def _names_this_machine(host: str | None) -> bool:
    if host is None:
        return False
    return host == "localhost" or host.endswith(".localhost") or is_loopback(host)


def is_loopback(address: str) -> bool:
    """Whether it is an address that only this machine reaches."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _is_local(server: object) -> bool:
    """`server`: the ASGI scope's (host, port); a Unix socket has no port, or nothing is said of it."""
    if not isinstance(server, tuple | list) or server[1] is None:
        return True
    return is_loopback(str(server[0]))


def _address(request: Request) -> str:
    return request.client.host if request.client else "local"


def _unauthenticated(detail: str, error: str | None = None) -> Problem:
    challenge = _CHALLENGE["WWW-Authenticate"] + (f', error="{error}"' if error else "")
    return Problem(401, "UNAUTHENTICATED", detail, headers={"WWW-Authenticate": challenge})


def _too_many(detail: str, seconds: int) -> Problem:
    return Problem(429, "RATE_LIMITED", detail, retryable=True, headers={"Retry-After": str(seconds)})


def _say(request: Request, problem: Problem) -> None:
    """Who was turned away, and from where. The key is not written down, not even a part of it."""
    fields = {"code": problem.code, "request_id": request.state.request_id, "address": _address(request)}
    log.warning("denied", extra=fields)
