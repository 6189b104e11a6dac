"""Who may knock: the service has no access keys yet, so it listens where only this machine reaches it."""

from app.settings import Settings


class CannotStartError(Exception):
    """Why the service cannot start, in words for whoever typed the command."""


def refuse_open_door(host: str, config: Settings) -> None:
    """Raises CannotStartError for an address that other machines reach: whoever does may use everything."""
    if host in ("127.0.0.1", "::1", "localhost") or config.allow_open:
        return
    raise CannotStartError(
        f"Not listening on {host}: fewbytes has no access keys yet, so everybody who reaches it could read "
        "and delete everything. Use 127.0.0.1 behind a proxy that checks who comes; where that is so already "
        "(a container), set FEWBYTES_ALLOW_OPEN=1."
    )
