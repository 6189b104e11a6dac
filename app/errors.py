"""The one error that callers see. `app.main` renders it as an RFC 9457 problem; a failed job stores the same object."""

from typing import Any


class Problem(Exception):
    """Something the caller (or the caller's job) must be told.

    `code` is stable and UPPER_SNAKE: scripts match on it. `detail` names the value, the rule and the way out.
    `errors` points into the request: `[{"pointer": "/steps/0/alpha", "code": …, "detail": …, "hint": …}]`.
    `retryable` says whether the same request may succeed later without a change.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: list[dict[str, Any]] | None = None,
        retryable: bool = False,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors or []
        self.retryable = retryable
        self.headers = headers or {}

    @property
    def title(self) -> str:
        return self.code.replace("_", " ").capitalize()

    def body(self) -> dict[str, Any]:
        """The problem as JSON, less `instance` and `request_id`, which belong to one request."""
        return {
            "type": f"urn:fewbytes:problem:{self.code.lower().replace('_', '-')}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "retryable": self.retryable,
            "errors": self.errors,
        }


def not_found(kind: str, ident: str) -> Problem:
    return Problem(404, "NOT_FOUND", f"There is no {kind} {ident!r}. List them with GET /v1/{kind}s.")


def database_unavailable(*, other_tables: bool = False) -> Problem:
    """`other_tables`: it answers, but has the tables of another version."""
    detail = (
        "The database has the tables of another version of this service. Its operator runs `fewbytes migrate`; "
        "then try again."
        if other_tables
        else "The database does not answer. Try again: whether this request changed something is not known, and with "
        "the same Idempotency-Key a job is made once."
    )
    return Problem(503, "DATABASE_UNAVAILABLE", detail, retryable=True, headers={"Retry-After": "2"})
