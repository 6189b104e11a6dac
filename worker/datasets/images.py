"""Decoding one image file that a stranger sent."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from worker.datasets.entries import printable
from worker.datasets.image_files import BadImageError, check_structure, webp_size
from worker.datasets.recognised import HEAD, foreign_image, is_image

MAX_BYTES = 64 << 20
MAX_PIXELS = 25_000_000
MAX_ASPECT = 100
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_PHOTO_ENDINGS = {
    *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib"),
    # Not read, but somebody's photo all the same: to be named as bad, not passed over in silence.
    *("gif", "tif", "tiff", "heic", "heif", "avif", "jp2", "jxl", "svg", "ppm", "pgm", "tga"),
}
_ORIENTATION = 0x0112


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow warns about odd EXIF blocks and palettes; a photo that decodes is good. Enter once, outside the
    decoding threads: the list of warning filters belongs to the process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def claims_to_be_image(head: bytes, path: str) -> bool:
    """Whether a file must be a good image: it begins like one, is named like one, or is one of a kind that we do
    not read and has no ending that says so."""
    name = path.rpartition("/")[2]
    ending = name.rpartition(".")[2].casefold() if "." in name else None
    return is_image(head) or ending in _PHOTO_ENDINGS or (ending is None and foreign_image(head) is not None)


@dataclass(frozen=True)
class Size:
    height: int
    width: int


def check_image(data: bytes) -> Size:
    """Decode the file fully and return its size as shown (EXIF orientation counts). Raises BadImageError.

    Pillow's own limit is far looser (a 693-byte JPEG header costs 1.3 GB). A photo with several pictures in one
    JPEG (a phone's MPO: depth, a second view) is its first picture.
    """
    _check_kind(data[:HEAD])
    if len(data) > MAX_BYTES:
        raise BadImageError(f"has more than {MAX_BYTES} bytes: save it smaller")
    check_cost = check_structure(data)
    if data[:4] == b"RIFF":  # Pillow's WebP plugin allocates the canvas on opening
        _check_pixels(*webp_size(data))
    try:
        with open_image(data) as image:
            _check_pixels(*image.size)
            check_cost(*image.size)
            image.load()
            turned = _orientation(image) in (5, 6, 7, 8)
            width, height = image.size
    except (BadImageError, MemoryError):  # too little memory says nothing about the image
        raise
    except Image.DecompressionBombError:  # Pillow's limit comes first where it is met on opening
        raise BadImageError(f"has far more than {MAX_PIXELS:,} pixels: scale it down") from None
    except UnidentifiedImageError:  # whose text holds an address
        raise BadImageError("cannot be decoded (its header is damaged)") from None
    except Exception as error:  # Pillow's plugins raise whatever their parsers stumble over
        reason = printable(f"{type(error).__name__}: {str(error)[:120]}")
        raise BadImageError(f"cannot be decoded ({reason})") from error
    return Size(width, height) if turned else Size(height, width)


def open_image(data: bytes) -> Image.Image:
    """Pillow's image of a file in one of our formats, not yet decoded."""
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _orientation(image: Image.Image) -> object:
    """As the reader of artifacts takes it: a broken EXIF block turns nothing."""
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # Pillow's EXIF parser raises whatever it stumbles over
        return None


def _check_kind(head: bytes) -> None:
    if not head:
        raise BadImageError("is empty")
    if is_image(head):
        return
    if what := foreign_image(head):
        raise BadImageError(f"is {what}, which is not read: save it as PNG or JPEG")
    raise BadImageError("is no image: PNG, JPEG, WebP and BMP are read")


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
