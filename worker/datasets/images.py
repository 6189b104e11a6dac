"""Decoding one image file that a stranger sent."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

MAX_PIXELS = 25_000_000
MAX_ASPECT = 100
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_PHOTO_ENDINGS = {
    *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib"),
    # Not read, but somebody's photo all the same: to be named as bad, not passed over in silence.
    *("gif", "tif", "tiff", "heic", "heif", "avif", "jp2", "ppm", "pgm", "tga"),
}
_ORIENTATION = 0x0112


class BadImageError(Exception):
    """Why a file cannot be used as an image, in words for its owner."""


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow warns about odd EXIF blocks and palettes; a photo that decodes is good. Enter once, outside the
    decoding threads: the list of warning filters belongs to the process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def looks_like_image(head: bytes) -> bool:
    """By content: whether the first 12 bytes are those of a format we read."""
    return head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM")) or (
        head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    )


def named_like_image(path: str) -> bool:
    return path.rpartition(".")[2].casefold() in _PHOTO_ENDINGS


@dataclass(frozen=True)
class Size:
    height: int
    width: int


def check_image(data: bytes) -> Size:
    """Decode the file fully and return its size as shown (EXIF orientation counts). Raises BadImageError.

    Pillow's own limit is far looser (a 693-byte JPEG header costs 1.3 GB), and its WebP plugin allocates the
    canvas on opening.
    """
    if data[:4] == b"RIFF":
        _check_pixels(*_webp_size(data))
    try:
        with open_image(data) as image:
            _check_pixels(*image.size)
            image.load()
            turned = image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
            width, height = image.size
    except BadImageError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever their parsers stumble over
        raise BadImageError(f"cannot be decoded ({type(error).__name__}: {str(error)[:120]})") from error
    return Size(width, height) if turned else Size(height, width)


def open_image(data: bytes) -> Image.Image:
    """Pillow's image of a file in one of our formats, not yet decoded."""
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadImageError(f"has {width}x{height} pixels; at most {MAX_PIXELS:,} are read: scale it down")
    if width < 1 or height < 1:
        raise BadImageError("has no pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        # Scaling the shorter side of such a strip up to a network's input would take gigabytes.
        raise BadImageError(
            f"has {width}x{height} pixels: one side is more than {MAX_ASPECT} times the other"
        )


def _webp_size(data: bytes) -> tuple[int, int]:
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
