"""How much of a body is taken: as much as one file may have, as the tenant has room for, and as the disk has."""

from dataclasses import dataclass

from app import resources
from app.access import quotas, tenants
from app.access.tenancy import Caller
from app.errors import Problem
from app.settings import Settings
from app.storage import disk


@dataclass(frozen=True)
class BodyLimit:
    """The bytes that are taken, and what is said when there are more (None: that the file is too large)."""

    bytes: int
    refusal: Problem | None


def room_for(
    caller: Caller,
    declared_bytes: int | None,
    settings: Settings,
    *,
    name: str | None,
) -> BodyLimit:
    """The limit for a body that says to be so long. Problem 403 QUOTA_EXCEEDED when it has no room as it is, 507
    INSUFFICIENT_STORAGE when the disk has none.

    `name`: of the file that it will replace, if there is one, whose room it may have. None: nobody knows yet, so it
    may be the largest; what is stored in the end is checked again under its name.
    """
    limit = _quota(caller, declared_bytes, settings, name)
    disk.check_room(settings.resolved_data_dir, declared_bytes or 0, settings.min_free_bytes)
    return limit


def _quota(caller: Caller, declared_bytes: int | None, settings: Settings, name: str | None) -> BodyLimit:
    with caller.reading() as session:
        most = tenants.limits(session, caller.tenant_id).max_bytes
        if not most:
            return BodyLimit(settings.max_file_bytes, None)
        used = quotas.num_bytes(session, caller.tenant_id) - resources.size_of_file(session, name)
    refusal = quotas.no_room(most, max(used, most) + 1)
    room = max(0, most - used)
    if (declared_bytes or 0) > room:
        raise quotas.no_room(most, used + (declared_bytes or 0))
    return (
        BodyLimit(room, refusal)
        if room < settings.max_file_bytes
        else BodyLimit(settings.max_file_bytes, None)
    )
