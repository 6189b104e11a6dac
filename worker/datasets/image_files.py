"""What an image file costs to decode, read from its structure before any decoder sees it.

A decoder's time grows with pixels times scans (JPEG), and Pillow walks over chunks and segments in Python. So both
are bounded here, and no clock is needed: the same file has the same verdict on every machine.
"""

import re
import struct
import zlib
from collections.abc import Callable

# Ordinary progressive files have 10 scans, carefully packed ones up to some twenty.
MAX_SCANS = 100
MAX_SCANNED_PIXELS = 500_000_000
MAX_PARTS = 50_000
"""Chunks or segments. 64 MiB in PNG chunks of 4 KB are 16,000; Pillow needs about 10 µs for each."""
MAX_EXIF_BLOCKS = 20
"""Ordinary files have one. Pillow joins them in quadratic time: 1,000 of 64 KB took 70 s."""
MAX_RLE_PIXELS = 1_000_000
"""Of a run-length coded BMP, which Pillow unpacks in Python: 2 µs a run."""

# Within the coded data FF00 is a byte FF, FFD0 to FFD7 are restarts, FFFF is filling.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_EOI, _SOS, _APP1 = 0xD9, 0xDA, 0xE1
_MARKERS_ALONE = {0x01, 0xC8, 0xD8, _EOI, *range(0xF0, 0xFE)}
_BMP_RLE = (1, 2)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and the steps, of an interlaced PNG's seven passes."""


class BadImageError(Exception):
    """Why a file cannot be used as an image, in words for its owner."""


def check_structure(data: bytes) -> Callable[[int, int], None]:
    """Walk over the file's parts. Returns a check of width and height that the decoder must pass before it
    decodes. Raises BadImageError."""
    if data.startswith(b"\xff\xd8"):
        num_scans = _count_scans(data)
        return lambda width, height: _check_scans(num_scans, width * height)
    if data.startswith(b"\x89PNG"):
        coded = _png_pixels(data)
        return lambda width, height: _check_rows(data[24:29], coded, width, height)
    if data.startswith(b"RIFF"):
        _check_webp(data)
    elif data.startswith(b"BM") and int.from_bytes(data[30:34], "little") in _BMP_RLE:
        return lambda width, height: _check_rle(len(data), width, height)
    return lambda width, height: None


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from the header, https://developers.google.com/speed/webp/docs/riff_container."""
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise BadImageError("is a WebP file cut off in its header")
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    raise BadImageError("is a WebP file of an unknown kind")


def _count_scans(data: bytes) -> int:
    """The scans of a JPEG, up to its end; what comes behind (a second view, a film) is no part of it.

    Step by step as Pillow walks over the header, which is not as the standard has it: it goes on behind an early end,
    and takes some markers to have no content. Where the structure is broken it is the decoder's turn to say so.
    """
    at, scans, filling, exif_blocks = 2, 0, 0, 0
    for _ in range(MAX_PARTS):
        match = _NEXT_MARKER.search(data, at)
        filling += 0 if scans else (match.start() if match else len(data)) - at
        if filling > MAX_PARTS:
            raise BadImageError(f"has more than {MAX_PARTS} bytes of filling in its header")
        if match is None:
            return scans
        marker, at = data[match.start() + 1], match.end()
        if marker == _EOI and scans:
            return scans
        if marker in _MARKERS_ALONE:
            continue
        scans += marker == _SOS
        exif_blocks += marker == _APP1 and data[at + 2 : at + 6] == b"Exif"
        if scans > MAX_SCANS:
            raise BadImageError(f"has more than {MAX_SCANS} scans: save it again as a baseline JPEG")
        if exif_blocks > MAX_EXIF_BLOCKS:
            raise BadImageError(f"has more than {MAX_EXIF_BLOCKS} EXIF blocks: save it again without them")
        at += int.from_bytes(data[at : at + 2], "big")
    raise BadImageError(f"has more than {MAX_PARTS} segments")


def _check_scans(num_scans: int, num_pixels: int) -> None:
    if num_scans * num_pixels > MAX_SCANNED_PIXELS:
        raise BadImageError(
            f"has {num_scans} scans of {num_pixels} pixels, and at most {MAX_SCANNED_PIXELS} are decoded: "
            "save it again as a baseline JPEG"
        )


def _png_pixels(data: bytes) -> list[memoryview]:
    """The coded pixels of a PNG, chunk by chunk."""
    at = 8
    found: list[memoryview] = []
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return found
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IEND":
            return found
        if kind == b"IDAT":
            found.append(memoryview(data)[at + 8 : at + 8 + length])
        elif kind == b"acTL" and int.from_bytes(data[at + 8 : at + 12], "big") > 1:
            raise BadImageError("is an animation: save the one frame that shows the class")
        at += 12 + length
    raise BadImageError(f"has more than {MAX_PARTS} chunks")


def _check_rows(form: bytes, coded: list[memoryview], width: int, height: int) -> None:
    """Pillow takes pixels that end early, and leaves the rest black. `form`: the end of the header, from the depth on."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(form[1] if len(form) == 5 else -1)
    if channels is None:
        return  # the decoder says why not
    passes = _ADAM7 if form[4] else ((0, 0, 1, 1),)
    missing = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            missing += rows * (1 + (columns * channels * form[0] + 7) // 8)
    unpacker = zlib.decompressobj()
    for part in coded:
        packed: bytes | memoryview = part
        while packed and missing > 0 and not unpacker.eof:
            try:
                missing -= len(unpacker.decompress(packed, 1 << 20))
            except zlib.error:
                return
            packed = unpacker.unconsumed_tail
    if missing > 0:
        raise BadImageError("is cut off: it holds fewer pixels than it says")


def _check_webp(data: bytes) -> None:
    at, frames = 12, 0
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return
        kind, length = struct.unpack_from("<4sI", data, at)
        frames += kind == b"ANMF"
        if frames > 1:
            raise BadImageError("is an animation: save the one frame that shows the class")
        at += 8 + length + length % 2
    raise BadImageError(f"has more than {MAX_PARTS} chunks")


def _check_rle(num_bytes: int, width: int, height: int) -> None:
    """A run takes two bytes and has a pixel at least; what is more are runs of nothing."""
    if width * height > MAX_RLE_PIXELS or num_bytes > 3 * width * height + (64 << 10):
        raise BadImageError(
            f"is a run-length coded BMP of {width}x{height} pixels in {num_bytes} bytes, and at most {MAX_RLE_PIXELS:,} "
            "pixels of 3 bytes are read: save it as PNG"
        )
