"""Image files written or changed part by part."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image

RED = (200, 30, 40)


def encoded(
    format: str, mode: str = "RGB", size: tuple[int, int] = (24, 16), colour: Any = RED, **options: Any
) -> bytes:
    """What Pillow makes of one colour."""
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, format, **options)
    return file.getvalue()


def halves(format: str, **options: Any) -> bytes:
    """24 x 16, red above blue."""
    image = Image.new("RGB", (24, 16), (30, 40, 200))
    image.paste(RED, (0, 0, 24, 8))
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


# ---- PNG, https://www.w3.org/TR/png-3/


def chunk(kind: bytes, data: bytes = b"", crc: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(
    width: int = 24,
    height: int = 16,
    *,
    depth: int = 8,
    colour: int = 2,
    interlace: int = 0,
    pixels: bytes | None = None,
    before: bytes = b"",
    between: bytes = b"",
    behind: bytes = b"",
    idat: bytes | None = None,
    header: bytes | None = None,
) -> bytes:
    """`pixels`: the rows, each with its filter byte; red where not given (for 8 bits of RGB). `before` IDAT, `between` IHDR
    and it, `behind` IDAT: more chunks."""
    if pixels is None and idat is None:
        pixels = (b"\0" + bytes(RED) * width) * height
    packed = idat if idat is not None else zlib.compress(pixels or b"")
    ihdr = struct.pack(">2I5B", width, height, depth, colour, 0, 0, interlace) if header is None else header
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", ihdr)
        + between
        + before
        + chunk(b"IDAT", packed)
        + behind
        + chunk(b"IEND")
    )


def zipped_text(kind: bytes, size: int) -> bytes:
    """A text or profile chunk that unpacks to `size` bytes."""
    packed = zlib.compress(bytes(size))
    start = {b"zTXt": b"Comment\0\0", b"iTXt": b"Comment\0\x01\0\0\0", b"iCCP": b"icc\0\0"}[kind]
    return chunk(kind, start + packed)


# ---- JPEG, ITU T.81


def segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, everything from the marker to the next one), with coded data in its SOS."""
    at = 2
    while at < len(jpeg):
        marker = jpeg[at + 1]
        if marker == 0xD9:
            return
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == 0xDA:
            while not (jpeg[end] == 0xFF and jpeg[end + 1] not in (0, *range(0xD0, 0xD8))):
                end += 1
        yield marker, jpeg[at:end]
        at = end


def with_scans(size: tuple[int, int], repeat: int) -> bytes:
    """A progressive JPEG whose last scan comes `repeat` times more."""
    jpeg = encoded("JPEG", size=size, progressive=True)
    parts = [part for _, part in segments(jpeg)]
    return b"\xff\xd8" + b"".join([*parts, *([parts[-1]] * repeat)]) + b"\xff\xd9"


def changed_frame(
    jpeg: bytes, *, marker: int | None = None, precision: int = 8, size: tuple[int, int] | None = None
) -> bytes:
    """The JPEG with another SOF marker, precision, or size in its frame header."""
    result = b"\xff\xd8"
    for found, part in segments(jpeg):
        if 0xC0 <= found <= 0xC2:
            width, height = size or (int.from_bytes(part[7:9], "big"), int.from_bytes(part[5:7], "big"))
            part = (
                part[:1]
                + bytes([marker or found])
                + part[2:4]
                + struct.pack(">B2H", precision, height, width)
                + part[9:]
            )
        result += part
    return result + b"\xff\xd9"


def segment(marker: int, content: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segments(jpeg: bytes, more: bytes) -> bytes:
    return jpeg[:2] + more + jpeg[2:]


def exif(orientation: int) -> bytes:
    """An EXIF block with one tag."""
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<2HIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)


# ---- WebP, https://developers.google.com/speed/webp/docs/riff_container


def riff(*parts: tuple[bytes, bytes], size: int | None = None) -> bytes:
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in parts
    )
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def vp8x(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    return b"VP8X", bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(
        3, "little"
    )


def webp_part(**options: Any) -> tuple[bytes, bytes]:
    """The coded picture of a simple WebP file."""
    content = encoded("WEBP", **options)
    return content[12:16], content[20:]


# ---- BMP


def bmp(
    width: int = 24,
    height: int = 16,
    *,
    bits: int = 24,
    compression: int = 0,
    pixels: bytes | None = None,
    palette: bytes = b"",
    offset: int | None = None,
    header_size: int = 40,
    colours: int = 0,
) -> bytes:
    """`pixels`: the rows from below, red where not given."""
    if pixels is None:
        row = bytes(reversed(RED)) * width
        pixels = (row + bytes(-len(row) % 4)) * abs(height)
    start = 14 + 40 + len(palette) if offset is None else offset
    head = struct.pack("<2sI2HI", b"BM", 54 + len(palette) + len(pixels), 0, 0, start)
    info = struct.pack(
        "<I2i2H6I", header_size, width, height, 1, bits, compression, len(pixels), 0, 0, colours, 0
    )
    return head + info + palette + pixels
