"""Files of other programs, whole and harmless or not: none is a checkpoint, and some are programs."""

import bz2
import gzip
import io
import json
import lzma
import struct
import zipfile
from collections.abc import Iterator
from functools import partial

from tests.corpus.case import Case
from tests.corpus.checkpoints.containers import NUMBERS, STATE, Member, checkpoint, zipped
from tests.corpus.checkpoints.opcodes import call, pickled, text
from tests.corpus.checkpoints.verdicts import is_code, unreadable

_CODE = pickled(call("__torch__.Net", text("x")))


def cases() -> Iterator[Case]:
    yield from _programs()
    yield from _zips()
    yield from _others()


def _zip(*names: str, root: str = "archive", content: bytes = b"x") -> bytes:
    return zipped([Member(f"{root}/{name}".encode(), content) for name in names])


def _programs() -> Iterator[Case]:
    script = ("data.pkl", "constants.pkl", "code/__torch__.py", "version", "data/0")
    yield is_code("TorchScript", partial(_zip, *script), "TORCHSCRIPT")
    yield is_code("TorchScript: constants alone", partial(_zip, "data.pkl", "constants.pkl"), "TORCHSCRIPT")
    yield is_code(
        "TorchScript: a good state dict with code beside it",
        partial(zipped, [*checkpoint(), Member(b"archive/code/__torch__.py", b"import os")]),
        "TORCHSCRIPT",
    )
    yield is_code(
        "TorchScript for phones",
        partial(_zip, "data.pkl", "bytecode.pkl", "constants.pkl", "mobile_debug_handles.pkl"),
        "TORCHSCRIPT",
    )
    program = json.dumps(
        {"graph_module": {"graph": {"nodes": [{"expr_str": "__import__('os').system('id')"}]}}}
    )
    exported = {
        "of today": (
            "archive_format",
            "models/model.json",
            "data/weights/model_weights_config.json",
            "byteorder",
        ),
        "of 2.4": ("serialized_exported_program.json", "serialized_state_dict.pt", "version"),
        "of an older one": ("serialized_exported_program.json", "serialized_constants.json"),
        "compiled ahead of time": ("archive_format", "data/aotinductor/model/model.so", "archive_version"),
        "weights and nothing else": ("archive_format", "data/weights/weight_0"),
    }
    for what, names in exported.items():
        yield is_code(
            f"torch.export, {what}", partial(_zip, *names, content=program.encode()), "TORCH_EXPORT"
        )
    yield is_code(
        "torch.export: a good state dict with a program beside it",
        partial(zipped, [*checkpoint(), Member(b"archive/models/model.json", program.encode())]),
        "TORCH_EXPORT",
    )
    onnx = b"\x08\x0a\x12\x07pytorch\x1a\x052.1.0" + b"\x3a\x10" + bytes(16)
    yield is_code("ONNX", partial(bytes, onnx), "ONNX")
    yield is_code("ONNX without a producer", partial(bytes, b"\x08\x07\x3a\x10" + bytes(16)), "ONNX")
    yield is_code("an ELF program", partial(bytes, b"\x7fELF\x02\x01\x01" + bytes(200)), "EXECUTABLE")
    yield is_code("a Windows program", partial(bytes, b"MZ\x90\x00" + bytes(200)), "EXECUTABLE")
    yield is_code("a shell script", partial(bytes, b"#!/bin/sh\nrm -rf /\n"), "EXECUTABLE")
    package = (".data/extern_modules", ".data/version", ".data/python_version", "model/model.pkl")
    yield is_code("torch.package", partial(_zip, *package), "TORCH_PACKAGE")


def _zips() -> Iterator[Case]:
    others = {
        "Keras": ("metadata.json", "config.json", "model.weights.h5"),
        "numpy's .npz": ("arr_0.npy",),
        "photos": ("train/cat/1.jpg",),
        "a wheel": ("fewbytes/__init__.py", "fewbytes.dist-info/RECORD"),
        "a Word document": ("[Content_Types].xml", "word/document.xml"),
    }
    for what, names in others.items():
        members = [Member(name.encode(), b"x") for name in names]
        yield unreadable(f"a zip of {what}", partial(zipped, members), "ZIP_FOREIGN")
        yield unreadable(f"a zip of {what}, in a folder", partial(_zip, *names), "ZIP_FOREIGN")
    yield unreadable("an empty zip", partial(zipped, []))
    yield unreadable(
        "a zip within a zip", partial(_zip, "teacher.pt", content=zipped(checkpoint())), "ZIP_FOREIGN"
    )

    def by_python() -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("teacher.pt", zipped(checkpoint()))
        return buffer.getvalue()

    yield unreadable("a checkpoint that was zipped", by_python, "ZIP_FOREIGN")


def _others() -> Iterator[Case]:
    good = zipped(checkpoint())
    contents = {
        "nothing": b"",
        "one byte": b"\x80",
        "another byte": b"P",
        "two bytes": b"PK",
        "text": b"hello world, this is no checkpoint\n",
        "HTML": b"<!DOCTYPE html><html><title>Sign in</title></html>",
        "XML": b"<?xml version='1.0'?><net/>",
        "JSON": b'{"state_dict": {}}',
        "YAML": b"model:\n  name: resnet18\n",
        "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(200),
        "PNG": b"\x89PNG\r\n\x1a\n" + bytes(200),
        "JPEG": b"\xff\xd8\xff\xe0" + bytes(200),
        "PDF": b"%PDF-1.7\n" + bytes(200),
        "numpy's .npy": b"\x93NUMPY\x01\x00" + bytes(200),
        "GGUF": b"GGUF\x03\x00\x00\x00" + bytes(200),
        "TensorFlow Lite": struct.pack("<I", 28) + b"TFL3" + bytes(200),
        "a frozen TensorFlow graph": b"\n\x0e\n\x05input\x12\x05Const" + bytes(200),
        "gzip": gzip.compress(good),
        "bzip2": bz2.compress(good),
        "xz": lzma.compress(good),
        "7-Zip": b"7z\xbc\xaf\x27\x1c" + bytes(200),
        "RAR": b"Rar!\x1a\x07\x01\x00" + bytes(200),
        "a checkpoint in base64": b"UEsDBAAACAgAAAAAAAAAAAAAAAAAAAAAAA==",
        "zeros": bytes(4096),
        "0xff": b"\xff" * 4096,
        "raw floats": NUMBERS * 64,
        "a list of pickle's opcodes": b"    0: \x80 PROTO      2\n",
        "a checkpoint without its first byte": good[1:],
        "a byte in front of a checkpoint": b"\0" + good,
    }
    for what, content in contents.items():
        yield unreadable(f"foreign: {what}", partial(bytes, content))
    yield unreadable("a bare pickle of a state dict without its storages", partial(bytes, STATE))
