"""`fewbytes settings`: the page of all settings is what it prints, and no password is."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.settings import Settings, settings

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_the_page_is_what_the_command_prints() -> None:
    """After a change: `fewbytes settings --format md`, below the page's first sentences."""
    table = CliRunner().invoke(app, ["settings", "--format", "md"]).stdout
    assert PAGE.read_text().endswith(f"\n\n{table}")


def test_every_setting_says_what_it_means() -> None:
    """A new one too."""
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_what_is_set_is_shown_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the environment has it."""
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://me:secret@host/db")
    monkeypatch.setenv("FEWBYTES_PORT", "8123")
    shown = CliRunner().invoke(app, ["settings"]).stdout
    assert "postgresql+psycopg://me:***@host/db" in shown
    assert "secret" not in shown
    assert "8123" in shown
