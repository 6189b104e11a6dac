"""`fewbytes` as it is typed, against a real server in a thread."""

from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from tests.app.conftest import Service

Fewbytes = Callable[..., Result]


@pytest.fixture
def fewbytes(sqlite_service: Service, monkeypatch: pytest.MonkeyPatch) -> Fewbytes:
    """Runs a command with FEWBYTES_URL set; `input` is standard input. No terminal."""
    monkeypatch.setenv("FEWBYTES_URL", str(sqlite_service.client.base_url))
    monkeypatch.delenv("FEWBYTES_KEY", raising=False)

    def run(*arguments: object, input: str | None = None) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=input)

    return run
