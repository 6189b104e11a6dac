"""Small files that cost much: memory, time, or the stack of whoever walks them."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from tests.corpus.case import Case
from tests.corpus.checkpoints.containers import STATE, WEIGHT, checkpoint, deflated, legacy, zip_of, zipped
from tests.corpus.checkpoints.opcodes import (
    DICT,
    EMPTY_TUPLE,
    FALSE,
    HOOKS,
    LIST,
    MARK,
    NONE,
    REDUCE,
    call,
    get,
    integer,
    list_of,
    name,
    numbers,
    persistent,
    pickled,
    put,
    state,
    storage,
    tensor,
    text,
    tuple_of,
)
from tests.corpus.checkpoints.verdicts import refused, unreadable, unsafe


def cases() -> Iterator[Case]:
    yield from _claimed_lengths()
    yield from _growing()
    yield from _deep()
    yield from _keys()
    yield from _packed()


def _claimed_lengths() -> Iterator[Case]:
    """A length of which hardly a byte is there."""
    opcodes = {
        "BINUNICODE": (b"X", struct.pack("<I", 2**31 - 1)),
        "BINUNICODE8": (b"\x8d", struct.pack("<Q", 2**40)),
        "BINBYTES": (b"B", struct.pack("<I", 2**32 - 1)),
        "BINBYTES8": (b"\x8e", struct.pack("<Q", 2**63)),
        "BYTEARRAY8": (b"\x96", struct.pack("<Q", 2**62)),
        "LONG1": (b"\x8a", b"\x20"),
    }
    for opcode, (code, length) in opcodes.items():
        whole = pickled(state(("w", WEIGHT), ("x", code + length)), protocol=5)
        yield unreadable(f"{opcode} claims what is not there", partial(zip_of, whole), "PICKLE_TRUNCATED")
    yield unsafe(
        "LONG4 of 100 MB",
        partial(zip_of, pickled(state(("x", b"\x8b" + struct.pack("<i", 100 << 20) + b"\x01")))),
        "PICKLE_OPCODE",
    )
    yield unsafe(
        "LONG4 of a negative length",
        partial(zip_of, pickled(state(("x", b"\x8b" + struct.pack("<i", -1))))),
        "PICKLE_OPCODE",
    )
    yield unsafe(
        "an integer of 255 bytes",
        partial(zip_of, pickled(state(("x", b"\x8a\xff" + b"\x7f" * 255)))),
        "INTEGER_SIZE",
    )


def _growing() -> Iterator[Case]:
    """Every step doubles what the pickle means, or makes it again."""
    levels = [LIST + put(0)]
    levels += [list_of(*[get(level - 1)] * 10) + put(level) for level in range(1, 100)]
    laughs = list_of(*levels)
    # A list of lists costs nothing unless somebody spells it out: as a state dict it is none.
    yield unreadable("a billion laughs by the memo", partial(zip_of, pickled(laughs)), "NO_STATE_DICT")
    # Whoever shows a value in a message spells it out.
    yield unreadable(
        "legacy: a billion laughs for its version", partial(legacy, version=pickled(laughs)), "LEGACY_VERSION"
    )
    size = persistent(text("storage"), name("torch.FloatStorage"), text("0"), text("cpu"), laughs)
    whole = pickled(state(("w", tensor(of=size))))
    yield unsafe("a billion laughs for a storage's size", partial(zip_of, whole), "STORAGE_SIZE")
    yield unsafe("legacy: a billion laughs for a storage's size", partial(legacy, whole), "STORAGE_SIZE")
    key = persistent(text("storage"), name("torch.FloatStorage"), laughs, text("cpu"), integer(4))
    whole = pickled(state(("w", tensor(of=key))))
    yield unsafe("a billion laughs for a storage's key", partial(zip_of, whole), "STORAGE_ID")
    for wrapped in ("model", "state_dict", "ema", "classes"):
        yield unreadable(
            f"a billion laughs for its {wrapped}", partial(zip_of, pickled(state((wrapped, laughs))))
        )
    shape = call("torch._utils._rebuild_tensor_v2", storage(), integer(0), laughs, laughs, FALSE, HOOKS)
    yield unsafe(
        "a billion laughs for a shape", partial(zip_of, pickled(state(("w", shape)))), "TENSOR_DAMAGED"
    )
    hooks = tensor(hooks=laughs)
    yield Case(
        "a billion laughs for hooks", partial(zip_of, pickled(state(("w", hooks)))), 422, "CHECKPOINT_IS_CODE"
    )
    course = pickled(state(("w", laughs)), protocol=3)
    yield unreadable("course file: a billion laughs for a weight", partial(bytes, course), "COURSE_FILE")
    yield unsafe("a billion laughs in an artifact's graph", partial(_graph, laughs), "DOCUMENT_SIZE")
    texts = list_of(text("x" * 60_000) + put(0), *[get(0)] * 20_000)
    yield unsafe("a text of 60 KB that is repeated to 1.2 GB", partial(_graph, texts), "DOCUMENT_SIZE")
    encode = name("_codecs.encode") + tuple_of(get(0), text("latin1")) + REDUCE
    encoded = list_of(text("\xff" * 60_000) + put(0), *[encode] * 5_000)
    yield unsafe("300 MB of bytes out of one text", partial(zip_of, pickled(encoded)), "PICKLE_BYTES")
    for codec in ("punycode", "utf-7", "hex", "bz2_codec", "zip", "rot13", "unicode_escape"):
        value = call("_codecs.encode", text("\xe9" * 30_000), text(codec))
        yield unsafe(
            f"_codecs.encode with {codec}", partial(zip_of, pickled(state(("x", value)))), "CODEC_FORBIDDEN"
        )
    itself = LIST + put(0) + get(0) + b"a"
    yield unreadable("a list that holds itself", partial(zip_of, pickled(itself)), "NO_STATE_DICT")
    turtle = DICT + put(0) + text("model") + get(0) + b"s"
    yield unreadable("a dict wrapped in itself", partial(zip_of, pickled(turtle)), "NO_STATE_DICT")
    yield unsafe(
        "a graph that holds itself",
        partial(_graph, DICT + put(1) + text("g") + get(1) + b"s"),
        "DOCUMENT_SIZE",
    )
    large = tensor((1 << 18,), of=storage(count=1 << 18))
    names = b"".join(text(f"w{index}") + get(9) for index in range(15_000))
    aliases = pickled(DICT, MARK, text("w") + large + put(9), names, b"u")
    yield unsafe(
        "15,000 names for one tensor of 1 MB", partial(zip_of, aliases, _0=bytes(1 << 20)), "TENSOR_BYTES"
    )
    views = [(f"w{i}", large) for i in range(200)]
    yield unsafe(
        "200 views of one storage of 1 MB",
        partial(zip_of, pickled(state(*views)), _0=bytes(1 << 20)),
        "TENSOR_ALIASING",
    )
    empty = [(f"w{i}", tensor((0,), of=storage(count=0))) for i in range(20_001)]
    yield unsafe("20,001 empty tensors", partial(zip_of, pickled(state(*empty)), _0=b""), "TENSOR_COUNT")
    arrays = (
        name("numpy.core.multiarray._reconstruct")
        + tuple_of(name("numpy.ndarray"), tuple_of(integer(0)), b"C\x01b")
        + REDUCE
    )
    yield unsafe(
        "a numpy array of 2**40 numbers in 8 bytes",
        partial(
            bytes,
            pickled(
                state(
                    (
                        "w",
                        arrays
                        + tuple_of(
                            integer(1),
                            tuple_of(integer(2**40)),
                            call("numpy.dtype", text("f2"), FALSE, b"\x88"),
                            FALSE,
                            b"C\x08" + bytes(8),
                        )
                        + b"b",
                    )
                ),
                protocol=3,
            ),
        ),
        "ARRAY_SIZE",
    )


def _graph(graph: bytes) -> bytes:
    """An artifact with this for its graph."""
    return zip_of(pickled(state(("format_version", integer(1)), ("graph", graph), ("data", WEIGHT))))


def _deep() -> Iterator[Case]:
    deep = {
        "tuples": EMPTY_TUPLE + b"\x85" * 100_000,
        "lists": LIST * 100_000 + b"a" * 99_999,
        "dicts": DICT + b"".join(text("model") + DICT for _ in range(50_000)) + b"s" * 50_000,
        "marks": MARK * 100_000 + b"t" * 100_000,
    }
    for what, value in deep.items():
        yield unreadable(f"{what} nested a long way down", partial(zip_of, pickled(value)))
    # In 1.3 KB deflated this ended a process of torch.load with a segmentation fault.
    key = DICT + EMPTY_TUPLE + b"\x85" * 1_000_000 + NONE + b"s"
    yield unreadable("a key that is a tuple, a million deep", partial(zip_of, pickled(key)), "NO_STATE_DICT")
    key = DICT + deep["tuples"] + NONE + b"s"
    yield unreadable(
        "legacy: a key that is a tuple, 100,000 deep", partial(legacy, pickled(key), {}), "NO_STATE_DICT"
    )
    yield unreadable(
        "bare pickle: a key that is a tuple, 100,000 deep", partial(bytes, pickled(key)), "COURSE_FILE"
    )
    yield unsafe("a graph nested 100,000 deep", partial(_graph, deep["lists"]), "DOCUMENT_SIZE")
    sized = call("torch.Size", numbers((1,) * 100_000))
    yield unsafe(
        "a tensor of 100,000 dimensions",
        partial(
            zip_of,
            pickled(
                state(
                    (
                        "w",
                        call(
                            "torch._utils._rebuild_tensor_v2",
                            storage(),
                            integer(0),
                            sized,
                            numbers((1,) * 100_000),
                            FALSE,
                            call("collections.OrderedDict"),
                        ),
                    )
                )
            ),
        ),
        "TENSOR_DIMENSIONS",
    )


def _keys() -> Iterator[Case]:
    """Dicts ask their keys for hashes: a stranger chooses both."""
    modulus = (1 << 61) - 1
    colliding = b"".join(
        b"\x8a\x0c" + (index * modulus).to_bytes(12, "little") + NONE for index in range(1, 20_001)
    )
    yield unreadable(
        "20,000 integer keys with one hash",
        partial(zip_of, pickled(DICT, MARK, colliding, b"u")),
        "NO_STATE_DICT",
    )
    floats = b"".join(b"G" + struct.pack(">d", float(index * 2.0**61)) + NONE for index in range(1, 20_001))
    yield unreadable(
        "20,000 float keys of few hashes", partial(zip_of, pickled(DICT, MARK, floats, b"u")), "NO_STATE_DICT"
    )
    tuples = b"".join(integer(i) + b"\x85" + NONE for i in range(20_000))
    yield unreadable(
        "20,000 tuples as keys", partial(zip_of, pickled(DICT, MARK, tuples, b"u")), "NO_STATE_DICT"
    )
    yield unsafe(
        "a key of 10,000 letters", partial(zip_of, pickled(state(("w" * 10_000, WEIGHT)))), "KEY_LENGTH"
    )
    yield unreadable(
        "a key that is NaN a thousand times",
        partial(zip_of, pickled(DICT, MARK, (b"G" + struct.pack(">d", float("nan")) + NONE) * 1_000, b"u")),
        "NO_STATE_DICT",
    )
    yield unreadable(
        "two million entries of nothing",
        partial(zip_of, pickled(LIST, MARK, NONE * 2_000_000, b"e")),
        "NO_STATE_DICT",
    )


def _packed() -> Iterator[Case]:
    """Deflated members: a thousandfold and more."""
    zeros = bytes(64 << 20)
    good, rest = checkpoint()[0], checkpoint()[1:]

    def member_bomb(name_: bytes) -> bytes:
        return zipped([good, *rest, deflated(name_, zeros)])

    def pickle_bomb() -> bytes:
        return zipped([deflated(good.name, STATE[:-1] + b"N0" * (30 << 20) + b"."), *rest])

    def many() -> bytes:
        # Each unpacks to less than a member may for free; together they would fill the disk.
        bomb = deflated(b"", bytes(1 << 20))
        bomb = replace(bomb, data=b"", size=1 << 20, crc=zlib.crc32(bomb.data))
        return zipped(
            [good, *rest, *(replace(bomb, name=f"archive/data/{i}".encode()) for i in range(10, 2010))]
        )

    yield unsafe("a storage deflated a thousandfold", partial(member_bomb, b"archive/data/1"), "ZIP_RATIO")
    yield unsafe("data.pkl deflated a thousandfold", pickle_bomb, "ZIP_RATIO")
    yield unsafe("2,000 members that unpack to 2 GB together", many, "ZIP_RATIO")
    weights = tensor((16 << 20,), of=storage(count=16 << 20))

    def weights_bomb() -> bytes:
        members = checkpoint(pickled(state(("w", weights))), {})
        return zipped([*members, deflated(b"archive/data/0", zeros)])

    yield unsafe("weights of 64 MB in 64 KB", weights_bomb, "ZIP_RATIO")
    yield refused(
        "deflated weights of zeros, 1 MB in 1 KB",
        lambda: zipped(
            [
                *checkpoint(pickled(state(("w", tensor((1 << 18,), of=storage(count=1 << 18))))), {}),
                deflated(b"archive/data/0", bytes(1 << 20)),
            ]
        ),
        "KEYS_MISMATCH",
    )
