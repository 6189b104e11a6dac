"""What the application holds, as routers ask for it."""

from typing import Annotated

from fastapi import Depends, Request

from app.settings import Settings
from app.storage import Storage


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _storage(request: Request) -> Storage:
    storage: Storage = request.app.state.storage
    return storage


CurrentSettings = Annotated[Settings, Depends(_settings)]
CurrentStorage = Annotated[Storage, Depends(_storage)]
