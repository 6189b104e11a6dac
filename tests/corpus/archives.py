"""Archives that lie, explode, point elsewhere, or are none. Sent as data sets."""

import bz2
import gzip
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from tests.corpus.case import Case
from tests.corpus.photos import data_set, photo, zipped
from tests.corpus.tar_bytes import END, header, make_tar, member, pax
from tests.corpus.zip_bytes import STORED, Member, deflated, make_zip, photos, zip64_end

UNSAFE, UNREADABLE = "ARCHIVE_UNSAFE", "ARCHIVE_UNREADABLE"


def cases() -> Iterator[Case]:
    yield from _named()
    yield from _zips()
    yield from _zip_directories()
    yield from _tars()
    yield from _tar_headers()
    yield from _bombs()
    yield from _cut()
    yield from _foreign()


def _case(name: str, make: Callable[[], bytes], code: str) -> Case:
    return Case(name, make, 422, code)


# ---- names, in both formats

_NAMES: dict[str, str] = {
    "leaves its folder": "../evil.png",
    "leaves its folder later": "cat/../../evil.png",
    "comes back": "cat/../cat/evil.png",
    "ends with two dots": "cat/..",
    "absolute": "/etc/cron.d/evil.png",
    "a drive": "C:/evil.png",
    "backslashes that leave": "..\\..\\evil.png",
    "a share": "\\\\server\\share\\evil.png",
    "an empty part": "cat//evil.png",
    "a control character": "cat/\x01.png",
    "a line break": "cat/new\nline.png",
    "an escape sequence": "cat/\x1b[2J.png",
    "the C1 control NEL": "cat/\x85.png",
    "an override of direction": "cat/\u202egnp.exe",
    "an isolate of direction": "cat/\u2067x\u2069.png",
    "nine levels": "1/2/3/4/5/6/7/8/9.png",
    "a thousand levels": "x/" * 490 + "a.png",
    "long": "x" * 1001,
}


def _named() -> Iterator[Case]:
    for what, name in _NAMES.items():
        encoded = name.encode()
        yield _case(f"zip name: {what}", partial(_zip_with, Member(encoded, photo(90))), UNSAFE)
        part = pax((b"path", encoded)) + member(b"x", photo(90))
        yield _case(f"tar name: {what}", partial(make_tar, [part]), UNSAFE)
    yield _case("zip name: NUL", lambda: _zip_with(Member(b"cat/x.png\0.txt", photo(90))), UNSAFE)
    yield _case("zip name: empty", lambda: _zip_with(Member(b"", photo(90))), UNSAFE)
    yield _case("tar name: not UTF-8", lambda: make_tar([member(b"cat/caf\xe9.png", photo(90))]), UNSAFE)
    twice = {"twice": b"cat/0.png", "twice, in other case": b"CAT/0.PNG"}
    for what, again in twice.items():
        yield _case(f"zip name: {what}", partial(_zip_with, Member(again, photo(90))), UNSAFE)
        yield _case(f"tar name: {what}", partial(make_tar, [member(again, photo(90))]), UNSAFE)
    forms = ("cat/caf\u00e9.png", "cat/cafe\u0301.png")
    yield _case(
        "zip name: twice, in two Unicode forms",
        lambda: _zip_with(*(Member(form.encode(), photo(90 + n)) for n, form in enumerate(forms))),
        UNSAFE,
    )


def _zip_with(*members: Member) -> bytes:
    return make_zip([*photos(), *members])


# ---- zip: members


def _zips() -> Iterator[Case]:
    odd = b"cat/odd.png"
    kinds = {
        "link": 0o120777,
        "device": 0o020600,
        "block device": 0o060600,
        "pipe": 0o010600,
        "socket": 0o140600,
    }
    for what, mode in kinds.items():
        yield _case(
            f"zip: a {what}",
            partial(_zip_with, Member(odd, b"/etc/passwd", STORED, external=mode << 16)),
            UNSAFE,
        )
    yield _case("zip: encrypted", lambda: _zip_with(Member(odd, photo(90), flags=0x801)), UNREADABLE)
    yield _case("zip: strong encryption", lambda: _zip_with(Member(odd, photo(90), flags=0x841)), UNREADABLE)
    for method in (1, 6, 9, 12, 14, 93, 95, 97, 98, 99, 0xFFFF):
        yield _case(
            f"zip: compression {method}",
            partial(_zip_with, Member(odd, photo(90), method=method, packed=photo(90))),
            UNREADABLE,
        )
    lies: dict[str, dict[str, object]] = {
        "wrong checksum": {"crc": 1},
        "says it is larger": {"size": 1 << 20},
        "says it is smaller": {"size": 10},
        "packed bytes cut": {"packed": deflated(photo(90))[:-5]},
        "packed bytes that are none": {"packed": b"\xff" * 100},
        "another name in front": {"local_name": b"cat/other.png"},
        "another compression in front": {"local_method": STORED},
        "another size in front": {"local_size": 7},
        "damaged extra field": {"extra": b"\x01\x00\xff\xff"},
        "zip64 field that is cut": {"extra": b"\x01\x00\x04\x00abcd", "size": 0xFFFFFFFF},
        "says 4 GiB": {"size": 0xFFFFFFFE},
    }
    for what, fields in lies.items():
        bad = Member(odd, photo(90), **fields)  # type: ignore[arg-type]
        yield _case(f"zip: {what}", partial(_zip_with, bad), UNREADABLE)
    short = Member(odd, photo(90), size=10, crc=zlib.crc32(photo(90)[:10]))
    yield Case(
        "zip: says it is smaller, with that checksum", lambda: _zip_with(short), 422, "TOO_MANY_BAD_IMAGES"
    )
    yield _case(
        "zip: says more packed bytes than the file has",
        lambda: _zip_with(Member(odd, photo(90), packed_size=1 << 30)),
        UNREADABLE,
    )
    yield _case("zip: shares its bytes", lambda: _zip_with(Member(odd, photo(90), offset=0)), UNSAFE)
    yield _case("zip: begins within another", lambda: _zip_with(Member(odd, photo(90), offset=1)), UNSAFE)
    yield _case(
        "zip: begins behind the end", lambda: _zip_with(Member(odd, photo(90), offset=1 << 30)), UNREADABLE
    )


# ---- zip: the directory


def _zip_directories() -> Iterator[Case]:
    good = photos()
    directories: dict[str, Callable[[], bytes]] = {
        "bytes before the first member": lambda: make_zip(good, prefix=b"PK\x03\x04 and more", shift=0),
        "bytes before, offsets shifted back": lambda: make_zip(good, prefix=b"PK\x03\x04123", shift=-7),
        "bytes behind the end": lambda: make_zip(good, suffix=b"trailing"),
        "bytes before the directory that are not told": lambda: make_zip(
            good, before_directory=b"x" * 9, offset=1
        ),
        "says fewer members": lambda: make_zip(good, total=3),
        "says more members": lambda: make_zip(good, total=30_000),
        "says a smaller directory": lambda: make_zip(good, size=46),
        "says a directory of 4 GB": lambda: make_zip(good, size=0xFFFFFFF0),
        "directory at another place": lambda: make_zip(good, offset=0),
        "one of several disks": lambda: make_zip(good, disk=1, first_disk=1),
        "zip64 directory at 2^63": lambda: zip64_end(make_zip(good), offset=1 << 63),
        "zip64 directory of 2^64 bytes": lambda: zip64_end(make_zip(good), size=(1 << 64) - 1),
        "zip64 record at 2^62": lambda: zip64_end(make_zip(good), at=1 << 62),
        "zip64 record that is none": lambda: zip64_end(make_zip(good), at=5),
        "zip64 says 2^40 members": lambda: zip64_end(make_zip(good), total=(1 << 40) + 1),
        "damaged directory": lambda: make_zip(good).replace(b"PK\x01\x02", b"PK\x01\x03", 3),
    }
    for what, make in directories.items():
        yield _case(f"zip: {what}", make, UNREADABLE)
    yield _case("zip: two directories", _two_directories, UNSAFE)
    yield _case("large: a zip of 200,001 members", lambda: _many_members(200_001), UNSAFE)
    yield _case("large: a zip whose directory has 70 MB", _huge_directory, UNSAFE)
    yield Case("tar: zeros", lambda: bytes(5120), 422, "NO_IMAGES")
    yield Case("zip: no members", lambda: make_zip([]), 422, "NO_IMAGES")
    yield Case("zip: a zip in a zip", lambda: zipped({"photos.zip": zipped(data_set())}), 422, "NO_IMAGES")
    yield Case(
        "zip: a PyTorch checkpoint",
        lambda: zipped({"m/data.pkl": b"\x80\x02}.", "m/data/0": bytes(9)}),
        422,
        "NO_IMAGES",
    )


def _two_directories() -> bytes:
    """The comment holds the end of another zip, which programs that search from behind find first."""
    inner = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 0)
    return make_zip(photos(), comment=inner)


def _many_members(count: int) -> bytes:
    one = make_zip([Member(b"a.txt", b"", STORED)])
    local, central = one[:35], one[35:-22]
    directory = b"".join(
        central[:42] + struct.pack("<L", 35 * number) + central[46:] for number in range(count)
    )
    end = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, count & 0xFFFF, count & 0xFFFF, len(directory), 35 * count, 0
    )
    return local * count + directory + end


def _huge_directory() -> bytes:
    return make_zip(
        [*photos(), *(Member(b"%d.txt" % n, method=STORED, comment=b"x" * 65_000) for n in range(1100))]
    )


# ---- tar


def _tars() -> Iterator[Case]:
    odd = b"cat/odd.png"
    kinds = {
        "a hard link": (b"1", b"cat/0.png"),
        "a link": (b"2", b"0.png"),
        "a link out of it": (b"2", b"/etc/passwd"),
        "a character device": (b"3", b""),
        "a block device": (b"4", b""),
        "a pipe": (b"6", b""),
        "a sparse file": (b"S", b""),
        "a continued volume": (b"M", b""),
        "a type that nobody knows": (b"Z", b""),
    }
    for what, (type, link) in kinds.items():
        yield _case(f"tar: {what}", partial(make_tar, [header(odd, type=type, link=link)]), UNSAFE)
    sparse = [
        pax(
            (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"99999999999")
        ),
        pax((b"GNU.sparse.size", b"99999999999"), (b"GNU.sparse.numblocks", b"1")),
        pax((b"GNU.sparse.map", b"0,1,99999999,1"), (b"GNU.sparse.size", b"99999999999")),
    ]
    for version, part in enumerate(sparse):
        yield _case(
            f"tar: a sparse file by pax, form {version}",
            partial(make_tar, [part + member(odd, photo(90))]),
            UNSAFE,
        )
    yield _case("tar: a file without a name", lambda: make_tar([member(b"", photo(90))]), UNSAFE)
    yield _case("large: a tar of 200,001 members", lambda: header(b"a.txt") * 200_001 + END, UNSAFE)


def _tar_headers() -> Iterator[Case]:
    odd = b"cat/odd.png"
    unreadable = {
        "a negative size": header(odd, size_field=b"\xff" * 12),
        "a size in letters": header(odd, size_field=b"12345xyz"),
        "a size beyond the end": header(odd, 1 << 30),
        "a size of 2^80": header(odd, size_field=b"\x80\0" + b"\xff" * 10),
        "a wrong checksum": header(odd, wrong_sum=True),
        "a pax record that is longer than its header": member(b"p", b"99 path=x\n", b"x"),
        "a pax record without a length": member(b"p", b"path=x\n", b"x"),
        "a pax record of length 0": member(b"p", b"0 path=x\n", b"x"),
        "a pax record of negative length": member(b"p", b"-9 path=x\n", b"x"),
        "a pax record without an equals sign": member(b"p", b"7 path\n", b"x"),
        "a pax header of digits": member(b"p", b"1" * 500_000, b"x"),
    }
    for what, part in unreadable.items():
        yield _case(f"tar: {what}", partial(make_tar, [part]), UNREADABLE)
    unsafe = {
        "a pax header of 4 GiB": header(b"p", size_field=b"\x80" + bytes(6) + b"\x01" + bytes(4), type=b"x"),
        "a long name of 2 MiB": member(b"././@LongLink", b"x" * (2 << 20), b"L"),
        "a negative size by pax": pax((b"size", b"-1")) + header(odd),
        "an endless size by pax": pax((b"size", b"9" * 5000)) + header(odd),
        "a global header that names all": pax((b"path", b"cat/x.png"), type=b"g"),
        "a chain of pax headers": pax((b"mtime", b"1")) * 5000,
        "a chain of long names": member(b"././@LongLink", b"x\0", b"L") * 5000,
        "a chain of global headers": pax((b"comment", b"x" * 9000), type=b"g") * 500,
        "a name of bytes by pax": pax((b"hdrcharset", b"BINARY"), (b"path", b"cat/\xff.png"))
        + member(b"x", photo(90)),
    }
    for what, part in unsafe.items():
        yield _case(f"tar: {what}", partial(make_tar, [part]), UNSAFE)


# ---- bombs


def _bombs() -> Iterator[Case]:
    zeros = b"\xff\xd8\xff" + bytes(8 << 20)
    yield _case("large: a bomb in a zip", lambda: _zip_with(Member(b"cat/bomb.jpg", zeros)), UNSAFE)
    yield _case(
        "large: a bomb in a zip that says it is small",
        lambda: _zip_with(Member(b"cat/bomb.jpg", zeros, size=1000)),
        UNREADABLE,
    )
    for packer, name in ((gzip.compress, "gz"), (lzma.compress, "xz")):
        yield _case(f"large: a bomb in tar.{name}", partial(_packed_bomb, packer), UNSAFE)
        yield _case(
            f"large: a bomb in tar.{name} behind the end", partial(_packed_bomb, packer, behind=True), UNSAFE
        )
        yield _case(f"large: tar.{name} of tar.{name}", partial(_twice_packed, packer), UNREADABLE)
    yield _case("large: a gzip of many streams", _many_streams, UNSAFE)
    yield _case("large: an xz header that asks for 3 GB", _greedy_xz, UNREADABLE)
    yield _case(
        "large: a gzip header without an end",
        lambda: b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * (4 << 20),
        UNREADABLE,
    )


def _packed_bomb(pack: Callable[[bytes], bytes], behind: bool = False) -> bytes:
    zeros = bytes(20 << 20)
    return pack(make_tar([], END + zeros) if behind else make_tar([member(b"notes.txt", zeros)]))


def _twice_packed(pack: Callable[[bytes], bytes]) -> bytes:
    return pack(pack(make_tar()))


def _many_streams() -> bytes:
    stream = gzip.compress(bytes(1 << 20))
    return gzip.compress(make_tar([header(b"notes.txt", 30 << 20)], b"")) + stream * 30 + gzip.compress(END)


def _greedy_xz() -> bytes:
    """A dictionary of 3 GiB: `xz -9` uses 64 MiB."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
    content = bytearray(lzma.compress(make_tar(), filters=filters))
    # Block header: its size, flags, filter id 0x21, size of properties 1, the dictionary's size; padding, CRC32.
    start = 12
    assert content[start + 2 : start + 4] == b"\x21\x01"
    content[start + 4] = 39
    end = start + (content[start] + 1) * 4
    content[end - 4 : end] = struct.pack("<I", zlib.crc32(content[start : end - 4]))
    return bytes(content)


# ---- damage


def _cut() -> Iterator[Case]:
    whole = {
        "zip": zipped(data_set()),
        "tar": make_tar(),
        "tar.gz": gzip.compress(make_tar()),
        "tar.xz": lzma.compress(make_tar()),
    }
    for name, content in whole.items():
        for share in (0.01, 0.2, 0.5, 0.8, 0.93):
            yield _case(f"{name} cut at {share}", partial(_first, content, share), UNREADABLE)
    yield _case("zip without its last byte", lambda: whole["zip"][:-1], UNREADABLE)
    yield _case("tar without its end", lambda: make_tar([], b""), UNREADABLE)
    yield _case("gzip without its checksum", lambda: whole["tar.gz"][:-8], UNREADABLE)
    yield _case(
        "gzip with a wrong checksum",
        lambda: whole["tar.gz"][:-8] + b"\0" * 4 + whole["tar.gz"][-4:],
        UNREADABLE,
    )
    yield _case("gzip with rubbish behind it", lambda: whole["tar.gz"] + b"rubbish", UNREADABLE)
    yield _case("xz with rubbish behind it", lambda: whole["tar.xz"] + b"rubbish", UNREADABLE)
    yield _case("gzip of a zip", lambda: gzip.compress(whole["zip"]), UNREADABLE)
    yield _case("gzip of one photo", lambda: gzip.compress(photo(1)), UNREADABLE)
    yield _case("zip with a flipped bit", lambda: _flipped(whole["zip"], 100), UNREADABLE)


def _first(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


# ---- what is no archive that we read


def _foreign() -> Iterator[Case]:
    foreign: dict[str, Callable[[], bytes]] = {
        "nothing": lambda: b"",
        "one byte": lambda: b"P",
        "zip's first bytes": lambda: b"PK\x03\x04",
        "text": lambda: b"this is no archive\n" * 100,
        "an HTML page": lambda: b"<!DOCTYPE html><title>404</title>" * 30,
        "a photo": lambda: photo(1),
        "a GIF": lambda: b"GIF89a" + bytes(600),
        "tar.bz2": lambda: bz2.compress(make_tar()),
        "tar.zst": lambda: b"\x28\xb5\x2f\xfd\x04\x00" + bytes(600),
        "7z": lambda: b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(600),
        "rar": lambda: b"Rar!\x1a\x07\x01\x00" + bytes(600),
        "rar, the old form": lambda: b"Rar!\x1a\x07\x00" + bytes(600),
        "cpio": lambda: b"070701" + b"0" * 104,
        "a program that unpacks itself": lambda: b"MZ" + bytes(510) + zipped(data_set()),
        "an ELF program": lambda: b"\x7fELF\x02\x01\x01" + bytes(600),
        "a PDF": lambda: b"%PDF-1.7\n" + bytes(600),
        "Parquet": lambda: b"PAR1" + bytes(600) + b"PAR1",
        "HDF5": lambda: b"\x89HDF\r\n\x1a\n" + bytes(600),
        "a NumPy array": lambda: b"\x93NUMPY\x01\x00" + bytes(600),
        "a pickle": lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        "a photo with a zip behind it": lambda: photo(1) + zipped(data_set()),
        "a zip with a photo behind it": lambda: zipped(data_set()) + photo(1),
    }
    for what, make in foreign.items():
        yield _case(f"not an archive: {what}", make, UNREADABLE)
