"""What strangers send instead of an archive: every case ends in its own refusal, never in a crash or a file
outside."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib

import pytest

from app.errors import Problem
from app.spec.resources import DatasetSpec
from tests.worker.datasets.pictures import make_tar, make_zip, picture, two_classes
from worker.datasets.build import build_dataset
from worker.datasets.entries import Limits
from worker.datasets.names import checked_name

PHOTOS = two_classes("train/") | two_classes("val/", 1)


def build(tmp_path, source, **limits):
    return build_dataset(DatasetSpec(file="a.zip"), source, tmp_path / "out", limits=Limits(**limits))


def refusal(tmp_path, source, **limits):
    with pytest.raises(Problem) as problem:
        build(tmp_path, source, **limits)
    assert problem.value.status == 422
    assert not (tmp_path / "out" / "pack").exists()
    return problem.value


# --- names ---

NAMES = [
    "../evil.jpg",
    "train/../../evil.jpg",
    "/etc/cron.d/evil.jpg",
    "C:/evil.jpg",
    "..\\..\\evil.jpg",
    "\\\\server\\share\\evil.jpg",
    "train//cat.jpg",
    "train/cat/\x01.jpg",
    "train/cat/new\nline.jpg",
    "a/b/c/d/e/f/g/h/i.jpg",
    "x" * 1001,
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_name_that_points_elsewhere_refuses_the_archive(tmp_path, make, name):
    problem = refusal(tmp_path, make(tmp_path / "a", PHOTOS | {name: picture()}))
    assert problem.code == "ARCHIVE_UNSAFE"
    assert problem.detail.isprintable()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("./train/a.jpg", "train/a.jpg"),
        ("train\\cat\\1.jpg", "train/cat/1.jpg"),
        ("train/cat/", "train/cat"),
        ("a..b/c.jpg", "a..b/c.jpg"),
    ],
)
def test_harmless_names(name, expected):
    assert checked_name(name, Limits()) == expected


def test_a_name_that_is_no_text(tmp_path):
    """Latin-1 bytes in a tar become lone surrogates, which no JSON can hold."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("train/caf\xe9/1.jpg")
        archive.addfile(info, io.BytesIO())
    problem = refusal(tmp_path, path)
    assert problem.code == "ARCHIVE_UNSAFE"
    assert "UTF-8" in problem.detail


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice(tmp_path):
    path = make_zip(tmp_path / "a.zip", PHOTOS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train/cat/0.jpg", picture(9))
    assert "twice" in refusal(tmp_path, path).detail


def test_the_same_name_in_two_unicode_forms(tmp_path):
    files = PHOTOS | {"train/cat/caf\u00e9.jpg": picture(1), "train/cat/cafe\u0301.jpg": picture(2)}
    assert "twice" in refusal(tmp_path, make_zip(tmp_path / "a.zip", files)).detail


# --- members that are no files ---


def _tar_with(path, **fields):
    make_tar(path, PHOTOS)
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("train/cat/odd.jpg")
        for name, value in fields.items():
            setattr(info, name, value)
        archive.addfile(info)
    return path


@pytest.mark.parametrize(
    "fields",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.SYMTYPE, "linkname": "0.jpg"},
        {"type": tarfile.LNKTYPE, "linkname": "train/cat/0.jpg"},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5},
        {"type": tarfile.BLKTYPE},
    ],
    ids=["symlink out", "symlink in", "hard link", "fifo", "character device", "block device"],
)
def test_links_and_devices_in_a_tar(tmp_path, fields):
    problem = refusal(tmp_path, _tar_with(tmp_path / "a.tar", **fields))
    assert problem.code == "ARCHIVE_UNSAFE"
    assert "train/cat/odd.jpg" in problem.detail
    assert "tar -h" in problem.detail


def test_a_symlink_in_a_zip(tmp_path):
    path = make_zip(tmp_path / "a.zip", PHOTOS)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("train/cat/link.jpg")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert refusal(tmp_path, path).code == "ARCHIVE_UNSAFE"


# --- bombs ---


def test_a_zip_member_that_unpacks_too_well(tmp_path):
    bomb = make_zip(tmp_path / "a.zip", PHOTOS | {"train/cat/bomb.jpg": b"\xff\xd8\xff" + bytes(20_000_000)})
    problem = refusal(tmp_path, bomb)
    assert problem.code == "ARCHIVE_UNSAFE"
    assert "200 bytes for each packed byte" in problem.detail


@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
def test_a_tar_that_unpacks_too_well(tmp_path, mode):
    """Even where the bomb is no image and its bytes are only passed over."""
    bomb = make_tar(tmp_path / "a", PHOTOS | {"notes.txt": bytes(30_000_000)}, mode)
    assert "200 bytes for each packed byte" in refusal(tmp_path, bomb).detail


def test_many_members_that_point_at_the_same_bytes(tmp_path):
    """Overlapping members (Fifield's zip bomb): no member breaks its own ratio, the whole does."""
    content = b"\xff\xd8\xff" + picture(5, "PNG", (64, 64)) * 50
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/0.jpg", content)
        first = archive.infolist()[0]
        for number in range(1, 3000):
            info = zipfile.ZipInfo("cat/0.jpg")
            info.header_offset, info.CRC = first.header_offset, first.CRC
            info.file_size = info.compress_size = first.file_size
            archive.filelist.append(info)
            archive.NameToInfo[f"cat/{number}.jpg"] = info
    problem = refusal(tmp_path, path)
    assert problem.code in ("ARCHIVE_UNSAFE", "ARCHIVE_UNREADABLE")


def test_total_bytes(tmp_path):
    files = {f"cat/{n}.bmp": picture(n, "BMP", (64, 64)) for n in range(10)}
    problem = refusal(
        tmp_path, make_zip(tmp_path / "a.zip", files, zipfile.ZIP_STORED), max_total_bytes=50_000
    )
    assert "larger than 50000 bytes" in problem.detail


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_too_many_members(tmp_path, make):
    problem = refusal(tmp_path, make(tmp_path / "a", PHOTOS), max_members=9)
    assert problem.code == "ARCHIVE_UNSAFE"
    assert "at most 9" in problem.detail or "more than 9" in problem.detail


def test_a_zip_directory_that_is_too_large_is_not_even_parsed(tmp_path):
    problem = refusal(tmp_path, make_zip(tmp_path / "a.zip", PHOTOS), max_directory_bytes=100)
    assert "at most 100" in problem.detail


def test_a_tar_header_that_asks_for_gigabytes(tmp_path):
    """A pax header's size is believed by tarfile, which reads all of it into memory."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 4 << 30
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    problem = refusal(tmp_path, path)
    assert problem.code == "ARCHIVE_UNSAFE"
    assert "header" in problem.detail


def test_a_chain_of_tar_headers(tmp_path):
    """Python's tarfile recurses into each."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 0
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) * 5000 + bytes(1024))
    assert refusal(tmp_path, path).code == "ARCHIVE_UNSAFE"


def test_a_sparse_tar_member_of_a_terabyte(tmp_path):
    info = tarfile.TarInfo("train/cat/sparse.jpg")
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = tarfile.GNUTYPE_SPARSE
    block[483:495] = b"\x80" + (1 << 40).to_bytes(11, "big")
    block[148:156] = b"        "
    block[148:156] = b"%06o\x00 " % sum(block)
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(block) + bytes(1024))
    assert refusal(tmp_path, path).code == "ARCHIVE_UNSAFE"


def test_an_xz_header_that_asks_for_gigabytes(tmp_path):
    """A dictionary of 1.5 GB: `xz -9` uses 64 MiB."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
    content = bytearray(lzma.compress(make_tar(tmp_path / "plain", PHOTOS).read_bytes(), filters=filters))
    # Block header: its size, flags, filter id 0x21, size of properties 1, the dictionary's size; then padding
    # and a CRC32.
    start = 12
    assert content[start + 2 : start + 4] == b"\x21\x01"
    content[start + 4] = 39  # 3 GiB
    length = (content[start] + 1) * 4
    content[start + length - 4 : start + length] = struct.pack(
        "<I", zlib.crc32(content[start : start + length - 4])
    )
    (tmp_path / "a.tar.xz").write_bytes(content)
    problem = refusal(tmp_path, tmp_path / "a.tar.xz")
    assert problem.code == "ARCHIVE_UNREADABLE"
    assert "emory" in problem.detail


# --- damage ---


def _cut(data, share=0.5):
    return data[: int(len(data) * share)]


def _damaged(tmp_path):
    plain = make_tar(tmp_path / "made", PHOTOS).read_bytes()
    zipped = make_zip(tmp_path / "made", PHOTOS).read_bytes()
    (tmp_path / "made").unlink()
    flipped = bytearray(zipped)
    flipped[100] ^= 0xFF
    return {
        "empty file": b"",
        "text": b"this is no archive" * 100,
        "a single photo": picture(),
        "an html page": b"<!doctype html><title>404</title>" * 30,
        "only zip's first bytes": b"PK\x03\x04",
        "cut zip": _cut(zipped),
        "zip with a flipped bit": bytes(flipped),
        "cut tar": _cut(plain, 0.3),
        "cut gzip": _cut(gzip.compress(plain)),
        "cut xz": _cut(lzma.compress(plain)),
        "gzip of text": gzip.compress(b"hello" * 1000),
        "gzip with rubbish after it": gzip.compress(plain)[:-8] + b"rubbish!",
        "bzip2": bz2.compress(plain),
        "rar": b"Rar!\x1a\x07\x01\x00" + bytes(600),
        "7z": b"7z\xbc\xaf\x27\x1c" + bytes(600),
    }


@pytest.mark.parametrize(
    "what",
    [
        "empty file", "text", "a single photo", "an html page", "only zip's first bytes", "cut zip",
        "zip with a flipped bit", "cut tar",
        "cut gzip", "cut xz", "gzip of text", "gzip with rubbish after it", "bzip2", "rar", "7z",
    ],
)  # fmt: skip
def test_what_is_no_whole_archive(tmp_path, what):
    path = tmp_path / "upload"
    path.write_bytes(_damaged(tmp_path)[what])
    problem = refusal(tmp_path, path)
    assert problem.code == "ARCHIVE_UNREADABLE"
    assert "zip or tar" in problem.detail


def test_an_encrypted_zip(tmp_path):
    path = make_zip(tmp_path / "a.zip", PHOTOS)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    path.write_bytes(content)
    problem = refusal(tmp_path, path)
    assert problem.code == "ARCHIVE_UNREADABLE"
    assert "password" in problem.detail


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_zip_compression(tmp_path, compression):
    problem = refusal(tmp_path, make_zip(tmp_path / "a.zip", PHOTOS, compression))
    assert problem.code == "ARCHIVE_UNREADABLE"
    assert "deflated" in problem.detail


# --- what must work ---


@pytest.mark.parametrize(
    "kind", ["zip deflated", "zip stored", "tar", "tar.gz", "tar.xz", "pax", "with folders"]
)
def test_every_ordinary_archive_gives_the_same_data_set(tmp_path, kind):
    path = tmp_path / "upload"
    if kind.startswith("zip"):
        make_zip(path, PHOTOS, zipfile.ZIP_DEFLATED if "deflated" in kind else zipfile.ZIP_STORED)
    elif kind == "pax":
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            for name, content in PHOTOS.items():
                info = tarfile.TarInfo(name)
                info.size, info.pax_headers = len(content), {"mtime": "1.5"}
                archive.addfile(info, io.BytesIO(content))
    elif kind == "with folders":
        make_zip(path, {"train/": b"", "train/cat/": b"", "train/dog/": b"", "val/": b"", **PHOTOS})
    else:
        make_tar(path, PHOTOS, {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[kind])
    report = build(tmp_path, path)
    reference = build(tmp_path / "reference", make_zip(tmp_path / "reference.zip", PHOTOS))
    assert report == reference


def test_tar_dot(tmp_path):
    """`tar -cf a.tar -C photos .` begins every name with ./"""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in PHOTOS.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    assert build(tmp_path, path)["class_names"] == ["cat", "dog"]


def test_a_link_in_the_operators_folder_is_followed(tmp_path):
    """A farm of links to images elsewhere is how people share disks."""
    (tmp_path / "elsewhere.jpg").write_bytes(picture(50))
    for name, content in PHOTOS.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
    (tmp_path / "photos/train/cat/link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (tmp_path / "photos/train/cat/dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "photos/train/cat/loop").symlink_to(tmp_path / "photos")
    problem = refusal(tmp_path, tmp_path / "photos")
    assert problem.code == "FOLDER_UNREADABLE"
    assert "dangling.jpg" in problem.detail
    (tmp_path / "photos/train/cat/dangling.jpg").unlink()
    assert build(tmp_path, tmp_path / "photos")["splits"]["train"]["num_images"] == 9
