"""What a file is by its first bytes: to say its name when it is nothing that we read."""

# (offset, bytes, what it is)
_ARCHIVES = (
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a rar archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (0, b"\x04\x22\x4d\x18", "an lz4 archive"),
    (0, b"LZIP", "an lzip archive"),
    (0, b"\x1f\x9d", "an archive packed by `compress` (.Z)"),
    (0, b"!<arch>\n", "an ar archive (.deb, .a)"),
    (0, b"070701", "a cpio archive"),
    (0, b"070707", "a cpio archive"),
    (0, b"MSCF", "a cabinet (.cab)"),
    (0, b"xar!", "a xar archive"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy file"),
    (0, b"SQLite format 3\0", "a SQLite database"),
    (0, b"%PDF", "a PDF"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a Windows program (a zip that unpacks itself?)"),
)
_PACKED = ((0, b"PK\x03\x04"), (0, b"\x1f\x8b"), (0, b"\xfd7zXZ\x00"), (257, b"ustar"))
_PACKED_ENDINGS = ("zip", "tar", "tgz", "gz", "xz", "txz", "bz2", "tbz2", "zst", "7z", "rar", "lz4")

_IMAGES = (
    (0, b"GIF8", "a GIF"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    (0, b"II+\0", "a TIFF"),
    (0, b"MM\0+", "a TIFF"),
    (4, b"ftypavif", "an AVIF"),
    (4, b"ftypavis", "an AVIF"),
    (4, b"ftyphei", "a HEIC"),
    (4, b"ftyphev", "a HEIC"),
    (4, b"ftypmif1", "a HEIC"),
    (4, b"ftypmsf1", "a HEIC"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"v/1\x01", "an OpenEXR file"),
)
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
HEAD = 512
"""So many first bytes decide."""


def foreign_archive(head: bytes) -> str | None:
    """What this is, when it is certainly neither a zip nor a tar."""
    if not head:
        return "empty"
    if is_image(head):
        return "a single image"
    if what := _named(head, _ARCHIVES) or foreign_image(head):
        return what
    return "an HTML page (the answer of a download that failed?)" if _is_html(head) else None


def is_archive(head: bytes, path: str) -> bool:
    """Whether a member looks like an archive of its own."""
    begins = any(head[at : at + len(magic)] == magic for at, magic in _PACKED)
    return begins or path.rpartition(".")[2].casefold() in _PACKED_ENDINGS


def is_image(head: bytes) -> bool:
    """Whether the first bytes are those of a format we read: PNG, JPEG, WebP, BMP."""
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return True
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    # "BM" begins many words.
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS


def foreign_image(head: bytes) -> str | None:
    """What kind of image this is, of those that are not read."""
    if what := _named(head, _IMAGES):
        return what
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:256].lower()
    is_svg = start.startswith(b"<svg") or (
        start.startswith((b"<?xml", b"<!doctype svg")) and b"<svg" in head.lower()
    )
    return "an SVG drawing" if is_svg or start.startswith(b"<!doctype svg") else None


def _named(head: bytes, known: tuple[tuple[int, bytes, str], ...]) -> str | None:
    return next((what for at, magic, what in known if head[at : at + len(magic)] == magic), None)


def _is_html(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].lower().startswith((b"<!doctype html", b"<html"))
