"""What commands say: results on standard output, everything else on standard error."""

import re
import sys
from typing import NoReturn

import typer

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def say(text: str) -> None:
    """A remark, which is no result."""
    print(printable(text), file=sys.stderr, flush=True)


def tell(text: str) -> None:
    """A result."""
    print(printable(text) if sys.stdout.isatty() else text, flush=True)


def refuse(message: str, code: int = 2) -> NoReturn:
    """End with this sentence. Exit code 2: the command cannot be meant so."""
    say(f"fewbytes: {message}")
    raise typer.Exit(code)


def printable(text: str) -> str:
    """Text that somebody else wrote, without what would steer the terminal."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
