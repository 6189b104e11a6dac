"""What the client's commands have in common: where the service is, and how its problems are said."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.terminal import refuse, say
from app.client import Client, FewbytesError
from app.client.specs import SpecError, read_spec, set_field

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="FEWBYTES_URL", help="The service. Default: http://127.0.0.1:8000."),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="FEWBYTES_KEY",
        help="The key that opens it. Others see what is typed here: prefer the variable.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print ids alone, for scripts.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what the service answered.")]
Set = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Set one field of the spec: steps.0.alpha=0.5. May be repeated."
    ),
]

FAILED = 1
WRONG = 2
AWAY = 3
"""Exit codes: the job failed or was cancelled; the command or what it named is wrong; the service did not answer well."""
STOPPED = 130

_OUR_FAULT = ("NO_SUCH_NAME", "AMBIGUOUS_NAME", "INVALID_URL", "OTHER_FILE")


@contextmanager
def service(url: str | None, key: str | None) -> Iterator[Client]:
    """A client; what goes wrong with it is said in a sentence, and ends the command."""
    try:
        with Client(url, key) as client:
            yield client
    except FewbytesError as error:
        say_problem(error)
        is_wrong = error.code in _OUR_FAULT or (error.status is not None and 400 <= error.status < 500)
        raise typer.Exit(WRONG if is_wrong and error.status != 429 else AWAY) from None
    except SpecError as error:
        refuse(str(error))
    except BrokenPipeError:
        raise  # whoever read our output has had enough: typer ends in silence
    except OSError as error:
        refuse(f"{error.filename}: {error.strerror}." if error.filename else str(error))
    except KeyboardInterrupt:
        say("Stopped.")
        raise typer.Exit(STOPPED) from None


def say_problem(problem: FewbytesError) -> None:
    """Code, sentence, and each place of the spec that is wrong."""
    say(f"fewbytes: {problem.code}: {problem.detail}")
    if len(problem.errors) > 1:
        for error in problem.errors:
            say(f"  {error_line(error)}")


def error_line(error: dict[str, Any]) -> str:
    """One of a problem's errors."""
    where = error.get("pointer") or error.get("parameter") or "the body"
    detail, hint = str(error.get("detail")), error.get("hint")
    stop = "" if detail.endswith((".", "?", "!")) else "."
    return f"{where}: {detail}{stop}{f' {hint}' if hint else ''}"


def spec_of(source: str, assignments: list[str]) -> Any:
    """The spec in a file, or on standard input ("-"), with fields set. Raises SpecError, OSError."""
    if source == "-":
        spec = read_spec(sys.stdin.buffer.read(), "standard input")
    else:
        path = Path(source)
        spec = read_spec(path.read_bytes(), path.name)
    for assignment in assignments:
        spec = set_field(spec, assignment)
    return spec
