"""A small good data set, to put something bad into."""

import io
import zipfile
from functools import lru_cache

from PIL import Image


@lru_cache
def photo(number: int, size: tuple[int, int] = (16, 12)) -> bytes:
    """A PNG whose bytes depend on `number`."""
    file = io.BytesIO()
    colour = (number * 7 % 256, number * 31 % 256, number * 101 % 256)
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def data_set(prefix: str = "", per_class: int = 4) -> dict[str, bytes]:
    """Two classes without splits."""
    names = [f"{prefix}{name}/{n}.png" for name in ("cat", "dog") for n in range(per_class)]
    return {name: photo(number) for number, name in enumerate(names)}


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()
