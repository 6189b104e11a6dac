"""The log: one line an event, as text or (FEWBYTES_LOG_FORMAT=json) as one JSON object a line.

What a stranger sent is never part of it but for the path, percent-encoded as it came; no query values, no
bodies, no keys.
"""

import logging
import sys
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

# Control characters would let a text forge lines or drive a terminal.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}
_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class OneLine(logging.Formatter):
    """`time level logger: message key=value …`; a traceback follows on lines of its own, each indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's own name)
        given = {name: value for name, value in vars(record).items() if name not in _FIELDS}
        text = " ".join(
            [super().formatMessage(record), *(f"{name}={value}" for name, value in given.items())]
        )
        return text.translate(_CONTROLS)

    def formatException(self, ei: object) -> str:  # noqa: N802
        text = super().formatException(ei)  # type: ignore[arg-type]
        return "\n".join("    " + line.translate(_CONTROLS) for line in text.splitlines())


def configure(log_format: Literal["text", "json"], level: str) -> None:
    """Everything that is logged goes to stderr, once, in this form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(log_format))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("app").setLevel(level)
    # What strangers send is no fault of ours; the front logs that a request was refused.
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)


def formatter(log_format: Literal["text", "json"]) -> logging.Formatter:
    if log_format == "text":
        return OneLine()
    return JsonFormatter(
        "%(levelname)s %(name)s %(message)s",
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp="at",
    )
