"""Presets name the built-in architectures: these tests have the real catalogue."""

import pytest


@pytest.fixture(autouse=True)
def _small_catalogue() -> None:
    """In place of the one that the other tests of the API have."""
