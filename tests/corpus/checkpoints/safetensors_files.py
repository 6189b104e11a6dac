"""safetensors (https://github.com/huggingface/safetensors#format) whose header lies, or costs too much."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from tests.corpus.case import Case
from tests.corpus.checkpoints.containers import ENTRY, NUMBERS, safetensors
from tests.corpus.checkpoints.verdicts import dtype, unreadable, unsafe


def cases() -> Iterator[Case]:
    yield from _lengths()
    yield from _json()
    yield from _entries()
    yield from _layout()
    yield from _names()
    yield from _types()


def _lengths() -> Iterator[Case]:
    header = json.dumps({"w": ENTRY}).encode()
    for what, length in {"more than the file": 10_000, "9 MB": 9 << 20, "2**39": 2**39}.items():
        yield Case(
            f"safetensors: a header of {what}",
            partial(safetensors, header, length=length),
            422,
            "CHECKPOINT_UNREADABLE" if length == 10_000 else "CHECKPOINT_UNSAFE",
        )
    # Beyond a terabyte the eight bytes are no length: the file is none.
    for exponent in (63, 60):
        yield unreadable(
            f"safetensors: a header of 2**{exponent} bytes",
            partial(safetensors, header, length=2**exponent),
            "FOREIGN",
        )
    for what, length in {"one byte less": len(header) - 1, "ten bytes": 10}.items():
        yield unreadable(f"safetensors: {what} for its header", partial(safetensors, header, length=length))
    yield unreadable("safetensors: nothing but its header", partial(safetensors, header, b""))
    yield unreadable("safetensors: only a length", partial(bytes, safetensors(header)[:8]))
    yield unreadable("safetensors: half its header", partial(bytes, safetensors(header)[:30]))
    yield unsafe(
        "safetensors: a million empty tensors in 58 MB", partial(_empty_tensors, 1_000_000), "HEADER_BYTES"
    )
    yield unsafe("safetensors: 20,002 empty tensors", partial(_empty_tensors, 20_002), "TENSOR_COUNT")


def _empty_tensors(count: int) -> bytes:
    entry = json.dumps({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
    entries = ",".join(f'"w{index}":{entry}' for index in range(count))
    return safetensors(f"{{{entries}}}".encode(), b"")


def _json() -> Iterator[Case]:
    entry = json.dumps(ENTRY)
    headers = {
        "no JSON": b"{" + b"x" * 40,
        "cut off": json.dumps({"w": ENTRY}).encode()[:-2],
        "a list": b"[1]",
        "text behind it": json.dumps({"w": ENTRY}).encode() + b"}",
        "NaN": f'{{"w":{entry},"x":NaN}}'.encode(),
        "Infinity": b'{"w":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,16]}}',
        "single quotes": b"{'w': 1}",
        "a comment": f'{{"w":{entry}/* */}}'.encode(),
        "invalid UTF-8": b'{"\xff\xfe":' + entry.encode() + b"}",
        "UTF-16": json.dumps({"w": ENTRY}).encode("utf-16-le"),
        "lists 100,000 deep": b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "dicts 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "a number of a million digits": b'{"w":{"dtype":"F32","shape":[' + b"9" * 1_000_000 + b"]}}",
        "an empty object": b"{}",
        "only __metadata__": b'{"__metadata__":{"format":"pt"}}',
    }
    for what, content in headers.items():
        data = b"" if what in ("an empty object", "only __metadata__") else NUMBERS
        yield unreadable(f"safetensors: {what} for its header", partial(safetensors, content, data))
    twice = f'{{"w":{entry},"w":{entry}}}'.encode()
    yield unsafe("safetensors: a name twice", partial(safetensors, twice), "KEY_DUPLICATE")
    inner = b'{"w":{"dtype":"F32","dtype":"F64","shape":[4],"data_offsets":[0,16]}}'
    yield unsafe("safetensors: two types for one tensor", partial(safetensors, inner), "KEY_DUPLICATE")
    for what, metadata in {
        "numbers": {"epoch": 3},
        "a list": [1],
        "objects": {"a": {"b": "c"}},
        "null": None,
    }.items():
        yield unreadable(
            f"safetensors: __metadata__ of {what}",
            partial(safetensors, {"__metadata__": metadata, "w": ENTRY}),
            "HEADER_METADATA",
        )


def _entries() -> Iterator[Case]:
    entries: dict[str, Any] = {
        "is null": None,
        "is a list": [1],
        "is a text": "F32",
        "is empty": {},
        "has no shape": {"dtype": "F32", "data_offsets": [0, 16]},
        "has a field more": ENTRY | {"device": "cuda:0"},
    }
    for what, entry in entries.items():
        yield unreadable(
            f"safetensors: an entry that {what}", partial(safetensors, {"w": entry}), "HEADER_ENTRY"
        )
    changes: dict[str, dict[str, Any]] = {
        "a shape of floats": {"shape": [4.0]},
        "a shape of texts": {"shape": ["4"]},
        "a shape of booleans": {"shape": [True, 4]},
        "a negative side": {"shape": [-4]},
        "two negative sides": {"shape": [-2, -2]},
        "a side of 2**64": {"shape": [2**64]},
        "a shape that is no list": {"shape": 4},
        "sides whose product wraps to 4": {"shape": [2**31, 2**31, 2**2, 4]},
        "a shape larger than its bytes": {"shape": [5]},
        "a shape smaller than its bytes": {"shape": [3]},
        "rank 9": {"shape": [1] * 8 + [4]},
        "rank 1000": {"shape": [1] * 999 + [4]},
        "one offset": {"data_offsets": [0]},
        "three offsets": {"data_offsets": [0, 8, 16]},
        "offsets backwards": {"data_offsets": [16, 0]},
        "a negative offset": {"data_offsets": [-16, 0]},
        "offsets that are texts": {"data_offsets": ["0", "16"]},
        "offsets of 2**63": {"data_offsets": [2**63, 2**63 + 16]},
        "an offset that is true": {"data_offsets": [False, 16]},
    }
    for what, change in changes.items():
        yield unsafe(f"safetensors: {what}", partial(safetensors, {"w": ENTRY | change}))
    for name in ("F33", "FLOAT32", "f32", "", "F4", "F8_E8M0", "OBJECT"):
        yield unreadable(
            f"safetensors: the type {name!r}",
            partial(safetensors, {"w": ENTRY | {"dtype": name}}),
            "DTYPE_UNKNOWN",
        )
    yield unreadable(
        "safetensors: a type that is a number",
        partial(safetensors, {"w": ENTRY | {"dtype": 32}}),
        "DTYPE_UNKNOWN",
    )


def _layout() -> Iterator[Case]:
    def at(first: int, last: int) -> dict[str, Any]:
        return {"dtype": "F32", "shape": [(last - first) // 4], "data_offsets": [first, last]}

    layouts = {
        "two tensors in the same place": {"a": at(0, 16), "b": at(0, 16)},
        "two tensors that overlap": {"a": at(0, 12), "b": at(8, 16)},
        "a hole in the middle": {"a": at(0, 4), "b": at(8, 16)},
        "a hole in front": {"a": at(4, 16)},
        "bytes behind the last": {"a": at(0, 12)},
    }
    for what, header in layouts.items():
        yield unsafe(f"safetensors: {what}", partial(safetensors, header), "STORAGE_LAYOUT")
    yield unreadable(
        "safetensors: more than is there", partial(safetensors, {"a": at(0, 20)}), "DATA_TRUNCATED"
    )
    yield unreadable(
        "safetensors: 8 GB of which 16 bytes are there",
        partial(safetensors, {"a": at(0, 8 << 30)}),
        "DATA_TRUNCATED",
    )
    yield unsafe("safetensors: bytes behind its data", partial(safetensors, None, NUMBERS + b"PK\5\6"))


def _names() -> Iterator[Case]:
    for what, name in {
        "a NUL": "w\0",
        "a line break": "a\nb",
        "a path": "../../x",
        "513 letters": "w" * 513,
        "nothing": "",
        "HTML": "<b>",
        "half a surrogate pair": "\ud800",
        "an escape": "\x1b[2J",
    }.items():
        yield unsafe(f"safetensors: a name with {what}", partial(safetensors, {name: ENTRY}), "TENSOR_NAME")


def _types() -> Iterator[Case]:
    for name, num_bytes in {"F8_E4M3": 1, "F8_E5M2": 1, "C64": 8, "U16": 2, "U32": 4, "U64": 8}.items():
        entry = {"dtype": name, "shape": [16 // num_bytes], "data_offsets": [0, 16]}
        yield dtype(f"safetensors: weights in {name}", partial(safetensors, {"w": entry}), "TENSOR_DTYPE")
