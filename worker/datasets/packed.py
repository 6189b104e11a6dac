"""The bytes inside .gz and .xz, as a stream in bounded memory."""

import io
import lzma
import zlib
from collections.abc import Callable
from typing import IO, Any

_CHUNK = 1 << 16
# `xz -9` needs 65 MiB; a header may ask for a dictionary of 4 GB.
_XZ_MEMORY = 256 << 20


def unpacked(file: IO[bytes], head: bytes) -> IO[bytes]:
    """What the open file holds once unpacked, by its first bytes; the file itself when it is not packed."""
    if head.startswith(b"\x1f\x8b"):
        return _Unpacked(file, _Gzip)  # type: ignore[return-value]
    if head.startswith(b"\xfd7zXZ\x00"):
        return _Unpacked(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))  # type: ignore[return-value]
    return file


class _Gzip:
    """zlib's decompressor, with the face of lzma's.

    Not `gzip.GzipFile`: it looks for the end of the name in the header one byte at a time, for hours if a header
    has no end.
    """

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


class _Unpacked(io.RawIOBase):
    """One stream after the other, as gzip and xz join them; zeros between them are padding."""

    def __init__(self, file: IO[bytes], make: Callable[[], Any]) -> None:
        self._file = file
        self._make = make
        self._decompressor = make()
        self._pending = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not (self._decompressor.eof and not self._begin_next()):
            packed = self._more() if self._decompressor.needs_input else b""
            if data := self._decompressor.decompress(packed, size):
                return bytes(data)
        return b""

    def _more(self) -> bytes:
        packed, self._pending = self._pending or self._file.read(_CHUNK), b""
        if not packed:
            raise EOFError("the packed stream ends early")
        return packed

    def _begin_next(self) -> bool:
        """Whether another stream follows the one that ended."""
        rest = (self._pending or self._decompressor.unused_data).lstrip(b"\0")
        while not rest:
            more = self._file.read(_CHUNK)
            if not more:
                return False
            rest = more.lstrip(b"\0")
        self._decompressor, self._pending = self._make(), rest
        return True
