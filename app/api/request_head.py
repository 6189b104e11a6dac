"""A request's head, before anything believes it: text that every room can hold, headers that say one thing."""

from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from app.errors import Problem

# Given twice, one reader takes the first and another the last.
_ONCE = frozenset(
    {
        b"authorization",
        b"content-digest",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"idempotency-key",
        b"if-range",
        b"last-event-id",
        b"range",
    }
)


def check_head(scope: Scope) -> None:
    """Raise Problem 400 INVALID_TARGET or DUPLICATE_HEADER, or 415 ENCODING_NOT_ACCEPTED."""
    for part in (scope["raw_path"], scope["query_string"]):
        _check_text(part)
    seen: set[bytes] = set()
    for name, value in scope["headers"]:
        if name in _ONCE and name in seen:
            detail = f"The header {name.decode()} is given twice: send it once."
            raise Problem(400, "DUPLICATE_HEADER", detail)
        seen.add(name)
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            detail = (
                "Bodies are taken as they are: nothing here unpacks a Content-Encoding. Send it without one."
            )
            raise Problem(415, "ENCODING_NOT_ACCEPTED", detail, headers={"Accept-Encoding": "identity"})


def _check_text(encoded: bytes) -> None:
    """Decoders put U+FFFD for what is no UTF-8, so that two requests would ask the same; databases refuse NUL."""
    text = unquote_to_bytes(encoded)
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(400, "INVALID_TARGET", "The path or the query is not percent-encoded UTF-8.") from None
    if b"\x00" in text:
        raise Problem(400, "INVALID_TARGET", "The path or the query holds NUL (%00).")
