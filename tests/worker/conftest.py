"""Settings and orders for supervisors under test."""

from pathlib import Path

import pytest

from app.settings import settings
from tests.worker.supervised import plain_order
from worker import orders


@pytest.fixture
def short_grace(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage of this test's own; a grace short enough to wait for; no pause before another attempt."""
    monkeypatch.setenv("FEWBYTES_CANCEL_GRACE_SECONDS", "1")
    monkeypatch.setenv("FEWBYTES_RETRY_PAUSE_SECONDS", "0")
    settings.cache_clear()


@pytest.fixture
def plain_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders for the fake child, without teachers and data."""
    monkeypatch.setattr(orders, "build", plain_order)
