"""Access keys: `fb_` and 160 random bits, shown once. Stored are the first characters and the sha256.

A sha256 without salt or stretching is enough for a secret that nobody chose: 130 bits of it are not shown.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from typing import Literal, get_args

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from app.access import audit
from app.db import BASE32, db_now, new_id
from app.errors import not_found
from app.tables import ApiKey

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Each may what those before it may."""

PATTERN = re.compile(r"fb_[0-9a-z]{32}")
_SHOWN = len("fb_") + 6
_USED_EVERY_SECONDS = 60.0


def make(
    session: Session, *, tenant_id: str, name: str, scope: Scope, days: float | None = None
) -> tuple[ApiKey, str]:
    """A new key and the secret that opens the door, which is nowhere else. `days`: until it expires."""
    secret = "fb_" + "".join(secrets.choice(BASE32) for _ in range(32))
    now = session.scalar(select(db_now()))
    assert now is not None
    key = ApiKey(
        id=new_id("key"),
        tenant_id=tenant_id,
        name=name,
        prefix=secret[:_SHOWN],
        sha256=_digest(secret),
        scope=scope,
        created_at=now,
        expires_at=None if days is None else now + days * 86_400,
    )
    session.add(key)
    audit.record(session, "key.create", key.id, name=name, scope=scope)
    session.flush()
    return key, secret


def find(session: Session, secret: str) -> ApiKey | None:
    """The key that this secret opens the door with; None when there is none, or it was revoked, or expired."""
    if not PATTERN.fullmatch(secret):
        return None
    candidates = session.scalars(select(ApiKey).where(ApiKey.prefix == secret[:_SHOWN], *_active()))
    digest = _digest(secret)
    # Every candidate is compared, each in constant time. Two keys rarely share their first characters.
    fitting = [key for key in candidates if hmac.compare_digest(key.sha256, digest)]
    return fitting[0] if fitting else None


def mark_used(session: Session, key_id: str) -> None:
    """Note that the key is in use, at most once a minute: not every request is to be a write."""
    stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < db_now() - _USED_EVERY_SECONDS)
    session.execute(
        update(ApiKey).where(ApiKey.id == key_id, stale).values(last_used_at=db_now()),
        execution_options={"synchronize_session": False},
    )


def is_stale(key: ApiKey, now: float) -> bool:
    """Whether `mark_used` would write."""
    return key.last_used_at is None or key.last_used_at < now - _USED_EVERY_SECONDS


def scope_of(key: ApiKey) -> Scope:
    """The key's scope. A word that this version does not know may do the least."""
    return next((scope for scope in SCOPES if scope == key.scope), "read")


def any_ever(session: Session) -> bool:
    """Whether there ever was a key: revoking the last one must not open the door again."""
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def any_active(session: Session) -> bool:
    return session.scalar(select(ApiKey.id).where(*_active()).limit(1)) is not None


def everyone(session: Session) -> Sequence[ApiKey]:
    """The newest first."""
    return session.scalars(select(ApiKey).order_by(ApiKey.created_at.desc(), ApiKey.id.desc())).all()


def revoke(session: Session, key_id: str) -> ApiKey:
    """From now on it opens nothing. Again changes nothing. Raises Problem 404."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise not_found("key", key_id)
    if key.revoked_at is None:
        key.revoked_at = session.scalar(select(db_now()))
        audit.record(session, "key.revoke", key_id, name=key.name)
    return key


def _active() -> tuple[ColumnElement[bool], ...]:
    return ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > db_now())


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
