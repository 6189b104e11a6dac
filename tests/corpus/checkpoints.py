"""Checkpoints that must not get in, each with the status and the code of its refusal.

Bytes are made by hand where PyTorch would not write them. "Meaning" cases are well-formed files that are no teacher of the
architecture that the request names.
"""

import gzip
import io
import json
import os
import pickle
import struct
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from models.architectures import create
from tests.corpus import pickling as p
from tests.corpus.case import Case

UNREADABLE, IS_CODE, UNSAFE = "CHECKPOINT_UNREADABLE", "CHECKPOINT_IS_CODE", "CHECKPOINT_UNSAFE"
ARCHITECTURE, SIDE = "report/final", 16
REQUEST = {
    "architecture": {"architecture": ARCHITECTURE},
    "preprocessing": {
        "resize": None,
        "crop": SIDE,
        "interpolation": "bilinear",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    },
}
Make = Callable[[], bytes]


def cases() -> Iterator[Case]:
    for group in (
        _calls,
        _opcodes,
        _bombs,
        _tensors,
        _kinds_of_tensors,
        _zips,
        _programs,
        _legacy_files,
        _safetensors_files,
        _course_files,
        _foreign_files,
        _contents,
        _meaning,
    ):
        for case in group():
            yield Case(case.name, case.make, case.status, case.code, case.rule, REQUEST | case.request)


def _case(name: str, make: Make | bytes, code: str, rule: str | None = None) -> Case:
    return Case(name, (lambda: make) if isinstance(make, bytes) else make, 422, code, rule)


# ---- pickles that run code


def _calls() -> Iterator[Case]:
    shell = p.text("touch executed")
    for dotted, arguments in {
        "os.system": (shell,),
        "posix.system": (shell,),
        "nt.system": (shell,),
        "subprocess.Popen": (shell,),
        "subprocess.check_output": (shell,),
        "builtins.eval": (p.text("1"),),
        "builtins.exec": (p.text("1"),),
        "__builtin__.eval": (p.text("1"),),
        "builtins.compile": (p.text("1"), p.text("a"), p.text("exec")),
        "builtins.__import__": (p.text("os"),),
        "builtins.getattr": (p.name("os.path"), p.text("join")),
        "builtins.setattr": (p.EMPTY, p.text("a"), p.integer(1)),
        "builtins.open": (p.text("executed"), p.text("w")),
        "builtins.print": (p.text("executed"),),
        "builtins.map": (p.name("builtins.print"), p.shape(1)),
        "functools.partial": (p.name("os.system"), shell),
        "functools.reduce": (p.name("os.system"), p.shape(1)),
        "operator.attrgetter": (p.text("system"),),
        "operator.methodcaller": (p.text("system"), shell),
        "importlib.import_module": (p.text("os"),),
        "runpy.run_path": (p.text("a.py"),),
        "pip.main": (p.text("install"),),
        "webbrowser.open": (p.text("http://example.org"),),
        "socket.create_connection": (p.tuple_of(p.text("localhost"), p.integer(80)),),
        "urllib.request.urlopen": (p.text("http://example.org"),),
        "shutil.rmtree": (p.text("a"),),
        "pickle.loads": (b"C\x02N.",),
        "numpy.load": (p.text("a.npy"),),
        "numpy.f2py.crackfortran.getlincoef": (p.text("1"), p.EMPTY),
        "torch.load": (p.text("a.pt"),),
        "torch.hub.load": (p.text("a/b"), p.text("c")),
        "torch.jit.load": (p.text("a.pt"),),
        "torch.serialization.load": (p.text("a.pt"),),
        "torch._utils._rebuild_wrapper_subclass_x": (p.integer(1),),
        "torch.utils._config_module.load_config": (b"C\x02N.",),
        "torch.FloatTensor": (p.integer(1 << 20),),
        "torch.empty": (p.integer(1 << 20),),
        "torch.ones": (p.integer(1 << 40),),
        "collections.OrderedDict.fromkeys": (p.shape(1),),
        "collections.namedtuple": (p.text("a"), p.text("b")),
        "argparse.FileType": (p.text("w"),),
        "pathlib.Path.touch": (p.text("executed"),),
        "timeit.timeit": (p.text("1"),),
        "code.interact": (),
        "ctypes.CDLL": (p.text("libc.so.6"),),
        "sympy.sympify": (p.text("1"),),
        "yaml.unsafe_load": (p.text("1"),),
        "cloudpickle.cloudpickle._make_function": (p.integer(1),),
        "copyreg._reconstructor": (p.name("builtins.object"), p.name("builtins.object"), b"N"),
        "types.CodeType": (p.integer(1),),
        "types.FunctionType": (p.integer(1),),
        "typing.get_type_hints": (p.integer(1),),
    }.items():
        yield _case(f"calls {dotted}", p.state(w=p.call(dotted, *arguments)), IS_CODE, "GLOBAL_FORBIDDEN")
    yield _case(
        "a forbidden name is never called", p.state(w=p.name("os.system")), IS_CODE, "GLOBAL_FORBIDDEN"
    )
    stacked = p.text("os") + p.text("system") + b"\x93" + p.tuple_of(shell) + b"R"
    yield _case("calls by STACK_GLOBAL", p.checkpoint(stacked, protocol=4), IS_CODE, "GLOBAL_FORBIDDEN")
    yield _case(
        "a name with dots inside", p.state(w=b"cos\npath.os.system\n" + p.tuple_of(shell) + b"R"), IS_CODE
    )
    yield _case(
        "a name beyond ASCII", p.state(w="c\u043es\nsystem\n".encode() + p.tuple_of(shell) + b"R"), IS_CODE
    )
    yield _case(
        "NEWOBJ of a forbidden class", p.state(w=p.name("os.system") + p.tuple_of(shell) + b"\x81"), IS_CODE
    )
    yield _case(
        "a known type is called", p.state(w=p.name("torch.FloatStorage") + p.shape(5) + b"R"), IS_CODE
    )
    yield _case("a dtype is called", p.state(w=p.name("torch.float32") + p.shape(5) + b"R"), IS_CODE)
    yield _case(
        "a text is called",
        p.state(w=p.text("os.system") + p.tuple_of(shell) + b"R"),
        IS_CODE,
        "REDUCE_FORBIDDEN",
    )
    yield _case("a dict is called", p.state(w=b"}" + p.tuple_of(shell) + b"R"), IS_CODE, "REDUCE_FORBIDDEN")
    yield _case("a tensor is called", p.state(w=p.tensor() + b")R"), IS_CODE, "REDUCE_FORBIDDEN")
    yield _case(
        "the state of a list is set",
        p.state(w=b"]" + p.dict_of({"a": b"N"}) + b"b"),
        IS_CODE,
        "BUILD_FORBIDDEN",
    )
    yield _case("the state of a text is set", p.state(w=p.text("a") + b"}b"), IS_CODE, "BUILD_FORBIDDEN")
    yield _case(
        "a tensor with __setstate__", p.state(w=p.tensor() + p.dict_of({"numel": b"N"}) + b"b"), UNREADABLE
    )
    yield _case("OrderedDict with __setstate__ of a text", p.state(w=p.EMPTY + p.text("a") + b"b"), IS_CODE)
    for protocol in (2, 3, 4, 5):
        yield _case(
            f"a whole module, protocol {protocol}",
            lambda n=protocol: p.saved(nn.Linear(2, 2), pickle_protocol=n),
            IS_CODE,
        )  # type: ignore[misc]
        yield _case(
            f"a bare pickle of code, protocol {protocol}",
            lambda n=protocol: pickle.dumps({"w": Evil()}, n),
            IS_CODE,
        )  # type: ignore[misc]
    yield _case("a module among weights", lambda: p.saved({"model": nn.Linear(2, 2), "epoch": 1}), IS_CODE)
    yield _case(
        "an optimizer object", lambda: p.saved({"optimizer": torch.optim.SGD([torch.zeros(1)], 0.1)}), IS_CODE
    )


class Evil:
    """Pickled as a call."""

    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


# ---- opcodes


def _opcodes() -> Iterator[Case]:
    for number, code in {
        "INT": b"I1\n",
        "LONG": b"L1L\n",
        "LONG4": b"\x8b\x01\x00\x00\x00\x01",
        "FLOAT": b"F1.0\n",
        "STRING": b"S'a'\n",
        "UNICODE": b"Va\n",
        "SHORT_BINSTRING": b"U\x01a",
        "BINSTRING": b"T\x01\x00\x00\x00a",
        "DICT": b"(d",
        "LIST": b"(l",
        "GET": b"g0\n",
        "PUT": b"Np0\n",
        "DUP": b"N2",
        "POP": b"NN0",
        "POP_MARK": b"N(N1",
        "INST": b"(ios\nsystem\n",
        "OBJ": b"(cos\nsystem\no",
        "NEWOBJ_EX": b"N)}\x92",
        "EXT1": b"\x82\x01",
        "EXT2": b"\x83\x01\x00",
        "EXT4": b"\x84\x01\x00\x00\x00",
        "PERSID": b"P0\n",
        "NEXT_BUFFER": b"\x97",
        "READONLY_BUFFER": b"N\x98",
        "none at all": b"\xff",
    }.items():
        expected = IS_CODE if number == "OBJ" else UNSAFE
        yield _case(f"opcode {number}", p.checkpoint(code), expected)
    for number in (0, 1, 6, 255):
        yield _case(f"protocol {number}", p.checkpoint(b"}", protocol=number), UNREADABLE, "PICKLE_PROTOCOL")
    yield _case("no STOP", p.zipped(b"\x80\x02}"), UNREADABLE, "PICKLE_TRUNCATED")
    yield _case("an empty pickle", p.zipped(b""), UNREADABLE, "PICKLE_TRUNCATED")
    yield _case(
        "bytes after STOP",
        p.zipped(p.pickled(p.dict_of({"w": p.tensor()})) + b"N."),
        UNSAFE,
        "PICKLE_TRAILING",
    )
    yield _case("two values", p.checkpoint(b"}}"), UNREADABLE, "PICKLE_DAMAGED")
    yield _case("an empty stack", p.checkpoint(b"u"), UNREADABLE, "PICKLE_DAMAGED")
    yield _case("no mark", p.checkpoint(b"}t"), UNREADABLE, "PICKLE_DAMAGED")
    yield _case("a mark as the value", p.checkpoint(b"("), UNREADABLE, "PICKLE_DAMAGED")
    yield _case("a memo that is not there", p.checkpoint(b"h\x07"), UNREADABLE, "PICKLE_DAMAGED")
    yield _case(
        "a key without a value", p.checkpoint(b"}(" + p.text("a") + b"u"), UNREADABLE, "PICKLE_DAMAGED"
    )
    yield _case("items of a list", p.checkpoint(b"](" + p.text("a") + b"Nu"), UNREADABLE, "PICKLE_DAMAGED")
    yield _case("append to a dict", p.checkpoint(b"}Na"), UNREADABLE, "PICKLE_DAMAGED")
    yield _case("a text that is no UTF-8", p.checkpoint(p.text(b"\xff\xfe")), UNREADABLE, "STRING_UTF8")
    yield _case(
        "a text of 4 GB that is not there", p.checkpoint(b"X\xff\xff\xff\xff"), UNREADABLE, "PICKLE_TRUNCATED"
    )
    for opcode in (0x8D, 0x8E, 0x96):
        claimed = bytes([opcode]) + struct.pack("<Q", 1 << 62)
        yield _case(
            f"opcode {opcode:#x} of 2^62 bytes",
            p.checkpoint(claimed, protocol=5),
            UNREADABLE,
            "PICKLE_TRUNCATED",
        )
    yield _case(
        "a name of a megabyte", p.checkpoint(b"c" + b"a" * (1 << 20) + b"\na\n"), UNSAFE, "GLOBAL_LENGTH"
    )
    yield _case("a name without an end", p.checkpoint(b"cos"), UNREADABLE)


# ---- small files that would cost much


def _bombs() -> Iterator[Case]:
    yield _case(
        "a key of a million tuples", lambda: p.checkpoint(b"})" + b"\x85" * 1_000_000 + b"Ns"), UNREADABLE
    )
    yield _case("a million tuples", lambda: p.checkpoint(b")" + b"\x85" * 1_000_000), UNREADABLE)
    yield _case("a million lists", lambda: p.checkpoint(b"]" * 1_000_000 + b"a" * 999_999), UNREADABLE)
    yield _case("a million dicts", lambda: p.checkpoint(b"(" + b"}" * 1_000_000 + b"t"), UNREADABLE)
    yield _case(
        "five million instructions",
        lambda: p.checkpoint(b"(" + b"N" * 5_000_000 + b"t"),
        UNSAFE,
        "PICKLE_OPCODES",
    )
    yield _case("a billion laughs of lists", lambda: p.checkpoint(_doubled()), UNREADABLE)
    yield _case("a billion laughs as a document", lambda: p.checkpoint(_document(_doubled())), UNREADABLE)
    yield _case(
        "a document of a billion laughs",
        lambda: p.checkpoint(_document(_doubled(), p.tensor())),
        UNSAFE,
        "DOCUMENT_SIZE",
    )
    yield _case(
        "a document in itself",
        lambda: p.checkpoint(_document(b"}q\x63" + p.text("a") + b"h\x63s", p.tensor())),
        UNSAFE,
    )
    deep = b"]" * 2_000 + b"a" * 1_999
    yield _case(
        "a document 2,000 deep", lambda: p.checkpoint(_document(deep, p.tensor())), UNSAFE, "DOCUMENT_SIZE"
    )
    yield _case("a dict in itself", p.checkpoint(b"}q\x00" + p.text("model") + b"h\x00s"), UNREADABLE)
    yield _case("an integer of 255 bytes", p.checkpoint(b"\x8a\xff" + b"\x01" * 255), UNSAFE, "INTEGER_SIZE")
    yield _case("a key of 600 letters", p.state(**{"a" * 600: p.tensor()}), UNSAFE, "KEY_LENGTH")
    twice = b"}(" + 2 * (p.text("w") + p.tensor()) + b"u"
    yield _case("a key twice", p.checkpoint(twice), UNSAFE, "KEY_DUPLICATE")
    encode = p.name("_codecs.encode")
    large = p.text("a" * 65_536)
    yield _case(
        "punycode",
        p.state(w=encode + p.tuple_of(large, p.text("punycode")) + b"R"),
        UNSAFE,
        "CODEC_FORBIDDEN",
    )
    yield _case(
        "rot13", p.state(w=encode + p.tuple_of(large, p.text("rot13")) + b"R"), UNSAFE, "CODEC_FORBIDDEN"
    )
    again = b"h\x02h\x01h\x03\x86R"
    makes = b"(" + large + b"q\x01" + encode + b"q\x02" + p.text("latin1") + b"q\x03" + again * 1_000 + b"t"
    yield _case("the same text encoded a thousand times", p.checkpoint(makes), UNSAFE, "PICKLE_BYTES")
    sides = b"(" + b"K\x01" * 100_000 + b"tq\x01" + p.name("torch.Size") + b"q\x02"
    yield _case(
        "a long shape a thousand times",
        lambda: p.checkpoint(b"(" + sides + b"h\x02h\x01\x85R" * 1_000 + b"t"),
        UNREADABLE,
    )
    yield _case("21,000 tensors", lambda: p.checkpoint(_many_tensors(21_000)), UNSAFE, "TENSOR_COUNT")
    yield _case(
        "one storage as a thousand tensors",
        lambda: p.checkpoint(_many_tensors(1_000, 4_096), {"0": bytes(16_384)}),
        UNSAFE,
        "TENSOR_ALIASING",
    )


def _doubled() -> bytes:
    """A list of two lists of two lists … 60 deep: 2^60 items in 600 bytes (a list keeps them all on the stack)."""
    lists = (b"](h" + bytes([n]) + b"h" + bytes([n]) + b"eq" + bytes([n + 1]) for n in range(60))
    return b"](" + b"]q\x00" + b"".join(lists) + b"e"


def _document(graph: bytes, data: bytes = b"N") -> bytes:
    return p.dict_of({"graph": graph, "format_version": p.integer(1), "data": data})


def _many_tensors(count: int, elements: int = 6) -> bytes:
    one = p.tensor(of=p.storage(elements=elements), sides=(elements,), strides=(1,))
    # The tensor is made once and named often.
    return (
        b"}("
        + p.text("w")
        + one
        + b"q\x63"
        + b"".join(p.text(f"w{n}") + b"h\x63" for n in range(count))
        + b"u"
    )


# ---- tensors that lie


def _tensors() -> Iterator[Case]:
    def case(name: str, rule: str, code: str = UNSAFE, **what: Any) -> Case:
        return _case(name, p.state(w=p.tensor(**what)), code, rule)

    yield case("stride 0 shows 100 GB", "TENSOR_EXPANDED", sides=(100, 2**28), strides=(0, 0))
    yield case("stride 0 shows twelve", "TENSOR_EXPANDED", sides=(2, 6), strides=(0, 1))
    yield case("strides that overlap", "TENSOR_EXPANDED", sides=(3, 3), strides=(1, 1))
    yield case("a negative stride", "TENSOR_GEOMETRY", strides=(-3, 1))
    yield case("a negative side", "TENSOR_GEOMETRY", sides=(-2, 3))
    yield case("a negative offset", "TENSOR_GEOMETRY", offset=-1)
    yield case("an offset beyond the end", "TENSOR_OUT_OF_STORAGE", offset=1)
    yield case("an offset of 2^40", "TENSOR_OUT_OF_STORAGE", offset=2**40)
    yield case("an offset of 2^63", "TENSOR_DAMAGED", offset=2**63)
    yield case("more elements than there are", "TENSOR_OUT_OF_STORAGE", sides=(7,), strides=(1,))
    yield case("2^62 elements", "TENSOR_DAMAGED", sides=(2**62,), strides=(1,))
    yield case(
        "sides whose product overflows",
        "TENSOR_OUT_OF_STORAGE",
        sides=(2**31, 2**31, 2**31),
        strides=(2**61, 2**31, 1),
    )
    yield case("a side of 2^40", "TENSOR_SIZE", sides=(2**40,), strides=(1,))
    yield case("rank 9", "TENSOR_DIMENSIONS", sides=(1,) * 9, strides=(1,) * 9)
    yield case("rank 1,000", "TENSOR_DIMENSIONS", sides=(1,) * 1_000, strides=(1,) * 1_000)
    yield case("more strides than sides", "TENSOR_GEOMETRY", strides=(3, 1, 1))
    yield case("sides of text", "TENSOR_DAMAGED", of=p.storage() + p.integer(0) + p.text("a"))
    yield case("requires_grad of text", "TENSOR_DAMAGED", requires_grad=p.text("yes"))
    yield case("backward hooks", "TENSOR_HOOKS", IS_CODE, hooks=p.dict_of({"0": p.text("hook")}))
    yield case("metadata", "TENSOR_METADATA", UNREADABLE, more=(p.dict_of({"conj": b"\x88"}),))
    yield case("too many arguments", "TENSOR_DAMAGED", more=(b"N", b"N"))
    yield case("a storage of nothing", "TENSOR_DAMAGED", of=b"N")
    yield case("a storage that is missing", "STORAGE_MISSING", of=p.storage("7"))
    yield case("a storage of a path", "STORAGE_MISSING", of=p.storage("../data.pkl"))
    yield case("a storage that claims more", "STORAGE_SIZE", of=p.storage(elements=1 << 20))
    yield case("a storage that claims less", "STORAGE_SIZE", of=p.storage(elements=5))
    yield case("a storage of 2^62 elements", "STORAGE_SIZE", of=p.storage(elements=2**62))
    yield case("a storage of -6 elements", "STORAGE_SIZE", of=p.storage(elements=-6))
    ident = (
        p.tuple_of(p.text("module"), p.name("torch.FloatStorage"), p.text("0"), p.text("cpu"), p.integer(6))
        + b"Q"
    )
    yield case("a persistent id of a module", "STORAGE_ID", of=ident)
    yield case("a persistent id of three", "STORAGE_ID", of=p.shape(1, 2, 3) + b"Q")
    both = {"a": p.tensor(), "b": p.tensor(of=p.storage(elements=3, kind="Double"), sides=(3,), strides=(1,))}
    yield _case("one storage as two types", p.state(**both), UNSAFE, "STORAGE_RETYPED")
    yield _case(
        "a parameter of text",
        p.state(w=p.call("torch._utils._rebuild_parameter", p.text("a"), b"\x88", p.EMPTY)),
        UNSAFE,
    )
    for name in ("a/b", "a b", "a\nb", "a\x00b", "../w", "ünï", "", "w;rm"):
        yield _case(f"a tensor named {name!r}", p.state(**{name: p.tensor()}), UNSAFE, "TENSOR_NAME")


def _kinds_of_tensors() -> Iterator[Case]:
    def sparse() -> bytes:
        values = torch.sparse_coo_tensor(
            torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (2,), check_invariants=True
        )
        return p.saved({"w": values})

    def quantized() -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return p.saved({"w": torch.quantize_per_tensor(torch.rand(4), 0.1, 0, torch.qint8)})

    yield _case("a sparse tensor", sparse, UNREADABLE, "TENSOR_KIND")
    yield _case("a quantized tensor", quantized, UNREADABLE, "TENSOR_KIND")
    yield _case(
        "a tensor without values",
        lambda: p.saved({"w": torch.empty(2, device="meta")}),
        UNREADABLE,
        "TENSOR_KIND",
    )
    yield _case(
        "a conjugated tensor", lambda: p.saved({"w": torch.rand(2, dtype=torch.complex64).conj()}), UNREADABLE
    )
    yield _case(
        "a pickle.dump of weights", lambda: pickle.dumps({"w": torch.rand(2)}), UNREADABLE, "PLAIN_PICKLE"
    )
    for dtype in (
        torch.complex64,
        torch.complex128,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.uint16,
        torch.uint32,
    ):
        yield _case(
            f"a tensor of {dtype}",
            lambda t=dtype: p.saved({"w": torch.zeros(2).to(t)}),
            "DTYPE_MISMATCH",
            "TENSOR_DTYPE",
        )  # type: ignore[misc]


# ---- zip files


def _good() -> dict[str, bytes]:
    return {
        "archive/data.pkl": p.pickled(p.dict_of({"w": p.tensor()})),
        "archive/byteorder": b"little",
        "archive/version": b"3\n",
        "archive/data/0": p.SIX,
    }


def _zip(**changes: bytes) -> bytes:
    return p.zip_of(_good() | {key.replace("__", "/"): value for key, value in changes.items()})


def _zips() -> Iterator[Case]:
    whole = p.zip_of(_good())
    for name in (
        "archive/../w",
        "/etc/passwd",
        "archive/data/..",
        "archive/data/a",
        "archive/notes.txt",
        "archive/data\\1",
        "archive/data/9999999999",
    ):
        yield _case(f"a member named {name}", p.zip_of(_good() | {name: b"a"}), UNSAFE)
    yield _case("two roots", p.zip_of(_good() | {"other/data/1": b"a"}), UNSAFE, "ZIP_ROOTS")
    yield _case("no root", p.zip_of({key.partition("/")[2]: value for key, value in _good().items()}), UNSAFE)
    without = {key: value for key, value in _good().items() if not key.endswith("data.pkl")}
    yield _case("no data.pkl", p.zip_of(without), UNREADABLE, "ZIP_FOREIGN")
    yield _case(
        "photos",
        p.zip_of({"cat/1.jpg": b"\xff\xd8\xff", "dog/2.jpg": b"\xff\xd8\xff"}),
        UNREADABLE,
        "ZIP_FOREIGN",
    )
    yield _case("big-endian", p.zip_of(_good() | {"archive/byteorder": b"big"}), UNREADABLE, "BIG_ENDIAN")
    yield _case("a member twice", _twice, UNSAFE, "ZIP_NAMES")
    yield _case("members that share bytes", lambda: _overlapping(whole), UNSAFE)
    yield _case("a damaged weight", whole.replace(p.SIX, p.SIX[:-1] + b"\x00"), UNREADABLE, "ZIP_DAMAGED")
    yield _case("a damaged pickle", whole.replace(b"OrderedDict", b"OrderedDicu"), UNREADABLE, "ZIP_DAMAGED")
    local = whole.index(b"archive/data/0")
    yield _case(
        "another name in its own header",
        whole[:local] + b"archive/data/1" + whole[local + 14 :],
        UNSAFE,
        "ZIP_LOCAL_HEADER",
    )
    yield _case(
        "a method of its own header",
        lambda: _patched(whole, whole.index(b"PK\x03\x04", 10) + 8, b"\x08\x00"),
        UNSAFE,
        "ZIP_LOCAL_HEADER",
    )
    yield _case("bytes before the zip", b"MZ" + whole, IS_CODE)
    yield _case("a zip behind a zip", whole + whole, UNSAFE, "ZIP_PREFIX")
    for part in (1, 2, 3, 5, 8, 9):
        yield _case(f"cut at {part} of 10", whole[: len(whole) * part // 10], UNREADABLE)
    yield _case("without its last byte", whole[:-1], UNREADABLE, "ZIP_DAMAGED")
    central = whole.index(b"PK\x01\x02")
    yield _case(
        "encrypted", lambda: _patched(_patched(whole, central + 8, b"\x01\x08"), 6, b"\x01\x08"), UNREADABLE
    )
    yield _case(
        "packed with LZMA",
        lambda: _patched(_patched(whole, central + 10, b"\x0e\x00"), 8, b"\x0e\x00"),
        UNSAFE,
        "ZIP_FEATURES",
    )
    yield _case(
        "packed with bzip2",
        lambda: _patched(_patched(whole, central + 10, b"\x0c\x00"), 8, b"\x0c\x00"),
        UNSAFE,
        "ZIP_FEATURES",
    )
    yield _case(
        "two sizes of a stored member",
        lambda: _patched(whole, central + 24, struct.pack("<I", 5)),
        UNSAFE,
        "ZIP_SIZES",
    )
    yield _case(
        "a size of 4 GB",
        lambda: _patched(
            _patched(whole, central + 24, b"\xfe\xff\xff\xff"), central + 20, b"\xfe\xff\xff\xff"
        ),
        UNSAFE,
    )
    yield _case(
        "a directory beyond the end", lambda: _patched(whole, len(whole) - 6, b"\xf0\xff\xff\x7f"), UNREADABLE
    )
    yield _case(
        "a bomb of zeros",
        lambda: p.zipped(p.pickled(b"}"), {"0": bytes(64 << 20)}, deflated=True),
        UNSAFE,
        "ZIP_RATIO",
    )
    yield _case(
        "a damaged deflated member",
        lambda: _patched(p.zipped(p.pickled(p.dict_of({"w": p.tensor()})), deflated=True), 50, bytes(10)),
        UNREADABLE,
        "ZIP_DAMAGED",
    )
    yield _case(
        "70,000 members",
        lambda: p.zip_of(_good() | {f"archive/data/{n + 1}": b"" for n in range(70_000)}),
        UNSAFE,
        "ZIP_MEMBERS",
    )
    yield _case(
        "a pickle of 65 MB", lambda: p.zipped(p.pickled(p.text("a" * (65 << 20)))), UNSAFE, "PICKLE_BYTES"
    )
    yield _case("nothing but the end of a zip", b"PK\x05\x06" + bytes(18), UNREADABLE)
    yield _case("a zip header alone", b"PK\x03\x04" + bytes(26), UNREADABLE, "ZIP_DAMAGED")


def _patched(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def _twice() -> bytes:
    return p.zip_of(_good() | {"archive/data/1": p.SIX}).replace(b"archive/data/1", b"archive/data/0")


def _overlapping(whole: bytes) -> bytes:
    """The directory says of the last member that it lies where the one before it does."""
    entries = [index for index in range(len(whole)) if whole[index : index + 4] == b"PK\x01\x02"]
    before = whole[entries[-2] + 42 : entries[-2] + 46]
    return _patched(whole, entries[-1] + 42, before)


# ---- programs


def _programs() -> Iterator[Case]:
    def script() -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            buffer = io.BytesIO()
            torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
            return buffer.getvalue()

    yield _case("TorchScript", script, IS_CODE, "TORCHSCRIPT")
    yield _case(
        "TorchScript by its constants",
        p.zip_of(_good() | {"archive/constants.pkl": b"\x80\x02)."}),
        IS_CODE,
        "TORCHSCRIPT",
    )
    yield _case(
        "TorchScript by its code",
        p.zip_of(_good() | {"archive/code/__torch__.py": b""}),
        IS_CODE,
        "TORCHSCRIPT",
    )
    evil = json.dumps({"expr_str": "__import__('os').system('touch executed')"}).encode()
    yield _case(
        "torch.export",
        p.zip_of({"a/archive_format": b"pt2", "a/models/model.json": evil}),
        IS_CODE,
        "TORCH_EXPORT",
    )
    yield _case(
        "torch.export before 2.7",
        p.zip_of({"serialized_exported_program.json": evil, "version": b"1"}),
        IS_CODE,
        "TORCH_EXPORT",
    )
    yield _case(
        "torch.export beside weights",
        p.zip_of(_good() | {"archive/models/model.json": evil}),
        IS_CODE,
        "TORCH_EXPORT",
    )
    yield _case("ONNX", b"\x08\x08\x12\x07pytorch\x1a\x052.0.0" + bytes(100), IS_CODE, "ONNX")
    yield _case("ELF", b"\x7fELF\x02\x01\x01" + bytes(100), IS_CODE, "EXECUTABLE")
    yield _case("a shell script", b"#!/bin/sh\ntouch executed\n", IS_CODE, "EXECUTABLE")


# ---- legacy files


def _legacy_files() -> Iterator[Case]:
    value = p.dict_of({"w": p.tensor()})
    keys = b"](" + p.text("0") + b"e"
    data = struct.pack("<q", 6) + p.SIX
    good = p.legacy(value, keys, data)

    def legacy(name: str, code: str, rule: str | None = None, **changes: Any) -> Case:
        return _case(
            f"legacy: {name}",
            p.legacy(**{"value": value, "keys": keys, "storages": data} | changes),
            code,
            rule,
        )

    yield legacy(
        "code", IS_CODE, "GLOBAL_FORBIDDEN", value=p.dict_of({"w": p.call("os.system", p.text("a"))})
    )
    yield legacy("code among its keys", IS_CODE, keys=p.call("os.system", p.text("a")))
    yield legacy("code in its system", IS_CODE, system=p.call("os.system", p.text("a")))
    yield legacy("big-endian", UNREADABLE, "BIG_ENDIAN", system=p.dict_of({"little_endian": b"\x89"}))
    yield legacy("version 1000", UNREADABLE, "LEGACY_VERSION", version=1000)
    yield legacy(
        "a storage longer in the file", UNSAFE, "STORAGE_SIZE", storages=struct.pack("<q", 1 << 30) + p.SIX
    )
    yield legacy(
        "a storage longer in the pickle",
        UNSAFE,
        value=p.dict_of({"w": p.tensor(of=p.storage(elements=1 << 20))}),
    )
    both = p.storage(elements=1 << 30), struct.pack("<q", 1 << 30) + p.SIX
    yield legacy(
        "a storage longer in both",
        UNREADABLE,
        "LEGACY_TRUNCATED",
        value=p.dict_of({"w": p.tensor(of=both[0])}),
        storages=both[1],
    )
    yield legacy("a negative storage", UNSAFE, storages=struct.pack("<q", -6) + p.SIX)
    yield legacy("no storages", UNREADABLE, "LEGACY_TRUNCATED", storages=b"")
    yield legacy("half a storage", UNREADABLE, "LEGACY_TRUNCATED", storages=data[:-12])
    yield legacy("bytes at its end", UNSAFE, "LEGACY_TRAILING", storages=data + b"more")
    yield legacy("no keys", UNSAFE, "STORAGE_MISSING", keys=b"]")
    yield legacy("a key twice", UNSAFE, "STORAGE_ID", keys=b"](" + 2 * p.text("0") + b"e")
    yield legacy(
        "stride 0",
        UNSAFE,
        "TENSOR_EXPANDED",
        value=p.dict_of({"w": p.tensor(sides=(1 << 30,), strides=(0,))}),
    )
    view = (
        p.tuple_of(
            p.text("storage"),
            p.name("torch.FloatStorage"),
            p.text("0"),
            p.text("cpu"),
            p.integer(6),
            p.shape(1, 0, 6),
        )
        + b"Q"
    )
    yield legacy(
        "a view of before 0.4", UNREADABLE, "STORAGE_VIEW", value=p.dict_of({"w": p.tensor(of=view)})
    )
    for part in (3, 6, 9):
        yield _case(f"legacy: cut at {part} of 10", good[: len(good) * part // 10], UNREADABLE)
    yield _case(
        "legacy: a whole module",
        lambda: _quietly(lambda: p.saved(nn.Linear(2, 2), _use_new_zipfile_serialization=False)),
        IS_CODE,
    )
    yield _case("a tar of torch 0.1", b"storages" + bytes(92) + b"0000644" + bytes(413), UNREADABLE, "TAR")


def _quietly(make: Make) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


# ---- safetensors


def _safe(header: Any, data: bytes = p.SIX, *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _safetensors_files() -> Iterator[Case]:
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}

    def case(name: str, code: str, rule: str | None, header: Any, data: bytes = p.SIX, **more: Any) -> Case:
        return _case(f"safetensors: {name}", _safe(header, data, **more), code, rule)

    good = {"w": entry}
    yield case("a header of 2^39 bytes", UNSAFE, "HEADER_BYTES", good, length=1 << 39)
    yield case("a header longer than the file", UNREADABLE, "HEADER_TRUNCATED", good, length=4_000)
    yield _case(
        "safetensors: a million empty tensors",
        lambda: _safe(
            {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(150_000)}, b""
        ),
        UNSAFE,
        "HEADER_BYTES",
    )
    yield _case(
        "safetensors: 30,000 empty tensors",
        lambda: _safe(
            {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(30_000)}, b""
        ),
        UNSAFE,
        "TENSOR_COUNT",
    )
    yield case("no JSON", UNREADABLE, "HEADER_JSON", b"{this is no JSON}")
    yield case("cut JSON", UNREADABLE, "HEADER_JSON", json.dumps(good).encode()[:-2])
    yield case("no UTF-8", UNREADABLE, "HEADER_JSON", b'{"\xff": 1}')
    yield case(
        "NaN", UNREADABLE, "HEADER_JSON", b'{"w": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 24]}}'
    )
    yield case(
        "100,000 brackets", UNREADABLE, "HEADER_JSON", b'{"w": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    )
    one = json.dumps(entry)
    yield case("a name twice", UNSAFE, "KEY_DUPLICATE", f'{{"w": {one}, "w": {one}}}'.encode())
    yield case(
        "a key twice",
        UNSAFE,
        "KEY_DUPLICATE",
        b'{"w": {"dtype": "F32", "dtype": "F32", "shape": [6], "data_offsets": [0, 24]}}',
    )
    yield case("an unknown type", UNREADABLE, "DTYPE_UNKNOWN", {"w": entry | {"dtype": "Q7"}})
    yield case("a type of numbers", UNREADABLE, "DTYPE_UNKNOWN", {"w": entry | {"dtype": 7}})
    yield case("no shape", UNREADABLE, "HEADER_ENTRY", {"w": {"dtype": "F32", "data_offsets": [0, 24]}})
    yield case("a field too many", UNREADABLE, "HEADER_ENTRY", {"w": entry | {"more": 1}})
    yield case("an entry of text", UNREADABLE, "HEADER_ENTRY", {"w": "F32"})
    yield case("rank 1,000", UNSAFE, "TENSOR_DIMENSIONS", {"w": entry | {"shape": [1] * 1_000}})
    yield case("a negative side", UNSAFE, "TENSOR_GEOMETRY", {"w": entry | {"shape": [-2, -3]}})
    yield case("a side of 1.5", UNSAFE, "TENSOR_GEOMETRY", {"w": entry | {"shape": [1.5, 4]}})
    yield case("a side of 2^64", UNSAFE, "TENSOR_GEOMETRY", {"w": entry | {"shape": [2**64, 0]}})
    yield case("sides that overflow", UNSAFE, "STORAGE_SIZE", {"w": entry | {"shape": [2**32, 2**32]}})
    yield case("offsets reversed", UNSAFE, "TENSOR_GEOMETRY", {"w": entry | {"data_offsets": [24, 0]}})
    yield case(
        "offsets beyond the end",
        UNREADABLE,
        "DATA_TRUNCATED",
        {"w": entry | {"shape": [60], "data_offsets": [0, 240]}},
    )
    yield case("two tensors in the same bytes", UNSAFE, "STORAGE_LAYOUT", {"a": entry, "b": entry})
    yield case("a hole", UNSAFE, "STORAGE_LAYOUT", {"w": entry | {"shape": [5], "data_offsets": [4, 24]}})
    yield case("bytes at its end", UNSAFE, "STORAGE_LAYOUT", good, p.SIX + b"more")
    yield case("metadata of numbers", UNREADABLE, "HEADER_METADATA", good | {"__metadata__": {"a": 1}})
    yield case("metadata of a list", UNREADABLE, "HEADER_METADATA", good | {"__metadata__": []})
    for name in ("a/b", "a\nb", "a\x00b", "", "../w", "w" * 600):
        yield case(f"a tensor named {name[:9]!r}", UNSAFE, "TENSOR_NAME", {name: entry})
    yield case("complex", "DTYPE_MISMATCH", "TENSOR_DTYPE", {"w": entry | {"dtype": "C64", "shape": [3]}})
    yield case("fp8", "DTYPE_MISMATCH", "TENSOR_DTYPE", {"w": entry | {"dtype": "F8_E4M3", "shape": [24]}})
    yield case("no tensors", UNREADABLE, "NO_STATE_DICT", {}, b"")


# ---- the course's pickles of numpy arrays


def _course_files() -> Iterator[Case]:
    def course(name: str, value: Any, code: str, rule: str | None = None) -> Case:
        return _case(f"course: {name}", lambda: pickle.dumps(value, protocol=3), code, rule)

    array = np.zeros(3, np.uint8)
    low, high = np.float64(0), np.float64(1)
    yield course("a range of NaN", {"w": (np.float64("nan"), high, array)}, UNREADABLE, "COURSE_RANGE")
    yield course("a range of infinity", {"w": (low, np.float64("inf"), array)}, UNREADABLE, "COURSE_RANGE")
    yield course("a range upside down", {"w": (high, low, array)}, UNREADABLE, "COURSE_RANGE")
    yield course("a pair", {"w": (low, array)}, UNREADABLE, "COURSE_FILE")
    yield course("floats for bytes", {"w": (low, high, np.zeros(3))}, UNREADABLE, "COURSE_FILE")
    yield course("text", {"w": "weights"}, UNREADABLE, "COURSE_FILE")
    yield course("a list", [array], UNREADABLE, "COURSE_FILE")
    yield course("names of numbers", {1: array}, UNREADABLE, "COURSE_FILE")
    yield course("nothing", {}, UNREADABLE, "COURSE_FILE")
    yield course("objects", {"w": np.array([None, 1], dtype=object)}, UNREADABLE, "COURSE_FILE")
    yield course("complex", {"w": np.zeros(3, np.complex64)}, "DTYPE_MISMATCH", "TENSOR_DTYPE")
    yield course("big-endian", {"w": np.zeros(3, ">f4")}, UNREADABLE, "BIG_ENDIAN")
    shared = (low, high, np.zeros(100_000, np.uint8))
    yield course(
        "one array under a thousand names", {f"w{n}": shared for n in range(1_000)}, UNSAFE, "TENSOR_ALIASING"
    )
    whole = pickle.dumps({"w": (low, high, array)}, protocol=3)
    yield _case(
        "course: an array that claims more", whole.replace(b"K\x03\x85", b"K\xff\x85"), UNSAFE, "ARRAY_SIZE"
    )
    yield _case("course: cut", whole[:-20], UNREADABLE, "PICKLE_TRUNCATED")


# ---- files of other programs


def _foreign_files() -> Iterator[Case]:
    for name, content in {
        "an empty file": b"",
        "one byte": b"\x80",
        "one letter": b"a",
        "text": b"hello world, this is no checkpoint\n",
        "zeros": bytes(1_000),
        "HTML": b"<!DOCTYPE html><html><body>Sign in</body></html>",
        "JSON": b'{"weights": [1, 2, 3]}',
        "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "gzip": gzip.compress(b"weights"),
        "bzip2": b"BZh91AY&SY" + bytes(40),
        "xz": b"\xfd7zXZ\x00" + bytes(40),
        "zstd": b"\x28\xb5\x2f\xfd" + bytes(40),
        "7-Zip": b"7z\xbc\xaf\x27\x1c" + bytes(40),
        "RAR": b"Rar!\x1a\x07\x01\x00" + bytes(40),
        "a numpy array": b"\x93NUMPY\x01\x00v\x00" + bytes(118),
        "GGUF": b"GGUF\x03\x00\x00\x00" + bytes(40),
        "TFLite": b"\x1c\x00\x00\x00TFL3" + bytes(40),
        "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(40),
        "a JPEG": b"\xff\xd8\xff\xe0" + bytes(40),
        "a PDF": b"%PDF-1.7\n" + bytes(40),
        "a tar": b"a" + bytes(256) + b"ustar\x0000" + bytes(500),
    }.items():
        yield _case(f"foreign: {name}", content, UNREADABLE)


# ---- contents


def _contents() -> Iterator[Case]:
    for name, value in {
        "no tensors": {"epoch": 3},
        "an empty dict": {},
        "a list of tensors": [torch.zeros(2)],
        "a tensor": torch.zeros(3),
        "a number": 3,
        "only an optimizer": {
            "optimizer_state_dict": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []}
        },
        "names of numbers": {0: torch.zeros(2), 1: torch.zeros(2)},
        "wrapped too often": {"model": {"model": {"model": {"model": {"model": {"w": torch.zeros(2)}}}}}},
        "tensors among other things": {"w": torch.zeros(2), "lr": 0.1},
        "a table without values": {"format": "fewbytes/soft-labels/1"},
        "a document without data": {"graph": {}, "format_version": 1},
    }.items():
        yield _case(f"contents: {name}", lambda v=value: p.saved(v), UNREADABLE)  # type: ignore[misc]


# ---- well-formed files that are no teacher


def _meaning() -> Iterator[Case]:
    def of(change: Callable[[dict[str, torch.Tensor]], None]) -> Make:
        def make() -> bytes:
            torch.manual_seed(0)
            state = create(ARCHITECTURE, num_classes=3, image_size=SIDE).state_dict()
            change(state)
            return p.saved(state)

        return make

    weight = "features.conv1.weight"

    def first(state: dict[str, torch.Tensor], ending: str) -> str:
        return next(name for name in state if name.endswith(ending))

    def set_first(ending: str, value: float) -> Callable[[dict[str, torch.Tensor]], None]:
        def change(state: dict[str, torch.Tensor]) -> None:
            state[first(state, ending)].view(-1)[0] = value

        return change

    def replace(
        new: Callable[[torch.Tensor], torch.Tensor], ending: str = weight
    ) -> Callable[[dict[str, torch.Tensor]], None]:
        def change(state: dict[str, torch.Tensor]) -> None:
            name = first(state, ending)
            state[name] = new(state[name])

        return change

    for number, (name, value) in enumerate(
        (("NaN", float("nan")), ("infinity", float("inf")), ("-infinity", -float("inf")))
    ):
        for ending in (weight, "running_mean", "running_var")[: 3 - number]:
            yield _case(f"meaning: {name} in {ending}", of(set_first(ending, value)), "NOT_FINITE")
    yield _case("meaning: a negative variance", of(set_first("running_var", -1.0)), "NOT_FINITE")
    yield _case(
        "meaning: weights so large that the answer is infinite",
        of(lambda state: [t.fill_(3e38) for n, t in state.items() if n.endswith("weight")] and None),
        "NOT_FINITE",
    )
    for dtype in (torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool):
        yield _case(f"meaning: weights of {dtype}", of(replace(lambda t, d=dtype: t.to(d))), "DTYPE_MISMATCH")  # type: ignore[misc]
    yield _case(
        "meaning: a counter of bool", of(replace(lambda t: t.bool(), "num_batches_tracked")), "DTYPE_MISMATCH"
    )
    yield _case(
        "meaning: a tensor is missing", of(lambda state: (state.pop(weight), None)[1]), "KEYS_MISMATCH"
    )
    yield _case(
        "meaning: a tensor too many", of(lambda state: state.update(extra=torch.zeros(1))), "KEYS_MISMATCH"
    )
    yield _case(
        "meaning: another architecture",
        lambda: p.saved(create("course/studentnet", num_classes=3, image_size=SIDE).state_dict()),
        "KEYS_MISMATCH",
    )
    yield _case("meaning: one tensor", lambda: p.saved({"weight": torch.rand(3, 3)}), "KEYS_MISMATCH")
    yield _case(
        "meaning: a transposed weight",
        of(replace(lambda t: t.transpose(0, 1).contiguous())),
        "SHAPE_MISMATCH",
    )
    yield _case("meaning: a weight of one dimension", of(replace(lambda t: t.reshape(-1))), "SHAPE_MISMATCH")
    yield _case("meaning: a weight of size 0", of(replace(lambda t: t[:0])), "SHAPE_MISMATCH")
    yield _case("meaning: a wider layer", of(replace(lambda t: torch.cat([t, t]))), "SHAPE_MISMATCH")
