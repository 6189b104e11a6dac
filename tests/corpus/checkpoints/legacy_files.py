"""The container of torch.save before 1.6: nothing in it says how long its parts are but the parts themselves."""

import io
import struct
import tarfile
from collections.abc import Iterator
from functools import partial

from tests.corpus.case import Case
from tests.corpus.checkpoints.containers import (
    LEGACY_MAGIC,
    LEGACY_SYSTEM,
    LEGACY_VERSION,
    NUMBERS,
    STATE,
    WEIGHT,
    legacy,
)
from tests.corpus.checkpoints.opcodes import (
    FALSE,
    TRUE,
    call,
    dict_of,
    integer,
    list_of,
    name,
    persistent,
    pickled,
    state,
    storage,
    tensor,
    text,
    tuple_of,
)
from tests.corpus.checkpoints.verdicts import is_code, unreadable, unsafe

_KEYS = pickled(list_of(text("0")))


def cases() -> Iterator[Case]:
    yield from _storages()
    yield from _parts()
    yield from _keys()
    yield from _cut()


def _storages() -> Iterator[Case]:
    larger = pickled(state(("w", tensor((1 << 20,), of=storage(count=1 << 20)))))
    yield unreadable(
        "legacy: a storage claims more than is there, twice",
        partial(legacy, larger, {"0": (1 << 20, NUMBERS)}),
        "LEGACY_TRUNCATED",
    )
    yield unsafe(
        "legacy: a storage claims more than its length",
        partial(legacy, larger),
        "STORAGE_SIZE",
    )
    lengths = {"0": 0, "3": 3, "2**20": 1 << 20, "-4": -4, "-2**63": -(2**63), "2**62 + 4": 2**62 + 4}
    for what, count in lengths.items():
        yield unsafe(f"legacy: a length of {what}", partial(legacy, STATE, {"0": (count, NUMBERS)}))
    yield unreadable(
        "legacy: fewer bytes than elements",
        partial(legacy, STATE, {"0": (4, NUMBERS[:-1])}),
        "LEGACY_TRUNCATED",
    )
    yield unsafe(
        "legacy: bytes behind its last storage", partial(legacy, suffix=b"\0" * 9), "LEGACY_TRAILING"
    )
    twice = state(("w", WEIGHT), ("x", tensor((2,), of=storage("DoubleStorage", count=2))))
    yield unsafe("legacy: one storage with two types", partial(legacy, pickled(twice)), "STORAGE_RETYPED")
    sizes = state(("w", WEIGHT), ("x", tensor(of=storage(count=2), shape=(2,))))
    yield unsafe("legacy: one storage with two sizes", partial(legacy, pickled(sizes)), "STORAGE_RETYPED")
    view = persistent(
        text("storage"),
        name("torch.FloatStorage"),
        text("0"),
        text("cpu"),
        integer(4),
        tuple_of(text("1"), integer(0), integer(4)),
    )
    yield unreadable(
        "legacy: a view of a storage, as before 0.4",
        partial(legacy, pickled(state(("w", tensor(of=view))))),
        "STORAGE_VIEW",
    )
    for what, value in {
        "stride 0": tensor((1_000_000,), (0,)),
        "an offset past the end": tensor((4,), (1,), 1),
        "a negative stride": tensor((4,), (-1,), 3),
        "one element more than there are": tensor((5,)),
    }.items():
        yield unsafe(f"legacy: {what}", partial(legacy, pickled(state(("w", value)))))


def _parts() -> Iterator[Case]:
    yield unreadable(
        "legacy: another version", partial(legacy, version=pickled(integer(7))), "LEGACY_VERSION"
    )
    yield unreadable(
        "legacy: a dict for its version", partial(legacy, version=pickled(b"}")), "LEGACY_VERSION"
    )
    big = dict_of((text("protocol_version"), integer(1001)), (text("little_endian"), FALSE))
    yield unreadable(
        "legacy: written on a big-endian machine", partial(legacy, system=pickled(big)), "BIG_ENDIAN"
    )
    yield unreadable("legacy: nothing of its machine", partial(legacy, system=pickled(b"}")), "BIG_ENDIAN")
    yield is_code(
        "legacy: code in place of its version",
        partial(legacy, version=pickled(call("os.system", text("id")))),
        "GLOBAL_FORBIDDEN",
    )
    yield is_code(
        "legacy: code in place of its machine",
        partial(legacy, system=pickled(call("os.system", text("id")))),
        "GLOBAL_FORBIDDEN",
    )
    yield is_code(
        "legacy: code in place of its keys",
        partial(legacy, keys=pickled(call("os.system", text("id")))),
        "GLOBAL_FORBIDDEN",
    )
    for what, part in {"version": "version", "machine": "system", "keys": "keys"}.items():
        whole = pickled(state(("w", WEIGHT)))
        yield Case(
            f"legacy: a tensor in place of its {what}",
            partial(legacy, **{part: whole}),
            422,
            "CHECKPOINT_UNREADABLE",
            "PERSISTENT_ID",
        )


def _keys() -> Iterator[Case]:
    keys = {
        "are a dict": b"}",
        "are no texts": list_of(integer(0)),
        "repeat themselves": list_of(text("0"), text("0")),
        "name another storage": list_of(text("0"), text("7")),
        "are none": list_of(),
    }
    for what, value in keys.items():
        yield unsafe(f"legacy: its keys {what}", partial(legacy, keys=pickled(value)))
    yield unsafe(
        "legacy: a storage that its keys leave out",
        partial(legacy, pickled(state(("w", WEIGHT), ("x", tensor(of=storage(key="1")))))),
        "STORAGE_MISSING",
    )
    long = "9" * 100_000
    yield unsafe(
        "legacy: a key of 100,000 digits",
        partial(legacy, pickled(state(("w", tensor(of=storage(key=long))))), {long: (4, NUMBERS)}),
    )


def _cut() -> Iterator[Case]:
    whole = legacy()
    ends = {
        "its number": len(LEGACY_MAGIC),
        "its version": len(LEGACY_MAGIC + LEGACY_VERSION),
        "its machine": len(LEGACY_MAGIC + LEGACY_VERSION + LEGACY_SYSTEM),
        "its pickle": len(LEGACY_MAGIC + LEGACY_VERSION + LEGACY_SYSTEM + STATE),
        "its keys": len(whole) - 24,
        "a length": len(whole) - 16,
        "half a storage": len(whole) - 8,
    }
    for what, at in ends.items():
        yield unreadable(f"legacy: it ends after {what}", partial(bytes, whole[:at]))
    yield Case(
        "legacy: another number in front",
        partial(legacy, magic=pickled(b"\x8a\x0a" + bytes(10))),
        422,
        "CHECKPOINT_UNSAFE",
        "PICKLE_TRAILING",
    )
    yield unreadable("torch 0.1: a tar of pickles", _tar, "TAR")


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for member, content in {
            "storages": pickled(integer(1)) + NUMBERS,
            "tensors": struct.pack("<q", 1),
            "pickle": pickled(call("os.system", text("id")), TRUE, b"0"),
        }.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
