"""A tenant's own affairs: its access keys, what was changed and by whom, and how much it uses.

Keys and the audit log need a key with the scope admin.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from app import resources
from app.access import keys, quotas, tenants
from app.api.context import CurrentCaller, CurrentKeyring, CurrentSettings
from app.api.parameters import PageSize, PageToken, cursor_of, page_of
from app.api.views import Page, maybe_rfc3339
from app.db import rfc3339
from app.errors import Problem
from app.spec.base import Spec
from app.tables import ApiKey, AuditEntry

router = APIRouter(prefix="/v1", tags=["administration"])

KeyId = Annotated[str, Path(pattern="^key_[0-9a-z]{1,40}$")]
KeyName = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]*$")]


class KeySpec(Spec):
    """`read` may GET, `write` also change things, `admin` also make keys and see the audit log."""

    name: KeyName
    scope: Literal["read", "write", "admin"]
    days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    """Until it expires; null: never."""


class KeyView(BaseModel):
    """`prefix`: the first characters of what opens the door, to tell keys apart."""

    id: str
    name: str
    prefix: str
    scope: str
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None


class NewKeyView(KeyView):
    """`secret` is what to send as `Authorization: Bearer …`. It is shown this once."""

    secret: str


class AuditView(BaseModel):
    """`key_id` is null where no key was needed, or where the operator's command line did it."""

    id: str
    at: str
    key_id: str | None
    request_id: str | None
    action: str
    target: str
    detail: dict[str, Any]


class Amount(BaseModel):
    """`limit` is null where there is none."""

    used: int
    limit: int | None


class UsageView(BaseModel):
    """`bytes`: of distinct objects (files, what teachers and data sets were made of and became, artifacts), and the
    declared sizes of uploads under way. `files` count those uploads too; `queued_jobs` also inspections."""

    tenant: str
    bytes: Amount
    files: Amount
    queued_jobs: Amount
    running_jobs: Amount
    requests_per_minute: int | None


@router.get("/usage", response_model=UsageView)
def get_usage(caller: CurrentCaller, settings: CurrentSettings) -> UsageView:
    """What you have, and what you may have."""
    with caller.reading() as session:
        used = vars(quotas.usage(session, caller.tenant_id))
        limits = tenants.limits(session, caller.tenant_id)
        name = tenants.find(session, caller.tenant_id).name
    amounts = {key: Amount(used=used[key], limit=getattr(limits, f"max_{key}") or None) for key in used}
    return UsageView(tenant=name, requests_per_minute=settings.requests_per_minute or None, **amounts)


@router.get("/keys", response_model=Page[KeyView])
def list_keys(caller: CurrentCaller, page_size: PageSize = 50, page_token: PageToken = None) -> Page[KeyView]:
    """The newest first, revoked and expired ones included."""
    with caller.reading() as session:
        rows = resources.newest(session, ApiKey, after=cursor_of(page_token), limit=page_size + 1)
    return page_of(rows, page_size, lambda key: KeyView(**_key_fields(key)))


@router.post("/keys", response_model=NewKeyView, status_code=201)
def post_key(spec: KeySpec, caller: CurrentCaller, keyring: CurrentKeyring) -> NewKeyView:
    """Make another key for this tenant. 409 while there is none: the first is the operator's to make."""
    if caller.key_id is None:
        # Nothing opens without a key from then on, so it must not be made by whoever happens to get in.
        raise Problem(
            409,
            "FIRST_KEY",
            "There is no key yet, and the first one closes this door to everybody without one. Make it where the "
            "service runs: fewbytes keys create --tenant default --scope admin --name first.",
        )
    with caller.transaction() as session:
        key, secret = keys.make(
            session, tenant_id=caller.tenant_id, name=spec.name, scope=spec.scope, days=spec.days
        )
    keyring.forget()
    return NewKeyView(**_key_fields(key), secret=secret)


@router.delete("/keys/{key_id}", status_code=204)
def delete_key(key_id: KeyId, caller: CurrentCaller, keyring: CurrentKeyring) -> None:
    """Revoke it: here at once, in other API processes within five seconds. It stays listed."""
    with caller.transaction() as session:
        keys.revoke(session, key_id)
    keyring.forget()


@router.get("/audit", response_model=Page[AuditView])
def list_audit(
    caller: CurrentCaller, page_size: PageSize = 50, page_token: PageToken = None
) -> Page[AuditView]:
    """Every change, the newest first: by which key, in which request."""
    with caller.reading() as session:
        rows = resources.newest(session, AuditEntry, after=cursor_of(page_token), limit=page_size + 1)
    return page_of(rows, page_size, _audit_view)


def _key_fields(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "scope": key.scope,
        "created_at": rfc3339(key.created_at),
        "expires_at": maybe_rfc3339(key.expires_at),
        "last_used_at": maybe_rfc3339(key.last_used_at),
        "revoked_at": maybe_rfc3339(key.revoked_at),
    }


def _audit_view(entry: AuditEntry) -> AuditView:
    return AuditView(
        id=entry.id,
        at=rfc3339(entry.created_at),
        key_id=entry.key_id,
        request_id=entry.request_id,
        action=entry.action,
        target=entry.target,
        detail=entry.detail,
    )
