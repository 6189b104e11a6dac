"""What every answer says to browsers: believe the type, run nothing, be in no frame, tell nobody, keep nothing."""

from starlette.datastructures import MutableHeaders

PROTECTION = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def protect(headers: MutableHeaders, request_id: str) -> None:
    """Complete an answer's headers. What a router set itself stays: artifacts may be kept, /docs runs scripts."""
    headers["X-Request-Id"] = request_id
    for name, value in PROTECTION.items():
        headers.setdefault(name, value)
