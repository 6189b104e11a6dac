"""What the application holds, as routers ask for it."""

from typing import Annotated

from fastapi import Depends, Request

from app.access.tenancy import Caller
from app.api.keyring import Keyring
from app.scheduling.outbox import Outbox
from app.settings import Settings
from app.storage.objects import Storage


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _storage(request: Request) -> Storage:
    storage: Storage = request.app.state.storage
    return storage


def _outbox(request: Request) -> Outbox:
    outbox: Outbox = request.app.state.outbox
    return outbox


def _keyring(request: Request) -> Keyring:
    keyring: Keyring = request.app.state.keyring
    return keyring


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


CurrentCaller = Annotated[Caller, Depends(_caller)]
"""Who makes the request. All that a router reads and writes goes through its `reading()` and `transaction()`."""
CurrentKeyring = Annotated[Keyring, Depends(_keyring)]
"""It is told of every key that was made or revoked."""
CurrentSettings = Annotated[Settings, Depends(_settings)]
CurrentStorage = Annotated[Storage, Depends(_storage)]
CurrentOutbox = Annotated[Outbox, Depends(_outbox)]
"""Wake it after a commit that queued something: it rings at once instead of at its next look."""
