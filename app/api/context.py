"""What the application holds, as routers ask for it."""

from typing import Annotated

from fastapi import Depends, Request

from app.outbox import Outbox
from app.settings import Settings
from app.storage import Storage


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _storage(request: Request) -> Storage:
    storage: Storage = request.app.state.storage
    return storage


def _outbox(request: Request) -> Outbox:
    outbox: Outbox = request.app.state.outbox
    return outbox


CurrentSettings = Annotated[Settings, Depends(_settings)]
CurrentStorage = Annotated[Storage, Depends(_storage)]
CurrentOutbox = Annotated[Outbox, Depends(_outbox)]
"""Wake it after a commit that queued something: it rings at once instead of at its next look."""
