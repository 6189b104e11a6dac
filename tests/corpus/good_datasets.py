"""Data sets as people make them: all are taken. `expected` is the number of images in each class over all splits."""

import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.corpus.case import Case
from tests.corpus.image_bytes import encoded, exif, halves
from tests.corpus.photos import data_set, photo, zipped
from tests.corpus.tar_bytes import END, header, member, pax
from tests.corpus.zip_bytes import DEFLATED, STORED, Member, make_zip, zip64_end

Files = dict[str, bytes]


@dataclass(frozen=True)
class GoodDataset(Case):
    expected: dict[str, int] = field(default_factory=dict)


def cases() -> Iterator[GoodDataset]:
    four = {"cat": 4, "dog": 4}
    for name, make in _CONTAINERS.items():
        yield _good(name, make, four)
    for name, (files, expected) in _layouts().items():
        yield _good(name, _zip_of(files), expected)
    for name, files in _pictures().items():
        yield _good(f"pictures: {name}", _zip_of(data_set() | files), {"cat": 4 + len(files), "dog": 4})
    broken = data_set() | {"cat/broken.jpg": b"\xff\xd8\xff\xe0broken", "dog/empty.png": b""}
    yield _good("two broken images, allowed", _zip_of(broken), four, max_bad_images=2)


def _good(name: str, make: Callable[[], bytes], expected: dict[str, int], **request: Any) -> GoodDataset:
    return GoodDataset(f"good: {name}", make, 201, "", request=request, expected=expected)


def _zip_of(files: Files) -> Callable[[], bytes]:
    return lambda: zipped(files, zipfile.ZIP_DEFLATED)


# ---- containers


def _tar(mode: str = "w", prefix: str = "", folders: tuple[str, ...] = (), **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as archive:  # type: ignore[call-overload]
        for name in folders:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        for name, content in data_set(prefix).items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_700_000_000.5  # type: ignore[assignment]  # pax has fractions
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _macos() -> bytes:
    """As Finder compresses a folder: its own files between ours, and sizes behind the bytes."""
    members = [
        Member(b"photos/", method=STORED, external=0o040755 << 16),
        Member(b"photos/.DS_Store", b"\0\0\0\1Bud1"),
    ]
    for name, content in data_set("photos/").items():
        folder, _, file = name.rpartition("/")
        members.append(Member(name.encode(), content, DEFLATED, flags=0, descriptor=True))
        members.append(
            Member(f"__MACOSX/{folder}/._{file}".encode(), b"\0\5\x16\7\0\2\0\0", flags=0, descriptor=True)
        )
    return make_zip(members)


def _windows() -> bytes:
    """Backslashes, folders of their own, no Unix attributes, Thumbs.db."""
    members = [
        Member(name.encode(), b"", STORED, flags=0, external=0x10, made_by=20) for name in ("cat\\", "dog\\")
    ]
    for name, content in data_set().items():
        path = name.replace("/", "\\").replace(".png", ".PNG").encode()
        members.append(Member(path, content, flags=0, external=0x20, made_by=20))
    members.append(Member(b"cat\\Thumbs.db", bytes(100), flags=0, external=0x26, made_by=20))
    return make_zip(members)


def _with_extras() -> bytes:
    """Info-ZIP: times and owners in extra fields, a comment, folders."""
    times = b"UT\x05\x00\x03\x00\x00\x00\x60"
    owner = b"ux\x0b\x00\x01\x04\xe8\x03\x00\x00\x04\xe8\x03\x00\x00"
    members = [Member(b"cat/", method=STORED, external=0o040755 << 16 | 0x10)]
    members += [
        Member(name.encode(), content, extra=times + owner, flags=0) for name, content in data_set().items()
    ]
    return make_zip(members, comment=b"taken in 2024")


def _zip64() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in data_set().items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(content)
    return zip64_end(buffer.getvalue())


def _streamed() -> bytes:
    """By a program that cannot seek."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.written = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.written += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in data_set().items():
            archive.writestr(name, content)
    return pipe.written


def _old_tar() -> bytes:
    """Before ustar: no magic, folders by their slash alone."""
    parts = [header(b"cat/", type=b"\0", magic=b"")]
    parts += [member(name.encode(), content, b"\0", magic=b"") for name, content in data_set().items()]
    return b"".join(parts) + END


def _git_archive() -> bytes:
    """A global header with a comment comes first."""
    comment = pax((b"comment", b"d" * 40), type=b"g")
    return comment + b"".join(member(name.encode(), content) for name, content in data_set().items()) + END


def _macos_tar() -> bytes:
    """bsdtar: attributes in pax headers, and files ._ beside the real ones."""
    parts = []
    for name, content in data_set().items():
        folder, _, file = name.rpartition("/")
        parts.append(member(f"{folder}/._{file}".encode(), b"\0\5\x16\7"))
        parts.append(
            pax((b"LIBARCHIVE.xattr.com.apple.quarantine", b"MDA4MTs="), (b"mtime", b"1700000000.25"))
        )
        parts.append(member(name.encode(), content))
    return b"".join(parts) + END


def _joined_gzip() -> bytes:
    tar = _tar()
    return gzip.compress(tar[:3000]) + gzip.compress(tar[3000:])


_CONTAINERS: dict[str, Callable[[], bytes]] = {
    "zip, deflated": lambda: zipped(data_set(), zipfile.ZIP_DEFLATED),
    "zip, stored": lambda: zipped(data_set()),
    "zip by macOS": _macos,
    "zip by Windows": _windows,
    "zip by Info-ZIP": _with_extras,
    "zip64": _zip64,
    "zip, streamed": _streamed,
    "tar, GNU": lambda: _tar(format=tarfile.GNU_FORMAT),
    "tar, pax": lambda: _tar(format=tarfile.PAX_FORMAT),
    "tar, ustar": lambda: _tar(format=tarfile.USTAR_FORMAT),
    "tar, v7": _old_tar,
    "tar of the folder itself": lambda: _tar(prefix="./", folders=("./", "./cat/", "./dog/")),
    "tar, long names by GNU": lambda: _tar(prefix="a" * 90 + "/" + "b" * 90 + "/", format=tarfile.GNU_FORMAT),
    "tar, long names by pax": lambda: _tar(prefix="a" * 90 + "/" + "é" * 90 + "/", format=tarfile.PAX_FORMAT),
    "tar, long names by ustar": lambda: _tar(
        prefix="a" * 90 + "/" + "b" * 50 + "/", format=tarfile.USTAR_FORMAT
    ),
    "tar by git": _git_archive,
    "tar by macOS": _macos_tar,
    "tar with zeros behind it": lambda: _tar() + bytes(50_000),
    "tar whose first name looks like another format": lambda: _tar(prefix="BZh-PAR1/"),
    "tar.gz": lambda: _tar("w:gz"),
    "tar.gz of two streams": _joined_gzip,
    "tar.gz with zeros behind it": lambda: gzip.compress(_tar()) + bytes(512),
    "tar.xz": lambda: _tar("w:xz"),
    "tar.xz of two streams": lambda: lzma.compress(_tar()[:3000]) + lzma.compress(_tar()[3000:]),
    "tar.xz, best packed": lambda: lzma.compress(_tar(), preset=9 | lzma.PRESET_EXTREME),
}


# ---- layouts and names


def _renamed(**classes: str) -> Files:
    return {
        f"{classes[name.split('/')[0]]}/{name.split('/')[1]}": content for name, content in data_set().items()
    }


def _split(*names: str, prefix: str = "") -> Files:
    """Each split with other pictures."""
    return {
        f"{prefix}{split}/{label}/{n}.png": photo(100 * position + 10 * k + n)
        for position, split in enumerate(names)
        for k, label in enumerate(("cat", "dog"))
        for n in range(2)
    }


def _layouts() -> dict[str, tuple[Files, dict[str, int]]]:
    four = {"cat": 4, "dog": 4}
    clutter = {
        "README.md": b"# Photos",
        "LICENSE": b"CC0",
        "cat/notes.txt": b"x",
        ".git/HEAD": b"ref",
        "BMW.txt": b"BM is no image",
    }
    return {
        "in a folder": (data_set("photos/"), four),
        "in two folders": (data_set("my photos (1)/data set/"), four),
        "train and val": (_split("train", "val"), four),
        "Training, Validation, Testing": (_split("Training", "Validation", "Testing"), {"cat": 6, "dog": 6}),
        "splits in a folder": (_split("train", "valid", prefix="archive/"), four),
        "flat names of the course": (
            {
                f"food-11/training/{label}_{n}.jpg": photo(10 * label + n)
                for label in (0, 1)
                for n in range(4)
            },
            {"0": 4, "1": 4},
        ),
        "with images without a class": (data_set() | {"unlabeled/1.png": photo(99)}, four),
        "with clutter": (data_set() | clutter, four),
        "with an archive beside the images": (data_set() | {"labels.zip": zipped({"a.csv": b"x"})}, four),
        "names with spaces": (_renamed(cat="house cat", dog="wild dog"), {"house cat": 4, "wild dog": 4}),
        "names in Japanese and Arabic": (_renamed(cat="猫", dog="كلب"), {"猫": 4, "كلب": 4}),
        "names with accents": (_renamed(cat="café", dog="Übung"), {"café": 4, "Übung": 4}),
        "names of joined emoji": (_renamed(cat="👩\u200d🔬", dog="👍🏽"), {"👩\u200d🔬": 4, "👍🏽": 4}),
        "names that Windows reserves": (_renamed(cat="con", dog="aux"), {"con": 4, "aux": 4}),
        "names with dots": (_renamed(cat="v1.0", dog="a..b"), {"v1.0": 4, "a..b": 4}),
        "names like numbers": (_renamed(cat="001", dog="010"), {"001": 4, "010": 4}),
        "names in upper and lower case": (_renamed_apart(), {"A": 4, "a": 4}),
        "endings of all kinds": (_endings(), {"cat": 6, "dog": 6}),
        "one image a class": ({"cat/1.png": photo(1), "dog/1.png": photo(2)}, {"cat": 1, "dog": 1}),
        "the same image twice": (data_set() | {"cat/copy.png": photo(0)}, {"cat": 5, "dog": 4}),
    }


def _renamed_apart() -> Files:
    """Letters: capital and small ones are different classes, and their files have different names."""
    return {f"{letter}/{ord(letter)}-{n}.png": photo(ord(letter) + n) for letter in "Aa" for n in range(4)}


def _endings() -> Files:
    endings = ("JPG", "jpeg", "Png", "jfif", "", "x.jpg")
    return {
        f"{label}/{n}{'.' if ending else ''}{ending}": encoded("JPEG", colour=(40 * n, 90 * k, 7))
        for k, label in enumerate(("cat", "dog"))
        for n, ending in enumerate(endings)
    }


def _pictures() -> dict[str, Files]:
    grey16 = encoded("PNG", "I;16", colour=25_700)
    return {
        "PNG, JPEG, WebP, BMP": {
            f"cat/x.{format.lower()}": encoded(format) for format in ("PNG", "JPEG", "WEBP", "BMP")
        },
        "turned by EXIF": {f"cat/turned{n}.jpg": halves("JPEG", exif=exif(n)) for n in range(1, 9)},
        "CMYK": {"cat/print.jpg": encoded("JPEG", "CMYK", colour=(0, 255, 255, 0))},
        "16 bits": {"cat/scan.png": grey16},
        "palette with transparency": {"cat/icon.png": encoded("PNG", "P", colour=1, transparency=b"\0\x80")},
        "grey, with and without alpha": {
            "cat/l.png": encoded("PNG", "L", colour=9),
            "cat/la.png": encoded("PNG", "LA", colour=(9, 8)),
        },
    }
