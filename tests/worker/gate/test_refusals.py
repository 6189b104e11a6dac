"""Each rule of the gate, broken alone: the file says so by hand, and the verdict names the rule."""

import json
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.worker.gate.by_hand import (
    FOUR,
    NO_HOOKS,
    array,
    call,
    checkpoint,
    entry,
    get,
    good,
    header_offsets,
    integer,
    items,
    legacy,
    mapping,
    members,
    named,
    patched,
    pickled,
    put,
    safetensors,
    storage,
    tensor,
    text,
    zipped,
)
from worker.gate import Limits, Refused, admit

UNREADABLE, CODE, UNSAFE = "CHECKPOINT_UNREADABLE", "CHECKPOINT_IS_CODE", "CHECKPOINT_UNSAFE"
Case = tuple[Callable[[], bytes], str, str]


def verdict(folder: Path, content: bytes, limits: Limits | None = None) -> tuple[str, str]:
    """Code and rule; ("", "") where it was admitted. A refusal leaves no file, and tells the way out."""
    (folder / "upload").write_bytes(content)
    out = folder / "canonical"
    refused = None
    try:
        admit(folder / "upload", out, limits or Limits())
    except Refused as error:
        refused = error
    if refused is not None:
        assert not out.exists()
        assert refused.hint
        assert 0 < len(refused.detail) < 1000
        assert refused.detail.isprintable()
        return refused.code, refused.rule
    with safe_open(out, "np") as opened:
        assert opened.keys()
    return "", ""


def of(body: bytes) -> Callable[[], bytes]:
    return lambda: checkpoint(body)


def weight(*arguments: bytes | tuple[int, ...] | int | None) -> Callable[[], bytes]:
    return of(mapping({"w": tensor(*arguments)}))  # type: ignore[arg-type]


def laughs(levels: int) -> bytes:
    """Tuples, each holding the one before twice."""
    return b"K\x01" + b"".join(put(level) + get(level) + b"\x86" for level in range(levels))


def doubled(level: int) -> bytes:
    """A list that holds the one of the level before twice."""
    return (b"](" + get(level - 1) * 2 + b"e" if level else b"]") + put(level)


PICKLES: dict[str, Case] = {
    "a function": (of(call("os.system", text("id"))), CODE, "GLOBAL_FORBIDDEN"),
    "a function, by STACK_GLOBAL": (
        of(text("os") + text("system") + b"\x93" + items(text("id")) + b"R"),
        CODE,
        "GLOBAL_FORBIDDEN",
    ),
    "an attribute of an allowed module": (
        of(call("torch._utils._import_dotted_name", text("os.system"))),
        CODE,
        "GLOBAL_FORBIDDEN",
    ),
    "a dotted attribute": (
        of(text("collections") + text("OrderedDict.items") + b"\x93"),
        CODE,
        "GLOBAL_FORBIDDEN",
    ),
    "getattr": (of(call("builtins.getattr", NO_HOOKS, text("x"))), CODE, "GLOBAL_FORBIDDEN"),
    "a whole module": (of(named("torchvision.models.resnet.ResNet") + b")\x81"), CODE, "GLOBAL_FORBIDDEN"),
    "a call of what was made": (of(NO_HOOKS + b")R"), CODE, "REDUCE_FORBIDDEN"),
    "a storage's type is called": (
        of(call("torch.FloatStorage", integer(1 << 40))),
        CODE,
        "REDUCE_FORBIDDEN",
    ),
    "a tensor's type is called": (of(call("torch.FloatTensor", integer(1 << 30))), CODE, "GLOBAL_FORBIDDEN"),
    "a state for a name": (of(named("torch.FloatStorage") + b"}b"), CODE, "BUILD_FORBIDDEN"),
    "another codec": (
        of(call("_codecs.encode", text("x"), text("punycode"))),
        UNSAFE,
        "CODEC_FORBIDDEN",
    ),
    "INST": (of(b"(ios\nsystem\n"), UNSAFE, "PICKLE_OPCODE"),
    "OBJ": (of(b"(" + named("collections.OrderedDict") + b"o"), UNSAFE, "PICKLE_OPCODE"),
    "NEWOBJ_EX": (of(named("collections.OrderedDict") + b")}\x92"), UNSAFE, "PICKLE_OPCODE"),
    "EXT1": (of(b"\x82\x01"), UNSAFE, "PICKLE_OPCODE"),
    "PERSID": (of(b"P0\n"), UNSAFE, "PICKLE_OPCODE"),
    "LONG4": (of(b"\x8b" + struct.pack("<i", 100_000_000)), UNSAFE, "PICKLE_OPCODE"),
    "an integer of 255 bytes": (of(b"\x8a\xff" + bytes(255)), UNSAFE, "INTEGER_SIZE"),
    "a string that claims 2 GB": (of(b"X" + struct.pack("<I", 2**31)), UNREADABLE, "PICKLE_TRUNCATED"),
    "bytes that claim 2^63": (of(b"\x8e" + struct.pack("<Q", 2**63)), UNREADABLE, "PICKLE_TRUNCATED"),
    "no STOP": (lambda: zipped(members(b"\x80\x02}")), UNREADABLE, "PICKLE_TRUNCATED"),
    "bytes behind STOP": (lambda: zipped(members(pickled(b"}") + b"}.")), UNSAFE, "PICKLE_TRAILING"),
    "protocol 255": (lambda: zipped(members(pickled(b"}", 255))), UNREADABLE, "PICKLE_PROTOCOL"),
    "an empty stack": (of(b"0"), UNSAFE, "PICKLE_OPCODE"),
    "a TUPLE2 of one": (of(b"N\x86"), UNREADABLE, "PICKLE_DAMAGED"),
    "a memo that is not there": (of(get(7)), UNREADABLE, "PICKLE_DAMAGED"),
    "an odd number of items": (of(b"}(Nu"), UNREADABLE, "PICKLE_DAMAGED"),
    "items of a list": (of(b"]NNs"), UNREADABLE, "PICKLE_DAMAGED"),
    "a name as the value": (of(named("torch.Size")), UNREADABLE, "PICKLE_DAMAGED"),
    "the same key twice": (of(b"}(" + (text("w") + tensor()) * 2 + b"u"), UNSAFE, "KEY_DUPLICATE"),
    "a long key": (of(mapping({"w" * 513: tensor()})), UNSAFE, "KEY_LENGTH"),
    "a key that is 200,000 tuples deep": (
        of(b"}" + b"K\x01" + b"\x85" * 200_000 + b"Ns"),
        UNREADABLE,
        "NO_STATE_DICT",
    ),
    "a string that is not UTF-8": (of(b"X\x01\x00\x00\x00\xff"), UNREADABLE, "STRING_UTF8"),
    "a name of 300 letters": (of(named("torch." + "x" * 300)), UNSAFE, "GLOBAL_LENGTH"),
    "pickle.dump of tensors": (
        of(call("torch.storage._load_from_bytes", b"C\x01x")),
        UNREADABLE,
        "PLAIN_PICKLE",
    ),
    "a sparse tensor": (of(call("torch._utils._rebuild_sparse_tensor", b"N")), UNREADABLE, "TENSOR_KIND"),
    "a quantized tensor": (of(call("torch._utils._rebuild_qtensor", b"N")), UNREADABLE, "TENSOR_KIND"),
    "a subclass of Tensor": (
        of(call("torch._tensor._rebuild_from_type_v2", b"N")),
        UNREADABLE,
        "TENSOR_KIND",
    ),
    "text made bytes a million times": (
        of(
            text("x" * 5000) + put(0) + text("latin1") + put(1) + named("_codecs.encode") + put(2) + b"]"
            b"(" + (get(2) + get(0) + get(1) + b"\x86R") * 10_000 + b"e\x87"
        ),
        UNSAFE,
        "PICKLE_BYTES",
    ),
    "a list": (of(b"]" + tensor() + b"a"), UNREADABLE, "NO_STATE_DICT"),
    "an empty dict": (of(b"}"), UNREADABLE, "NO_STATE_DICT"),
    "numbers only": (of(mapping({"a": b"K\x01"})), UNREADABLE, "NO_STATE_DICT"),
    "a dict that holds itself": (
        of(b"}" + put(0) + text("model") + get(0) + b"s"),
        UNREADABLE,
        "NO_STATE_DICT",
    ),
    "a name with a slash": (of(mapping({"../w": tensor()})), UNSAFE, "TENSOR_NAME"),
    "a name with a NUL": (of(mapping({"w\0": tensor()})), UNSAFE, "TENSOR_NAME"),
    "a name with half a character": (of(mapping({"\ud800": tensor()})), UNSAFE, "TENSOR_NAME"),
    "no name": (of(mapping({"": tensor()})), UNSAFE, "TENSOR_NAME"),
}

TENSORS: dict[str, Case] = {
    "4 GB by stride 0": (weight(None, 0, (1_000_000_000,), (0,)), UNSAFE, "TENSOR_EXPANDED"),
    "a stride that overlaps": (weight(None, 0, (2, 3), (1, 1)), UNSAFE, "TENSOR_EXPANDED"),
    "a negative stride": (weight(None, 3, (4,), (-1,)), UNSAFE, "TENSOR_GEOMETRY"),
    "a negative offset": (weight(None, -1), UNSAFE, "TENSOR_GEOMETRY"),
    "a negative size": (weight(None, 0, (-1,)), UNSAFE, "TENSOR_GEOMETRY"),
    "more sides than strides": (weight(None, 0, (2, 2), (1,)), UNSAFE, "TENSOR_GEOMETRY"),
    "one beyond the end": (weight(None, 1), UNSAFE, "TENSOR_OUT_OF_STORAGE"),
    "2^31 sides": (weight(None, 0, (2**31 + 1,)), UNSAFE, "TENSOR_SIZE"),
    "sides whose product overflows": (
        weight(None, 0, (2**31,) * 8, (1,) * 8),
        UNSAFE,
        "TENSOR_OUT_OF_STORAGE",
    ),
    "a side of 2^62": (weight(None, 0, (2**62,)), UNSAFE, "TENSOR_DAMAGED"),
    "nine dimensions": (weight(None, 0, (1,) * 9, (1,) * 9), UNSAFE, "TENSOR_DIMENSIONS"),
    "a thousand dimensions": (weight(None, 0, (1,) * 1000, (1,) * 1000), UNSAFE, "TENSOR_DIMENSIONS"),
    "a thousand sides of an array": (
        lambda: pickled(mapping({"w": array(items(*[integer(2**61)] * 1000), FOUR)})),
        UNSAFE,
        "TENSOR_DIMENSIONS",
    ),
    "an array of other bytes": (
        lambda: pickled(mapping({"w": array(items(integer(5)), FOUR)})),
        UNSAFE,
        "ARRAY_SIZE",
    ),
    "a storage that is not there": (weight(storage(key="1")), UNSAFE, "STORAGE_MISSING"),
    "a storage that claims more": (weight(storage(count=integer(5))), UNSAFE, "STORAGE_SIZE"),
    "a storage that claims less": (weight(storage(count=integer(3))), UNSAFE, "STORAGE_SIZE"),
    "a storage that claims 2^63": (weight(storage(count=integer(2**63))), UNSAFE, "STORAGE_SIZE"),
    "a storage's size is a bomb of tuples": (weight(storage(count=laughs(60))), UNSAFE, "STORAGE_SIZE"),
    "a storage by a path": (weight(storage(key="../../etc/passwd")), UNSAFE, "STORAGE_MISSING"),
    "a storage of two types": (
        of(mapping({"a": tensor(), "b": tensor(storage("IntStorage"))})),
        UNSAFE,
        "STORAGE_RETYPED",
    ),
    "a persistent id of another kind": (of(items(text("module"), b"N") + b"Q"), UNSAFE, "STORAGE_ID"),
    "backward hooks": (
        weight(None, 0, (4,), (1,), b"\x89", mapping({"h": b"N"})),
        CODE,
        "TENSOR_HOOKS",
    ),
    "a conjugated tensor": (
        weight(None, 0, (4,), (1,), b"\x89", NO_HOOKS, mapping({"conj": b"\x88"})),
        UNREADABLE,
        "TENSOR_METADATA",
    ),
    "requires_grad that is a name": (
        weight(None, 0, (4,), (1,), named("torch.Size")),
        UNSAFE,
        "TENSOR_DAMAGED",
    ),
    "attributes on a tensor": (
        of(mapping({"w": tensor() + mapping({"numel": b"N"}) + b"b"})),
        UNREADABLE,
        "TENSOR_ATTRIBUTES",
    ),
    "2 MB of 16 bytes": (
        lambda: checkpoint(
            mapping(
                {
                    f"w{i}": tensor(storage("ByteStorage", count=integer(16384)), 0, (16384,))
                    for i in range(128)
                }
            ),
            {"0": bytes(16384)},
        ),
        UNSAFE,
        "TENSOR_ALIASING",
    ),
    "complex": (
        lambda: checkpoint(mapping({"w": tensor(storage("ComplexFloatStorage", count=integer(2)), 0, (2,))})),
        "DTYPE_MISMATCH",
        "TENSOR_DTYPE",
    ),
}


def local(change: Callable[[bytes, int], bytes]) -> Callable[[], bytes]:
    """Change the storage's own header, at the position given."""

    def made() -> bytes:
        content = good()
        return change(content, header_offsets(content)[0][2])

    return made


def central(change: Callable[[bytes, int], bytes]) -> Callable[[], bytes]:
    def made() -> bytes:
        content = good()
        return change(content, header_offsets(content)[1][2])

    return made


def with_members(**more: bytes) -> Callable[[], bytes]:
    return lambda: zipped(members(pickled(mapping({"w": tensor()}))) | {f"a/{n}": d for n, d in more.items()})


def duplicate() -> bytes:
    content = zipped(members(pickled(mapping({"w": tensor()}))) | {"a/data/1": FOUR})
    return content.replace(b"a/data/1", b"a/data/0")


def pointing_elsewhere() -> bytes:
    """The second storage's entry points at the first one's header."""
    content = zipped(members(pickled(mapping({"w": tensor()})), {"0": FOUR, "1": FOUR}))
    heads, entries = header_offsets(content)
    return patched(content, entries[3] + 42, struct.pack("<I", heads[2]))


def overlapping() -> bytes:
    """The first storage claims the header and the bytes of the second, which lie in its own."""
    inner = zipped({"a/data/1": FOUR})
    inner = inner[: header_offsets(inner)[1][0]]
    content = zipped(members(pickled(mapping({"w": tensor()})), {"0": inner, "1": FOUR}))
    heads, entries = header_offsets(content)
    within = heads[2] + 30 + len("a/data/0")
    return patched(content, entries[3] + 42, struct.pack("<I", within))


ZIPS: dict[str, Case] = {
    "a directory that renames": (
        central(lambda content, at: patched(content, at + 46, b"a/data/9")),
        UNSAFE,
        "ZIP_LOCAL_HEADER",
    ),
    "a header that renames": (
        local(lambda content, at: patched(content, at + 30, b"a/data/9")),
        UNSAFE,
        "ZIP_LOCAL_HEADER",
    ),
    "a header of another size": (
        local(lambda content, at: patched(content, at + 22, struct.pack("<I", 15))),
        UNSAFE,
        "ZIP_LOCAL_HEADER",
    ),
    "a header of another CRC": (
        local(lambda content, at: patched(content, at + 14, b"1234")),
        UNSAFE,
        "ZIP_LOCAL_HEADER",
    ),
    "a header of another method": (
        local(lambda content, at: patched(content, at + 8, b"\x08")),
        UNSAFE,
        "ZIP_LOCAL_HEADER",
    ),
    "a size into the directory": (
        lambda: _sized(good(), 4, 1000),
        UNSAFE,
        "ZIP_LOCAL_HEADER",
    ),
    "two sizes": (
        central(lambda content, at: patched(content, at + 24, struct.pack("<I", 15))),
        UNSAFE,
        "ZIP_SIZES",
    ),
    "a flipped bit in a weight": (
        local(lambda content, at: patched(content, at + 30 + 8, b"\xff")),
        UNREADABLE,
        "ZIP_DAMAGED",
    ),
    "encrypted": (
        central(lambda content, at: patched(content, at + 8, b"\x01")),
        UNREADABLE,
        "ZIP_ENCRYPTED",
    ),
    "method 99": (central(lambda content, at: patched(content, at + 10, b"\x63")), UNSAFE, "ZIP_FEATURES"),
    "an entry of another's header": (pointing_elsewhere, UNSAFE, "ZIP_LOCAL_HEADER"),
    "members that overlap": (overlapping, UNSAFE, "ZIP_OVERLAP"),
    "a name twice": (duplicate, UNSAFE, "ZIP_NAMES"),
    "a path out": (with_members(**{"../x": b""}), UNSAFE, "ZIP_NAMES"),
    "a member more": (with_members(notes=b"hello"), UNSAFE, "ZIP_NAMES"),
    "two folders": (
        lambda: zipped(members(pickled(b"}")) | {"b/data/7": b""}),
        UNSAFE,
        "ZIP_ROOTS",
    ),
    "no pickle": (lambda: zipped({"a/photo.png": b""}), UNREADABLE, "ZIP_FOREIGN"),
    "a bomb of one member": (
        lambda: zipped(members(pickled(b"}"), {"0": bytes(8 << 20)}), zipfile.ZIP_DEFLATED),
        UNSAFE,
        "ZIP_RATIO",
    ),
    "big-endian": (
        lambda: zipped(members(pickled(mapping({"w": tensor()}))) | {"a/byteorder": b"big"}),
        UNREADABLE,
        "BIG_ENDIAN",
    ),
    "bytes before the zip": (lambda: b"PK\x03\x04" + good(), UNSAFE, "ZIP_PREFIX"),
    "TorchScript": (with_members(**{"constants.pkl": b"", "code/__torch__.py": b""}), CODE, "TORCHSCRIPT"),
    "torch.export": (
        lambda: zipped({"a/archive_format": b"pt2", "a/models/model.json": b"{}"}),
        CODE,
        "TORCH_EXPORT",
    ),
    "torch.package": (lambda: zipped({"a/.data/extern_modules": b"sys"}), CODE, "TORCH_PACKAGE"),
    "half of it": (lambda: good()[: len(good()) // 2], UNREADABLE, "ZIP_DAMAGED"),
}


def _sized(content: bytes, first: int, size: int) -> bytes:
    """Both headers of a member claim a size."""
    heads, entries = header_offsets(content)
    for position in (heads[3] + 18, entries[3] + 20):
        content = patched(content, position, struct.pack("<II", size, size))
    return content


LEGACY_WEIGHT = mapping({"w": tensor()})
LEGACIES: dict[str, Case] = {
    "a count that the file does not have": (
        lambda: legacy(LEGACY_WEIGHT, [("0", 4, FOUR[:8])]),
        UNREADABLE,
        "LEGACY_TRUNCATED",
    ),
    "a count that the pickle does not have": (
        lambda: legacy(LEGACY_WEIGHT, [("0", 1 << 40, FOUR)]),
        UNSAFE,
        "STORAGE_SIZE",
    ),
    "a negative count": (lambda: legacy(LEGACY_WEIGHT, [("0", -4, FOUR)]), UNSAFE, "STORAGE_SIZE"),
    "a pickle that claims more than the file": (
        lambda: legacy(
            mapping({"w": tensor(storage(count=integer(1 << 30)), 0, (1 << 30,))}), [("0", 1 << 30, FOUR)]
        ),
        UNREADABLE,
        "LEGACY_TRUNCATED",
    ),
    "a storage that is not listed": (lambda: legacy(LEGACY_WEIGHT, [], []), UNSAFE, "STORAGE_MISSING"),
    "a storage listed twice": (
        lambda: legacy(LEGACY_WEIGHT, [("0", 4, FOUR)], ["0", "0"]),
        UNSAFE,
        "STORAGE_ID",
    ),
    "a storage of two sizes": (
        lambda: legacy(
            mapping({"a": tensor(), "b": tensor(storage(count=integer(2)), 0, (2,))}), [("0", 4, FOUR)]
        ),
        UNSAFE,
        "STORAGE_RETYPED",
    ),
    "bytes behind the last": (
        lambda: legacy(LEGACY_WEIGHT, [("0", 4, FOUR)]) + b"x",
        UNSAFE,
        "LEGACY_TRAILING",
    ),
    "a function": (lambda: legacy(call("os.system", text("id")), []), CODE, "GLOBAL_FORBIDDEN"),
    "a version that is a bomb of tuples": (
        lambda: b"".join(map(pickled, (integer(0x1950A86A20F9469CFC6C), laughs(60), b"}", b"}", b"]"))),
        UNREADABLE,
        "LEGACY_VERSION",
    ),
}

SAFETENSORS: dict[str, Case] = {
    "a header of 2^63 bytes": (
        lambda: struct.pack("<Q", 1 << 39) + b'{"w":{}}',
        UNSAFE,
        "HEADER_BYTES",
    ),
    "a header that ends early": (
        lambda: struct.pack("<Q", 1000) + b'{"w":{}}',
        UNREADABLE,
        "HEADER_TRUNCATED",
    ),
    "no JSON": (lambda: safetensors(b'{"w": '), UNREADABLE, "HEADER_JSON"),
    "NaN": (lambda: safetensors(b'{"w": NaN}'), UNREADABLE, "HEADER_JSON"),
    "JSON 100,000 deep": (
        lambda: safetensors(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        UNREADABLE,
        "HEADER_JSON",
    ),
    "a name twice": (
        lambda: safetensors(b"{" + b",".join([b'"w":' + json.dumps(entry()).encode()] * 2) + b"}"),
        UNSAFE,
        "KEY_DUPLICATE",
    ),
    "another type": (lambda: safetensors({"w": entry("F99")}), UNREADABLE, "DTYPE_UNKNOWN"),
    "a type that is a list": (
        lambda: safetensors({"w": entry() | {"dtype": [[[]]]}}),
        UNREADABLE,
        "DTYPE_UNKNOWN",
    ),
    "fp8": (lambda: safetensors({"w": entry("F8_E4M3", [16])}), "DTYPE_MISMATCH", "TENSOR_DTYPE"),
    "a shape of other bytes": (lambda: safetensors({"w": entry(shape=[5])}), UNSAFE, "STORAGE_SIZE"),
    "a shape that overflows": (lambda: safetensors({"w": entry(shape=[2**61, 8])}), UNSAFE, "STORAGE_SIZE"),
    "a shape of true": (lambda: safetensors({"w": entry(shape=[True, 4])}), UNSAFE, "TENSOR_GEOMETRY"),
    "a shape of floats": (lambda: safetensors({"w": entry(shape=[4.0])}), UNSAFE, "TENSOR_GEOMETRY"),
    "nine dimensions": (lambda: safetensors({"w": entry(shape=[4, *[1] * 8])}), UNSAFE, "TENSOR_DIMENSIONS"),
    "tensors that overlap": (lambda: safetensors({"a": entry(), "b": entry()}), UNSAFE, "STORAGE_LAYOUT"),
    "a hole": (
        lambda: safetensors({"a": entry(shape=[2], offsets=[8, 16])}),
        UNSAFE,
        "STORAGE_LAYOUT",
    ),
    "bytes behind the last": (lambda: safetensors({"w": entry()}, FOUR + b"x"), UNSAFE, "STORAGE_LAYOUT"),
    "bytes too few": (lambda: safetensors({"w": entry()}, FOUR[:9]), UNREADABLE, "DATA_TRUNCATED"),
    "offsets backwards": (
        lambda: safetensors({"w": entry(offsets=[16, 0])}),
        UNSAFE,
        "TENSOR_GEOMETRY",
    ),
    "metadata of numbers": (
        lambda: safetensors({"__metadata__": {"a": 1}, "w": entry()}),
        UNREADABLE,
        "HEADER_METADATA",
    ),
    "a field more": (lambda: safetensors({"w": entry() | {"x": 1}}), UNREADABLE, "HEADER_ENTRY"),
    "a name with a newline": (lambda: safetensors({"w\n": entry()}), UNSAFE, "TENSOR_NAME"),
    "no tensors": (lambda: safetensors({}, b""), UNREADABLE, "NO_STATE_DICT"),
}

FOREIGN: dict[str, Case] = {
    "nothing": (lambda: b"", UNREADABLE, "EMPTY"),
    "one byte": (lambda: b"P", UNREADABLE, "FOREIGN"),
    "text": (lambda: b"hello\n", UNREADABLE, "FOREIGN"),
    "HTML": (lambda: b"<!DOCTYPE html>", UNREADABLE, "FOREIGN"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(99), UNREADABLE, "FOREIGN"),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(99), UNREADABLE, "FOREIGN"),
    "tar": (lambda: bytes(257) + b"ustar" + bytes(250), UNREADABLE, "TAR"),
    "ONNX": (lambda: b"\x08\x07\x12\x07pytorch", CODE, "ONNX"),
    "ELF": (lambda: b"\x7fELF" + bytes(99), CODE, "EXECUTABLE"),
    "protocol 0 with a function": (lambda: b"cos\nsystem\n(S'id'\ntR.", CODE, "PICKLE_PROTOCOL"),
    "protocol 0 with INST": (lambda: b"(S'id'\nios\nsystem\n.", CODE, "PICKLE_PROTOCOL"),
    "protocol 0": (lambda: b"(dp0\nS'a'\np1\nI1\ns.", UNREADABLE, "PICKLE_PROTOCOL"),
    "protocol 1": (lambda: b"}q\x00U\x01aK\x01s.", UNREADABLE, "PICKLE_PROTOCOL"),
    "a bare pickle with a function": (
        lambda: pickled(call("os.system", text("id"))),
        CODE,
        "GLOBAL_FORBIDDEN",
    ),
    "a bare pickle of a number": (lambda: pickled(b"K\x01"), UNREADABLE, "COURSE_FILE"),
    "a bare pickle of text": (lambda: pickled(mapping({"w": text("x")})), UNREADABLE, "COURSE_FILE"),
    "a course file with a range of NaN": (
        lambda: pickled(
            mapping(
                {
                    "w": items(
                        b"G" + struct.pack(">d", float("nan")),
                        b"K\x01",
                        array(items(integer(4)), b"abcd", "u1"),
                    )
                }
            )
        ),
        UNREADABLE,
        "COURSE_RANGE",
    ),
}

ARTIFACT = {
    "format_version": b"K\x01",
    "graph": b"}",
    "data": tensor(storage("ByteStorage", count=integer(16))),
}
DOCUMENTS: dict[str, Case] = {
    "an artifact without tensor": (of(mapping(ARTIFACT | {"data": b"N"})), UNREADABLE, "DOCUMENT"),
    "an artifact of 2^60 values": (
        of(mapping(ARTIFACT | {"graph": b"]" + laughs(60) + b"a"})),
        UNREADABLE,
        "DOCUMENT",
    ),
    "lists 70 deep": (
        of(mapping(ARTIFACT | {"graph": b"]" * 70 + b"a" * 69})),
        UNSAFE,
        "DOCUMENT_SIZE",
    ),
    "2^30 lists, each holding the one before twice": (
        of(mapping(ARTIFACT | {"graph": mapping({f"l{n}": doubled(n) for n in range(30)})})),
        UNSAFE,
        "DOCUMENT_SIZE",
    ),
    "a text with NUL": (of(mapping(ARTIFACT | {"graph": text("a\0")})), UNREADABLE, "DOCUMENT"),
    "half a character": (of(mapping(ARTIFACT | {"graph": text("\ud800")})), UNREADABLE, "DOCUMENT"),
    "a class with a newline": (
        of(mapping(ARTIFACT | {"class_names": b"](" + text("a\n") + text("b") + b"e"})),
        UNREADABLE,
        "CLASS_NAMES",
    ),
    "a class named by a megabyte": (
        of(mapping(ARTIFACT | {"class_names": b"](" + text("a" * 1_000_000) + text("b") + b"e"})),
        UNREADABLE,
        "CLASS_NAMES",
    ),
}

CASES = {
    f"{kind}: {name}": case
    for kind, cases in {
        "pickle": PICKLES,
        "tensor": TENSORS,
        "zip": ZIPS,
        "legacy": LEGACIES,
        "safetensors": SAFETENSORS,
        "foreign": FOREIGN,
        "document": DOCUMENTS,
    }.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_that_breaks_one_rule_is_refused_by_it(tmp_path: Path, name: str) -> None:
    content, code, rule = CASES[name]
    began = time.process_time()
    assert verdict(tmp_path, content()) == (code, rule)
    assert time.process_time() - began < 5


def test_the_files_by_hand_differ_from_a_good_one_in_that_rule_alone(tmp_path: Path) -> None:
    """Otherwise every refusal above could have another reason."""
    for content in (
        good(),
        legacy(LEGACY_WEIGHT, [("0", 4, FOUR)]),
        safetensors({"w": entry()}),
        pickled(mapping({"w": array(items(integer(4)), FOUR)})),
        checkpoint(mapping(ARTIFACT)),
        zipped(members(pickled(mapping({"w": tensor()}))), zipfile.ZIP_DEFLATED),
    ):
        assert verdict(tmp_path, content) == ("", "")


LIMITED: dict[str, tuple[Callable[[], bytes], dict[str, int], str]] = {
    "members": (good, {"zip_members": 3}, "ZIP_MEMBERS"),
    "the directory": (good, {"zip_directory_bytes": 100}, "ZIP_DIRECTORY"),
    "bytes unpacked": (good, {"zip_free_total": 0, "zip_total_ratio": 0}, "ZIP_RATIO"),
    "the pickle": (good, {"pickle_bytes": 10}, "PICKLE_BYTES"),
    "a bare pickle": (lambda: pickled(b"}"), {"bare_pickle_bytes": 3}, "PICKLE_BYTES"),
    "instructions": (good, {"opcodes": 10}, "PICKLE_OPCODES"),
    "tensors of a zip": (
        lambda: checkpoint(mapping({"a": tensor(), "b": tensor()})),
        {"tensors": 1},
        "TENSOR_COUNT",
    ),
    "tensors of a safetensors file": (
        lambda: safetensors({"a": entry(), "b": entry(offsets=[16, 32])}, FOUR * 2),
        {"tensors": 1},
        "TENSOR_COUNT",
    ),
    "bytes of all tensors": (good, {"tensor_bytes": 15}, "TENSOR_BYTES"),
    "what is held to reorder": (
        weight(None, 0, (2, 2), (1, 2)),
        {"reordered_bytes": 15},
        "TENSOR_STRIDES",
    ),
    "rows to reorder": (weight(None, 0, (2, 2), (1, 2)), {"reordered_rows": 1}, "TENSOR_STRIDES"),
    "a document's values": (of(mapping(ARTIFACT)), {"document_values": 2}, "DOCUMENT_SIZE"),
    "a document's text": (of(mapping(ARTIFACT)), {"document_characters": 4}, "DOCUMENT_SIZE"),
    "a header": (lambda: safetensors({"w": entry()}), {"safetensors_header_bytes": 10}, "HEADER_BYTES"),
}


@pytest.mark.parametrize("name", LIMITED)
def test_every_limit_is_a_refusal(tmp_path: Path, name: str) -> None:
    content, limits, rule = LIMITED[name]
    assert verdict(tmp_path, content(), replace(Limits(), **limits)) == (UNSAFE, rule)


def test_wrappers_end_somewhere(tmp_path: Path) -> None:
    body = mapping({"w": tensor()})
    for _ in range(4):
        body = mapping({"model": body})
    assert verdict(tmp_path, checkpoint(body)) == (UNREADABLE, "NO_STATE_DICT")


def test_each_weight_of_one_flat_storage_is_read_once(tmp_path: Path) -> None:
    """Reading all that lies before would take a thousand times the file."""
    count, side = 1000, 10_000
    total = integer(count * side)
    body = mapping({f"w{i}": tensor(storage(count=total), i * side, (side,)) for i in range(count)})
    began = time.process_time()
    assert verdict(tmp_path, checkpoint(body, {"0": bytes(4 * count * side)})) == ("", "")
    assert time.process_time() - began < 5


def test_class_names_that_cannot_be_kept_are_left_out_with_a_warning(tmp_path: Path) -> None:
    names = b"](" + text("cat") + text("d\0g") + b"e"
    (tmp_path / "upload").write_bytes(
        checkpoint(mapping({"model": mapping({"w": tensor()}), "class_names": names}))
    )
    admitted = admit(tmp_path / "upload", tmp_path / "canonical")
    assert admitted.class_names is None
    assert "'class_names' in the file was not taken" in admitted.warnings[0]


_FRUGAL = """
import resource, sys
from pathlib import Path
from worker.gate import admit
resource.setrlimit(resource.RLIMIT_DATA, (64 << 20, 64 << 20))
admit(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("form", ["legacy", "safetensors"])
def test_200_megabytes_are_read_in_64(tmp_path: Path, form: str) -> None:
    count = 50 << 20
    if form == "legacy":
        content = legacy(
            mapping({"w": tensor(storage(count=integer(count)), 0, (count,))}), [("0", count, b"")]
        )
    else:
        content = safetensors({"w": entry(shape=[count], offsets=[0, 4 * count])}, b"")
    file = tmp_path / "upload"
    with file.open("wb") as sparse:
        sparse.write(content)
        sparse.truncate(len(content) + 4 * count)
    subprocess.run([sys.executable, "-c", _FRUGAL, file, tmp_path / "canonical"], check=True)
    assert (tmp_path / "canonical").stat().st_size > 4 * count


def test_the_verdict_on_a_hostile_file_does_not_wait_for_torch(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(checkpoint(call("os.system", text("id"))))
    limits = {"memory_bytes": 1 << 30, "cpu_seconds": 60, "file_bytes": 1 << 30}
    order = {
        "do": "teacher",
        "spec": {"file": "upload"},
        "file": str(tmp_path / "upload"),
        "work_dir": str(tmp_path),
        "num_threads": 1,
        "limits": limits,
    }
    child = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "worker.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdin.write(json.dumps(order).encode() + b"\n")
        child.stdin.flush()
        said = json.loads(child.stdout.readline())
        imported = child.stderr.read().decode()
    assert (said["status"], said["code"]) == (422, CODE)
    assert said["errors"][0]["code"] == "GLOBAL_FORBIDDEN"
    assert "worker.gate" in imported  # what importtime lists is what was looked for
    assert not {"torch", "numpy", "safetensors"} & {
        line.rpartition("|")[2].strip() for line in imported.splitlines()
    }


def test_the_gate_has_less_than_its_process(tmp_path: Path) -> None:
    """Under the limits of a small file two gigabytes cannot be had, and afterwards they can."""
    code = """
import resource
from worker.limits import tightened
before = [resource.getrlimit(kind) for kind in (resource.RLIMIT_DATA, resource.RLIMIT_CPU, resource.RLIMIT_NOFILE)]
with tightened(1000):
    try:
        bytearray(2 << 30)
    except MemoryError:
        print("refused", resource.getrlimit(resource.RLIMIT_NPROC)[0])
after = [resource.getrlimit(kind) for kind in (resource.RLIMIT_DATA, resource.RLIMIT_CPU, resource.RLIMIT_NOFILE)]
print(before == after)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["refused", "0", "True"]


def test_what_the_process_has_already_is_not_the_gates() -> None:
    """A process that holds more than the gate may take reads a small file nonetheless."""
    code = """
from worker.limits import tightened
held = bytearray(3 << 29)
with tightened(1000):
    print(len(bytearray(100 << 20)))
    try:
        bytearray(2 << 30)
    except MemoryError:
        print("refused")
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(100 << 20), "refused"]


_LIMITED = """
import resource, sys
from pathlib import Path
from app.errors import Problem
from worker.admission import admitted
kind, value = sys.argv[3:]
resource.setrlimit(getattr(resource, kind), (int(value), int(value)))
try:
    admitted(Path(sys.argv[1]), Path(sys.argv[2]))
except Problem as problem:
    print(problem.status, problem.code, problem.errors[0]["code"], Path(sys.argv[2]).exists())
"""


@pytest.mark.parametrize(
    ("kind", "value", "rule"), [("RLIMIT_FSIZE", 100, "TENSOR_BYTES"), ("RLIMIT_DATA", 48 << 20, "MEMORY")]
)
def test_the_process_s_limits_are_verdicts_not_crashes(
    tmp_path: Path, kind: str, value: int, rule: str
) -> None:
    """An error that looked like a full disk would be tried again, three times."""
    side = 4096
    body = mapping({"w": tensor(storage(count=integer(side * side)), 0, (side, side), (1, side))})
    (tmp_path / "upload").write_bytes(checkpoint(body, {"0": bytes(4 * side * side)}))
    said = subprocess.run(
        [sys.executable, "-c", _LIMITED, tmp_path / "upload", tmp_path / "canonical", kind, str(value)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.split() == ["422", UNSAFE, rule, "False"]
