"""The one exception of the client: what the service said, or why it could not be asked."""

from typing import Any

import httpx


class FewbytesError(Exception):
    """A problem that the service answered (RFC 9457), or one of reaching it.

    `status` is the answer's, null where there was none. `code` is stable: match on it. `detail` names the value, the rule
    and the way out. `errors` point into what was sent: `{"pointer": "/steps/0/alpha", "code": …, "detail": …, "hint": …}`.
    `retryable`: the same request may succeed later. `headers`: of the answer.

    Codes of the client's own: UNREACHABLE, UNEXPECTED_ANSWER, WAIT_TIMEOUT, DIGEST_MISMATCH, NO_SUCH_NAME, AMBIGUOUS_NAME.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        errors: list[dict[str, Any]] | None = None,
        retryable: bool = False,
        request_id: str | None = None,
        headers: httpx.Headers | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.status = status
        self.errors = errors or []
        self.retryable = retryable
        self.request_id = request_id
        self.headers = headers if headers is not None else httpx.Headers()


def unreachable(url: str, error: httpx.TransportError) -> FewbytesError:
    """Nobody answers there, or the line broke and stayed broken."""
    why = str(error) or type(error).__name__
    detail = (
        f"{url} does not answer ({why}). Start the service with `fewbytes up`, or give another address: --url, "
        "FEWBYTES_URL, Client(url)."
    )
    return FewbytesError("UNREACHABLE", detail, retryable=True)


def unexpected(answer: httpx.Response, what: str) -> FewbytesError:
    """An answer that no fewbytes gives, or one of another version."""
    detail = (
        f"{answer.request.method} {answer.request.url} was answered with {answer.status_code}, but {what}. Is it the "
        "address of a fewbytes service, of this client's version or a newer one?"
    )
    return FewbytesError("UNEXPECTED_ANSWER", detail, status=answer.status_code, headers=answer.headers)


def problem_of(answer: httpx.Response) -> FewbytesError:
    """The problem in an answer of 4xx or 5xx whose body was read."""
    try:
        body = answer.json()
        code, detail = str(body["code"]), str(body["detail"])
    except (ValueError, KeyError, TypeError):
        return unexpected(answer, "its body is no problem document")
    return FewbytesError(
        code,
        detail,
        status=answer.status_code,
        errors=body.get("errors"),
        retryable=bool(body.get("retryable")),
        request_id=body.get("request_id"),
        headers=answer.headers,
    )
