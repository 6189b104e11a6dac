"""Small pictures and archives, made in memory."""

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image


def picture(
    number: int = 0, format: str = "JPEG", size: tuple[int, int] = (12, 8), mode: str = "RGB", **options: Any
) -> bytes:
    """An image file whose bytes depend on `number`."""
    colour: Any = tuple(
        (number * factor + 40) % 256 for factor in (7, 31, 101, 3)[: len(Image.new(mode, (1, 1)).getbands())]
    )
    image = Image.new(mode, size, colour if len(colour) > 1 else colour[0])
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def photos(*names: str) -> dict[str, bytes]:
    """A different picture for every name."""
    return {name: picture(number) for number, name in enumerate(names)}


def two_classes(prefix: str = "", count: int = 4) -> dict[str, bytes]:
    return photos(*(f"{prefix}{name}/{n}.jpg" for name in ("cat", "dog") for n in range(count)))


def make_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def make_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path
