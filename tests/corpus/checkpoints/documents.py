"""Networks that bring their graph, tables of soft labels, and the course's pickles: whole files that say wrong things."""

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch

import models
from models.architectures import create_network
from tests.corpus.case import Case
from tests.corpus.checkpoints.calls import saved
from tests.corpus.checkpoints.verdicts import refused, unreadable
from tests.worker import tiny

Document = dict[str, Any]


def cases() -> Iterator[Case]:
    yield from _graphs()
    yield from _stored()
    yield from _soft_labels()
    yield from _course_files()


@cache
def _good() -> Document:
    network = create_network("report/final", num_classes=2, image_size=tiny.SIDE, seed=0)
    packed = models.pack(network.eval(), preprocessing=tiny.PREPROCESSING, class_names=tiny.CLASSES)
    document: Document = torch.load(io.BytesIO(packed), weights_only=True)
    return document


def artifact(change: Callable[[Document], Any] = lambda _: None) -> bytes:
    """A good artifact, changed."""
    document = copy.deepcopy(_good())
    change(document)
    return saved(document)


def _graphs() -> Iterator[Case]:
    def argument(layer: str, key: str, value: Any) -> Callable[[Document], Any]:
        return lambda d: d["graph"]["layers"][layer]["arguments"].__setitem__(key, value)

    def node(index: int, key: str, value: Any) -> Callable[[Document], Any]:
        return lambda d: d["graph"]["nodes"][index].__setitem__(key, value)

    def layer(value: Any) -> Callable[[Document], Any]:
        return lambda d: d["graph"]["layers"].__setitem__("features.conv1", value)

    linear = {"in_features": 2**30, "out_features": 2**30, "bias": True}
    changes: dict[str, Callable[[Document], Any]] = {
        "another version": lambda d: d.__setitem__("format_version", 99),
        "no graph": lambda d: d.__setitem__("graph", None),
        "a list for its graph": lambda d: d.__setitem__("graph", [1]),
        "an unknown layer": layer({"type": "os.system", "arguments": {}}),
        "a private layer": layer({"type": "__import__", "arguments": {}}),
        "a layer of 2**60 weights": layer({"type": "Linear", "arguments": linear}),
        "a million channels": argument("features.conv2", "out_channels", 1_000_000),
        "a negative kernel": argument("features.conv1", "kernel_size", [-3, 3]),
        "a kernel of 2**40": argument("features.conv1", "kernel_size", [2**40, 3]),
        "a padding of 10,000": argument("features.conv1", "padding", [10_000, 10_000]),
        "groups of 0": argument("features.conv1", "groups", 0),
        "an argument that the layer lacks": argument("features.conv1", "device", "cuda"),
        "a text for its channels": argument("features.conv1", "in_channels", "3"),
        "NaN for an epsilon": argument("features.bn1", "eps", float("nan")),
        "an input of 10**6 pixels a side": lambda d: d["graph"].__setitem__("input_shape", [3, 10**6, 10**6]),
        "an input of another size": lambda d: d["graph"].__setitem__("input_shape", [3, 16, 16]),
        "no nodes": lambda d: d["graph"].__setitem__("nodes", []),
        "12,000 nodes": lambda d: d["graph"].__setitem__("nodes", d["graph"]["nodes"] * 500),
        "a node without a name": node(1, "name", ""),
        "a node with a dunder for a name": node(1, "name", "__class__"),
        "a node of an unknown kind": node(1, "op", "call_python"),
        "no output": lambda d: d["graph"]["nodes"].pop(),
        "a field more": lambda d: d["graph"].__setitem__("code", "import os"),
    }
    for what, change in changes.items():
        yield unreadable(f"artifact: {what}", lambda change=change: artifact(change))


def _stored() -> Iterator[Case]:
    def entry(name: str, **changes: Any) -> Callable[[Document], Any]:
        return lambda d: d["tensors"][name].update(changes)

    weight, bias = "features.conv1.weight", "features.conv1.bias"
    changes: dict[str, Callable[[Document], Any]] = {
        "no data": lambda d: d.pop("data"),
        "a text for its data": lambda d: d.__setitem__("data", "x"),
        "floats for its data": lambda d: d.__setitem__("data", torch.zeros(10)),
        "data that is cut off": lambda d: d.__setitem__("data", d["data"][:100].clone()),
        "an offset beyond its data": entry(weight, offset=2**40),
        "a negative offset": entry(weight, offset=-8),
        "a size beyond its data": entry(weight, nbytes=2**40),
        "a size that is another": entry(weight, nbytes=4),
        "a shape of 2**60 numbers": entry(weight, shape=[2**30, 2**30]),
        "a shape of another layer": entry(bias, shape=[17]),
        "an unknown type": entry(weight, dtype="object"),
        "an unknown encoding": entry(weight, encoding={"name": "pickle"}),
        "an encoding of 0 bits": entry(
            weight, encoding={"name": "minmax", "bits": 0, "minimum": 0.0, "maximum": 1.0}
        ),
        "an encoding of 10**9 bits": entry(
            weight, encoding={"name": "minmax", "bits": 10**9, "minimum": 0.0, "maximum": 1.0}
        ),
        "a range of NaN": entry(
            weight,
            nbytes=432,
            encoding={"name": "minmax", "bits": 8, "minimum": float("nan"), "maximum": 1.0},
        ),
        "a tensor too few": lambda d: d["tensors"].pop(weight),
        "a tensor too many": lambda d: d["tensors"].__setitem__("extra", d["tensors"][bias]),
        "a list for its tensors": lambda d: d.__setitem__("tensors", []),
        "preprocessing that is a text": lambda d: d.__setitem__("preprocessing", "resize"),
        "class names with a NUL": lambda d: d.__setitem__("class_names", ["a\0", "b"]),
        "one class name": lambda d: d.__setitem__("class_names", ["a"]),
        "class names that repeat": lambda d: d.__setitem__("class_names", ["a", "a"]),
        "class names that are numbers": lambda d: d.__setitem__("class_names", [1, 2]),
        "a text with half a surrogate pair": lambda d: d.__setitem__("steps", [{"x": "\ud800"}]),
    }
    for what, change in changes.items():
        yield unreadable(f"artifact: {what}", lambda change=change: artifact(change))

    def not_finite(document: Document) -> None:
        at = document["tensors"]["head.fc.weight"]["offset"]
        document["data"][at : at + 4] = torch.tensor([0, 0, 0xC0, 0x7F], dtype=torch.uint8)

    yield refused("artifact: NaN among its weights", lambda: artifact(not_finite), "NOT_FINITE")


def _soft_labels() -> Iterator[Case]:
    good: Document = {
        "format": "fewbytes/soft-labels/1",
        "kind": "probabilities",
        "class_names": ["a", "b"],
        "paths": ["1.png", "2.png"],
        "values": torch.tensor([[0.5, 0.5], [0.25, 0.75]]),
    }
    changes: dict[str, Document] = {
        "an unknown kind": {"kind": "votes"},
        "more paths than rows": {"paths": ["1.png", "2.png", "3.png"]},
        "a path twice": {"paths": ["1.png", "1.png"]},
        "paths that are numbers": {"paths": [1, 2]},
        "one class": {"class_names": ["a"]},
        "integers for its values": {"values": torch.zeros(2, 2, dtype=torch.int64)},
        "NaN among its values": {"values": torch.tensor([[0.5, float("nan")], [0.5, 0.5]])},
        "rows that do not sum to 1": {"values": torch.ones(2, 2)},
        "a temperature of 0": {"temperature": 0.0},
        "a temperature of NaN": {"temperature": float("nan")},
        "a temperature that is a text": {"temperature": "hot"},
    }
    for what, change in changes.items():
        yield refused(
            f"soft labels: {what}", lambda change=change: saved(good | change), "SOFT_LABELS_UNREADABLE"
        )
    twice = good | {"class_names": ["a", "a"]}
    yield unreadable("soft labels: a class twice", lambda: saved(twice), "CLASS_NAMES")
    yield unreadable("soft labels: no values", lambda: saved({**good, "values": None}), "DOCUMENT")
    yield unreadable(
        "soft labels: a path with a NUL", lambda: saved({**good, "paths": ["1\0", "2"]}), "DOCUMENT"
    )
    for what, table in {
        "no rows": "path,a,b\n",
        "a cell too few": "path,a,b\n1.png,1\n",
        "a cell that is no number": "path,a,b\n1.png,x,1\n",
        "NaN": "path,a,b\n1.png,nan,1\n",
        "one class": "path,a\n1.png,1\n",
        "a class twice": "path,a,a\n1.png,0.5,0.5\n",
        "an open quote": 'path,a,b\n"1.png,0.5,0.5\n',
    }.items():
        yield refused(f"a table with {what}", lambda table=table: table.encode(), "SOFT_LABELS_UNREADABLE")
    yield refused("a table that is no UTF-8", lambda: b"path,a,b\n\xff\xfe,1,0\n", "SOFT_LABELS_UNREADABLE")
    yield refused(
        "a table with a cell of 200 KB",
        lambda: b"path,a,b\n" + b"x" * 200_000 + b",1,0\n",
        "SOFT_LABELS_UNREADABLE",
    )


def _course_files() -> Iterator[Case]:
    codes = np.arange(8, dtype=np.uint8)
    weights: dict[str, Any] = {
        "a range that is no number": ("low", 1.0, codes),
        "a range of NaN": (float("nan"), 1.0, codes),
        "an infinite range": (0.0, float("inf"), codes),
        "a range backwards": (1.0, 0.0, codes),
        "codes that are floats": (0.0, 1.0, np.zeros(8, dtype=np.float32)),
        "two parts": (0.0, 1.0),
        "four parts": (0.0, 1.0, codes, 1),
        "a list": [0.0, 1.0, codes],
        "a text": "weights",
        "None": None,
        "a dict": {"w": codes},
        "an array of objects": np.array([None, "x"], dtype=object),
        "an array of texts": np.array(["a", "b"]),
        "an array of records": np.zeros(2, dtype=[("a", "f4")]),
        "an array of times": np.zeros(2, dtype="datetime64[s]"),
        "a big-endian array": np.zeros(2, dtype=">f4"),
    }
    for what, value in weights.items():
        yield unreadable(f"course file: {what}", lambda value=value: pickle.dumps({"w": value}, protocol=3))
    yield refused(
        "course file: complex numbers",
        lambda: pickle.dumps({"w": np.zeros(2, dtype=np.complex64)}, protocol=3),
        "DTYPE_MISMATCH",
    )
    yield unreadable("course file: an empty dict", lambda: pickle.dumps({}, protocol=3), "COURSE_FILE")
    yield unreadable(
        "course file: a list of arrays", lambda: pickle.dumps([codes], protocol=3), "COURSE_FILE"
    )
    yield unreadable(
        "course file: numbers for names", lambda: pickle.dumps({1: codes}, protocol=3), "COURSE_FILE"
    )
    yield unreadable(
        "course file: tensors of torch",
        lambda: pickle.dumps({"w": torch.zeros(2)}, protocol=3),
        "PLAIN_PICKLE",
    )
    whole = pickle.dumps({"w": (0.0, 1.0, codes)}, protocol=3)
    yield unreadable("course file: cut off", lambda: whole[:-20])
