"""The container of torch.save before 1.6: five pickles in a row, then every storage as its length and its bytes.

PyTorch reads a storage's length from the pickle and its bytes into new memory: a file that claims more
than it has showed what lay in that memory before. Here the lengths of the file itself decide.
"""

import mmap
import os
import re
import struct
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from worker.gate.known_names import StorageType, StorageView
from worker.gate.limits import Limits
from worker.gate.pickles import Walk, no_persistent_ids
from worker.gate.refusal import shown, unreadable, unsafe
from worker.gate.tensors import ITEM_BYTES, Storage

# Its magic number 0x1950a86a20f9469cfc6c as a pickle of its own, any protocol.
MAGIC = re.compile(rb"\x80[\x02-\x05](\x95.{8})?\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.", re.DOTALL)
_VERSION = 1001


@dataclass
class _Claims:
    """The storages that the pickle refers to, with the bytes that it claims for each."""

    known: dict[str, Storage] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)

    def __call__(self, ident: Any) -> StorageView:
        if not isinstance(ident, tuple) or len(ident) not in (5, 6) or ident[0] != "storage":
            raise unsafe("STORAGE_ID", "its pickle refers to something else than tensors' storages")
        _, kind, key, location, count, *view = ident
        if not (
            isinstance(kind, StorageType)
            and kind.dtype
            and isinstance(key, str)
            and isinstance(location, str)
        ):
            raise unsafe("STORAGE_ID", "its pickle refers to a storage in a way that torch.save does not")
        if any(part is not None for part in view):
            raise unreadable(
                "STORAGE_VIEW",
                "it was written by a PyTorch older than 0.4: load and save it with a newer one",
            )
        if type(count) is not int or not 0 <= count < 2**48 or len(key) > 64:
            raise unsafe("STORAGE_SIZE", f"a storage claims {shown(count)} elements")
        num_bytes = count * ITEM_BYTES[kind.dtype]
        storage = self.known.setdefault(key, Storage(key, num_bytes))
        if storage.num_bytes != num_bytes or self.types.setdefault(key, kind.dtype) != kind.dtype:
            raise unsafe("STORAGE_RETYPED", f"the storage {shown(key)} is two different ones")
        return StorageView(storage, kind.dtype)


@dataclass
class Legacy:
    """A legacy file: its value, and where each storage's bytes begin."""

    value: Any
    offsets: dict[str, int]
    file: BinaryIO

    def open(self, storage: Storage, first: int) -> AbstractContextManager[BinaryIO]:
        """The file, at the storage's byte `first`."""
        self.file.seek(self.offsets[storage.key] + first)
        return nullcontext(self.file)


def read_legacy(file: BinaryIO, limits: Limits) -> Legacy:
    """Walk the pickles and lay the storages out. Raises Refused."""
    file_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    # The pickles come first, and nothing says how long they are: mapped, so that the weights behind stay on the disk.
    head = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))[: limits.pickle_bytes]
    end = 0
    claims = _Claims()
    values = []
    for persistent in (no_persistent_ids, no_persistent_ids, no_persistent_ids, claims, no_persistent_ids):
        machine = Walk(head, limits, persistent, position=end)
        values.append(machine.run())
        end = machine.end
    _magic, version, system, value, keys = values
    if version != _VERSION:
        raise unreadable(
            "LEGACY_VERSION", f"its container has the version {shown(version)}; {_VERSION} is read"
        )
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise unreadable(
            "BIG_ENDIAN", "it was written on a big-endian machine: save it on a little-endian one"
        )
    return Legacy(value, _offsets(file, file_bytes, end, keys, claims), file)


def _offsets(file: BinaryIO, file_bytes: int, position: int, keys: Any, claims: _Claims) -> dict[str, int]:
    if (
        not isinstance(keys, list)
        or not all(isinstance(key, str) for key in keys)
        or len(set(keys)) != len(keys)
    ):
        raise unsafe("STORAGE_ID", "its list of storages is no list of different names")
    if set(keys) != claims.known.keys():
        raise unsafe("STORAGE_MISSING", "its list of storages is not that of its tensors")
    offsets = {}
    for key in keys:
        file.seek(position)
        length = file.read(8)
        if len(length) != 8:
            raise unreadable("LEGACY_TRUNCATED", "it ends before its last storage; was the upload complete?")
        (count,) = struct.unpack("<q", length)
        num_bytes = claims.known[key].num_bytes
        if count * ITEM_BYTES[claims.types[key]] != num_bytes:
            raise unsafe(
                "STORAGE_SIZE", f"the storage {shown(key)} claims {num_bytes} bytes and has {count} elements"
            )
        offsets[key] = position + 8
        position += 8 + num_bytes
        if position > file_bytes:
            raise unreadable("LEGACY_TRUNCATED", "it ends before its last storage; was the upload complete?")
    if position != file_bytes:
        raise unsafe("LEGACY_TRAILING", f"{file_bytes - position} bytes follow its last storage")
    return offsets
