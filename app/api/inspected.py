"""What teachers and data sets have in common: registered now, usable once a worker has looked at them."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Response

from app import resources
from app.access.tenancy import Caller
from app.api.waiting import preferred_seconds, until
from app.errors import Problem

V = TypeVar("V")


def read(caller: Caller, kind: str, ident: str) -> Any:
    """The row; settled when its inspection died without a verdict."""
    with caller.reading() as session:
        row = resources.find(session, kind, ident)
        orphaned = resources.is_orphaned(session, row)
    if orphaned:
        with caller.transaction() as session:
            row = resources.settle_late(session, kind, ident)
    return row


async def registered(
    caller: Caller,
    kind: str,
    ident: str,
    view: Callable[[Any], V],
    response: Response,
    prefer: str | None,
    default_seconds: float,
) -> V:
    """Wait for the verdict: 201 ready, 202 still inspecting.

    Problem 422 with the inspection's reasons when rejected.
    """
    row = await until(
        lambda: read(caller, kind, ident),
        lambda row: row.state != resources.INSPECTING,
        preferred_seconds(prefer, default_seconds),
    )
    path = f"/v1/{kind}s/{ident}"
    if row.state == resources.REJECTED:
        raise Rejected(row.error, path)
    response.headers["Location"] = path
    response.status_code = 201
    if row.state == resources.INSPECTING:
        response.status_code = 202
        response.headers["Retry-After"] = "2"
    return view(row)


class Rejected(Problem):
    """The inspection's problem, about this row: `instance` is where it can be read again.

    The verdict is on what was sent, so it is 422 whatever the inspection met.
    """

    def __init__(self, error: dict[str, Any], instance: str) -> None:
        detail = f"{error['detail']} (It stays readable as {instance}.)"
        headers = {"Location": instance}
        super().__init__(
            422, error["code"], detail, errors=error["errors"], retryable=error["retryable"], headers=headers
        )
        self.instance = instance

    def body(self) -> dict[str, Any]:
        return super().body() | {"instance": self.instance}
