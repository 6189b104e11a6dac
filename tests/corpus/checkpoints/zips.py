"""Zips whose two directories disagree, whose members share bytes, that are cut off or packed otherwise."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from tests.corpus.case import Case
from tests.corpus.checkpoints.containers import (
    NUMBERS,
    STATE,
    Member,
    changed,
    checkpoint,
    deflated,
    zip_of,
    zipped,
)
from tests.corpus.checkpoints.opcodes import pickled, state, storage, tensor
from tests.corpus.checkpoints.verdicts import is_code, unreadable, unsafe

_FOUR_GIGABYTES = 0xFFFFFFFF


def cases() -> Iterator[Case]:
    yield from _names()
    yield from _headers()
    yield from _layout()
    yield from _ends()
    yield from _cut()
    yield from _contents()


def _with(name: bytes, data: bytes = b"x", **more: object) -> bytes:
    return zipped([*checkpoint(), replace(Member(name, data), **more)])


def _names() -> Iterator[Case]:
    names = {
        "a path upwards": b"archive/../../../../tmp/executed",
        "an absolute path": b"/etc/cron.d/x",
        "a backslash": b"archive\\data\\1",
        "a drive": b"C:/archive/data/1",
        "a NUL": b"archive/data/1\0.txt",
        "a foreign file": b"archive/notes.txt",
        "a folder": b"archive/data/",
        "no name": b"",
        "a folder of its own": b"other/data/1",
        "a storage that is no number": b"archive/data/x",
        "a storage of 40 digits": b"archive/data/" + b"9" * 40,
        "60,000 letters": b"archive/" + b"a" * 60_000,
        "bytes that are no UTF-8": b"archive/data/\xff\xfe",
    }
    for what, name in names.items():
        yield unsafe(f"zip: a member with {what}", partial(_with, name))
    yield unreadable(
        "zip: a name that calls itself UTF-8 and is not",
        partial(_with, b"archive/data/\xff\xfe", flags=0x0800),
    )
    for what, name in {"data.pkl": b"archive/data.pkl", "a storage": b"archive/data/0"}.items():
        yield unsafe(f"zip: {what} is there twice", partial(_with, name, STATE), "ZIP_NAMES")
    yield unsafe(
        "zip: data.pkl is there twice in two cases of letters",
        partial(_with, b"archive/DATA.PKL", STATE),
    )
    yield unsafe(
        "zip: two folders, each a checkpoint",
        partial(zipped, [*checkpoint(), *checkpoint(root=b"other")]),
    )
    yield unreadable("zip: without a folder", partial(zipped, checkpoint(root=b"")), "ZIP_FOREIGN")


def _headers() -> Iterator[Case]:
    differing = {
        "another name": {"local_name": b"archive/data/9"},
        "a longer name": {"local_name": b"archive/data/0" + b"0" * 5000},
        "another method": {"local_method": 8},
        "other flags": {"local_flags": 1},
        "another CRC": {"local_crc": 1},
        "another size": {"local_size": 99},
    }
    for what, changes in differing.items():
        yield unsafe(
            f"zip: its own header says {what}",
            partial(zipped, changed(b"data/0", **changes)),
            "ZIP_LOCAL_HEADER",
        )
    yield unreadable("zip: a wrong CRC of a storage", partial(zipped, changed(b"data/0", crc=1)))
    yield unreadable("zip: a wrong CRC of data.pkl", partial(zipped, changed(b"data.pkl", crc=1)))
    unused = [*checkpoint(), Member(b"archive/data/1", b"unused", crc=7)]
    yield unreadable("zip: a wrong CRC of a member that nothing needs", partial(zipped, unused))
    flags = {"encrypted": 0x0001, "strongly encrypted": 0x0041, "patched": 0x0020, "masked": 0x2000}
    for what, bit in flags.items():
        code = unreadable if bit & 1 else unsafe
        yield code(f"zip: a member that is {what}", partial(zipped, changed(b"data/0", flags=bit)))
    methods = {
        "shrunk": 1,
        "imploded": 6,
        "deflate64": 9,
        "bzip2": 12,
        "LZMA": 14,
        "zstd": 93,
        "method 99": 99,
    }
    for what, method in methods.items():
        yield unsafe(
            f"zip: a member that is {what}",
            partial(zipped, changed(b"data/0", method=method)),
            "ZIP_FEATURES",
        )
    sizes = {
        "a larger size than it has": {"size": 64, "packed_size": 64},
        "two sizes for stored bytes": {"size": 64},
        "4 GB": {"size": _FOUR_GIGABYTES - 1, "packed_size": _FOUR_GIGABYTES - 1},
        "4 GB in another place that is not there": {"size": _FOUR_GIGABYTES, "packed_size": _FOUR_GIGABYTES},
        "2**63 bytes by zip64": {
            "size": _FOUR_GIGABYTES,
            "packed_size": _FOUR_GIGABYTES,
            "extra": struct.pack("<HHQQ", 1, 16, 2**63, 2**63),
        },
        "a zip64 part that is cut off": {
            "size": _FOUR_GIGABYTES,
            "packed_size": _FOUR_GIGABYTES,
            "extra": struct.pack("<HHI", 1, 16, 5),
        },
    }
    for what, changes in sizes.items():
        make = partial(zipped, changed(b"data/0", **changes))
        yield Case(f"zip: a member claims {what}", make, 422, _SIZE_CODES.get(what, "CHECKPOINT_UNSAFE"))
    packed = deflated(b"archive/data/0", NUMBERS)
    yield unreadable(
        "zip: deflated bytes that are none",
        partial(zipped, changed(b"data/0", method=8, packed=b"\xff" * 20)),
    )
    yield Case(
        "zip: deflated to more than it says",
        partial(zipped, changed(b"data/0", method=8, packed=deflated(b"", bytes(5000)).packed)),
        422,
        "CHECKPOINT_UNREADABLE",
    )
    yield unreadable(
        "zip: deflated bytes that are cut off",
        partial(zipped, changed(b"data/0", method=8, packed=(packed.packed or b"")[:-3])),
    )


# Said of a member and not of the whole: which of the two readers stumbles first decides between the two codes.
_SIZE_CODES = {
    "4 GB in another place that is not there": "CHECKPOINT_UNSAFE",
    "a zip64 part that is cut off": "CHECKPOINT_UNREADABLE",
}


def _layout() -> Iterator[Case]:
    shared = [*checkpoint(), Member(b"archive/data/1", NUMBERS, offset=0)]
    yield unsafe("zip: two members at one place", partial(zipped, shared))

    def quoted() -> bytes:
        # The local header of each member lies in the data of the one before: David Fifield's bomb.
        kernel = zipped([Member(b"archive/data/2", NUMBERS)])[: 30 + 14 + 16]
        members = [*checkpoint(), Member(b"archive/data/1", kernel)]
        at = zipped(members).index(kernel)
        return zipped([*members, Member(b"archive/data/2", NUMBERS, offset=at, local_name=b"archive/data/3")])

    yield unsafe("zip: a member inside of another", quoted, "ZIP_OVERLAP")
    yield is_code(
        "zip: a shell script in front", partial(zipped, checkpoint(), prefix=b"#!/bin/sh\n"), "EXECUTABLE"
    )
    yield unreadable("zip: 100 bytes in front", partial(zipped, checkpoint(), prefix=b"x" * 100), "FOREIGN")
    pdf = partial(zipped, checkpoint(), prefix=b"PK\3\4" + bytes(60))
    yield Case("zip: it begins twice", pdf, 422, "CHECKPOINT_UNSAFE", "ZIP_PREFIX")
    beyond = changed(b"data/0", offset=1 << 20)
    yield Case("zip: a member beyond the end", partial(zipped, beyond), 422, "CHECKPOINT_UNSAFE")
    backwards = changed(b"data/0", offset=_FOUR_GIGABYTES)
    yield Case("zip: a member at 4 GB", partial(zipped, backwards), 422, "CHECKPOINT_UNSAFE")
    many = [*checkpoint(), *(Member(f"archive/data/{i}".encode(), b"") for i in range(1, 100_001))]
    yield unsafe("zip: 100,000 empty members", partial(_with_many, many))


def _with_many(members: list[Member]) -> bytes:
    """More than 65,535 members need zip64, which says their number itself."""
    whole = zipped(members, count=0xFFFF)
    end = whole[-22:]
    size, start = struct.unpack("<II", end[12:20])
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, len(members), len(members), size, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + size, 1)
    return whole[:-22] + record + locator + end


def _ends() -> Iterator[Case]:
    """What the end of the directory says."""
    ends: dict[str, dict[str, int]] = {
        "a directory of 4 GB": {"directory_size": _FOUR_GIGABYTES - 9},
        "a directory beyond the end": {"directory_offset": 1 << 30},
    }
    for what, changes in ends.items():
        yield unreadable(f"zip: its end says {what}", partial(zipped, checkpoint(), **changes))
    huge = zipped(checkpoint())[:-22] + bytes(100_000)
    yield unreadable("zip: no end within the last 64 KB", partial(bytes, huge))
    yield unreadable("zip: 70 KB behind its end", partial(zipped, checkpoint(), suffix=bytes(70_000)))

    def large_directory() -> bytes:
        members = [Member(f"archive/data/{i}".encode(), b"", extra=bytes(60_000)) for i in range(1, 300)]
        return zipped([*checkpoint(), *members])

    yield unsafe("zip: a directory of 18 MB", large_directory, "ZIP_DIRECTORY")


def _cut() -> Iterator[Case]:
    whole = zipped(checkpoint(pickled(state(("w", tensor((64,), of=storage(count=64))))), {"0": bytes(256)}))
    for tenth in range(1, 10):
        yield unreadable(f"zip: only {tenth} tenths of it", partial(bytes, whole[: len(whole) * tenth // 10]))
    for missing in (1, 21, 22):
        yield unreadable(f"zip: without its last {missing} bytes", partial(bytes, whole[:-missing]))
    yield unreadable("zip: without its first 50 bytes", partial(bytes, whole[50:]))
    zeroed = whole[:400] + bytes(200) + whole[600:]
    yield unreadable("zip: 200 bytes of zeros in its middle", partial(bytes, zeroed))
    lines = whole.replace(b"\n", b"\r\n")
    yield unsafe("zip: sent as text, with other ends of lines", partial(bytes, lines))


def _contents() -> Iterator[Case]:
    yield unreadable("zip: without data.pkl", partial(zipped, checkpoint()[1:]))
    yield unreadable("zip: data.pkl is empty", partial(zip_of, b""))
    yield unsafe(
        "zip: data.pkl of 65 MB", partial(zip_of, STATE[:-1] + b"N0" * (33 << 20) + b"."), "PICKLE_BYTES"
    )
    yield unreadable(
        "zip: written on a big-endian machine",
        partial(zipped, changed(b"byteorder", data=b"big")),
        "BIG_ENDIAN",
    )
    yield unreadable(
        "zip: a byte order of 1 MB", partial(zipped, changed(b"byteorder", data=b"little" * 200_000))
    )
    link = replace(Member(b"archive/data/0", b"/etc/passwd"), attributes=0o120777 << 16, system=3)
    members = [member for member in checkpoint() if member.name != b"archive/data/0"]
    yield unsafe("zip: a storage that is a link", partial(zipped, [*members, link]))
