"""What a file holds, told by its content: a state_dict among what a training script saved, an artifact with its graph, a
table of soft labels, or one of the course's pickles."""

import math
import re
import struct
from dataclasses import dataclass, field
from typing import Any

from worker.gate.class_names import RULE, are_usable, is_utf8
from worker.gate.known_names import Inert, Name, NumpyType, StorageView, UnfilledArray
from worker.gate.limits import Limits
from worker.gate.refusal import DTYPE, Refused, shown, unreadable, unsafe
from worker.gate.tensors import KEPT, Storage, Tensor

# The hyphen is for RegNet, whose blocks are called block1-0.
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,512}")
# Where training scripts keep the weights, most common first.
_WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "model_state"),
    *("weights", "params", "checkpoint"),
    *("ema", "model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "module", "backbone"),
)
# DataParallel's, torch.compile's and AveragedModel's.
_PREFIXES = ("module.", "_orig_mod.")
_COUNTERS = ("n_averaged",)
SOFT_LABELS = "fewbytes/soft-labels/1"
_MAX_SHOWN = 5


@dataclass
class Contents:
    """`tensors` by their names in the canonical file; the rest is plain data without tensors.

    `kind`: "state_dict", "artifact" (document: all but `data`), "soft_labels" (document: all but `values`), or "course"
    (`encodings`: name → how the stored tensor becomes the weight).
    """

    kind: str
    tensors: dict[str, Tensor]
    document: dict[str, Any] = field(default_factory=dict)
    encodings: dict[str, dict[str, Any]] = field(default_factory=dict)
    class_names: list[str] | None = None
    warnings: list[str] = field(default_factory=list)


def find_contents(value: Any, limits: Limits) -> Contents:
    """Of a torch.save. Raises Refused."""
    if isinstance(value, dict) and {"graph", "format_version"} <= value.keys():
        return _document("artifact", value, "data", limits)
    if isinstance(value, dict) and value.get("format") == SOFT_LABELS:
        return _document("soft_labels", value, "values", limits)
    return _checked(_unwrapped(value, limits), limits)


def of_named_tensors(tensors: dict[str, Tensor], limits: Limits) -> Contents:
    """Of a safetensors file."""
    return _checked(Contents("state_dict", _without_prefixes(dict(tensors))), limits)


def of_course_file(value: Any, limits: Limits) -> Contents:
    """Of a bare pickle: name → (minimum, maximum, uint8 array), float16 array, or number (docs/formats.md)."""
    if not isinstance(value, dict) or not value or not all(isinstance(key, str) for key in value):
        raise unreadable("COURSE_FILE", "it is a bare pickle, but holds no dict of arrays by name")
    contents = Contents("course", {})
    renamed = _without_prefixes({key: _filled(item) for key, item in value.items()})
    for name, item in renamed.items():
        contents.tensors[name] = _course_tensor(name, item, contents.encodings)
    return _checked(contents, limits)


def _course_tensor(name: str, item: Any, encodings: dict[str, dict[str, Any]]) -> Tensor:
    if isinstance(item, Tensor):
        if item.dtype == "F16" and item.num_elements:
            encodings[name] = {"name": "fp16"}
        return item
    if isinstance(item, int | float) and not isinstance(item, bool):
        return _scalar(float(item))
    if not isinstance(item, tuple) or len(item) != 3:
        raise unreadable(
            "COURSE_FILE", f"{shown(name)} in its pickle is a {_kind(item)}, where a number or array belongs"
        )
    low, high, array = (_filled(part) for part in item)
    if (
        not isinstance(array, Tensor)
        or array.dtype != "U8"
        or not all(isinstance(end, int | float) for end in (low, high))
    ):
        raise unreadable("COURSE_FILE", f"{shown(name)} in its pickle is no (minimum, maximum, uint8 array)")
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise unreadable(
            "COURSE_RANGE",
            f"{shown(name)} has the range {low!r} to {high!r}: the network that was saved was broken",
        )
    encodings[name] = {"name": "minmax", "bits": 8, "minimum": float(low), "maximum": float(high)}
    return array


def _scalar(value: float) -> Tensor:
    return Tensor("F64", (), (), 0, Storage("", 8, struct.pack("<d", value)))


def _filled(item: Any) -> Any:
    return item.tensor if isinstance(item, UnfilledArray) else item


def _unwrapped(value: Any, limits: Limits) -> Contents:
    warnings: list[str] = []
    class_names: list[str] | None = None
    for _ in range(limits.wrappers + 1):
        if not isinstance(value, dict):
            raise unreadable("NO_STATE_DICT", f"it holds a {_kind(value)}, not a dict of tensors")
        tensors = {
            key: item for key, item in value.items() if isinstance(item, Tensor) and isinstance(key, str)
        }
        if tensors and all(key in tensors or _may_stand_beside(key, item) for key, item in value.items()):
            found = {name: tensor for name, tensor in tensors.items() if name not in _COUNTERS}
            return Contents(
                "state_dict", _without_prefixes(found), class_names=class_names, warnings=warnings
            )
        class_names = class_names or _class_names(value, warnings)
        candidates = [key for key in _WRAPPERS if isinstance(value.get(key), dict) and value[key]]
        if not candidates:
            break
        if len(candidates) > 1:
            warnings.append(f"The file holds several networks, {candidates}: {candidates[0]!r} was taken.")
        value = value[candidates[0]]
    strange = [
        f"{shown(key) if isinstance(key, str | int) else 'a key'} ({_kind(item)})"
        for key, item in value.items()
        if not isinstance(item, Tensor)
    ]
    raise unreadable(
        "NO_STATE_DICT",
        f"no dict of tensors was found in it; it holds {', '.join(strange[:_MAX_SHOWN]) or 'nothing'}",
    )


def _may_stand_beside(key: Any, item: Any) -> bool:
    """`_metadata`, and the extra state that modules may add to a state_dict."""
    return isinstance(key, str) and (key == "_metadata" or key.endswith("_extra_state"))


def _are_classes(names: Any) -> bool:
    """A name that stands twice would mean two outputs."""
    return are_usable(names) and len(set(names)) == len(names)


def _class_names(value: dict[Any, Any], warnings: list[str]) -> list[str] | None:
    for key in ("class_names", "classes"):
        names = value.get(key)
        if not isinstance(names, list | tuple) or not names:
            continue
        if _are_classes(names) and len(names) >= 2:
            return list(names)
        warnings.append(f"{key!r} in the file was not taken: {RULE}, each once, and at least two.")
    return None


def _without_prefixes(tensors: dict[str, Any]) -> dict[str, Any]:
    start = 0
    for prefix in _PREFIXES * 2:  # compiled and parallel, in either order
        if tensors and all(name.startswith(prefix, start) for name in tensors):
            start += len(prefix)
    return {name[start:]: tensor for name, tensor in tensors.items()}


def _document(kind: str, value: dict[Any, Any], tensor: str, limits: Limits) -> Contents:
    """A document of our own with its one tensor."""
    if not isinstance(value.get(tensor), Tensor):
        raise unreadable("DOCUMENT", f"its {tensor!r} is no tensor")
    rest = _Plain(limits).copy({key: item for key, item in value.items() if key != tensor}, 0)
    if rest.get("class_names") is not None and not _are_classes(rest["class_names"]):
        raise unreadable("CLASS_NAMES", f"its class_names break a rule: {RULE}, each once")
    return _checked(Contents(kind, {tensor: value[tensor]}, document=rest), limits)


@dataclass
class _Plain:
    """Copies JSON-like data out of a pickle, counting: parts may be shared, or contain themselves."""

    limits: Limits
    copied: int = 0
    characters: int = 0

    def copy(self, value: Any, depth: int) -> Any:
        self.copied += 1
        if self.copied > self.limits.document_values or depth > self.limits.document_depth:
            raise unsafe("DOCUMENT_SIZE", "its document has too many values, or is nested too deep")
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise unreadable("DOCUMENT", "its document has a key that is no text")
            return {self.text(key): self.copy(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self.copy(item, depth + 1) for item in value]
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        raise unreadable("DOCUMENT", f"its document holds a {_kind(value)}")

    def text(self, value: str) -> str:
        """Counted with repetitions: what is shared in a pickle is spelled out in an answer."""
        self.characters += len(value)
        if self.characters > self.limits.document_characters:
            raise unsafe("DOCUMENT_SIZE", "its document has too much text")
        if "\0" in value or not is_utf8(value):
            raise unreadable("DOCUMENT", "its document has a text with NUL, or with half a character")
        return value


def _checked(contents: Contents, limits: Limits) -> Contents:
    """Names and types of what will be written."""
    if not contents.tensors:
        raise unreadable("NO_STATE_DICT", "it holds no tensor")
    if len(contents.tensors) > limits.tensors:
        raise unsafe("TENSOR_COUNT", f"it holds {len(contents.tensors)} tensors, more than {limits.tensors}")
    for name, tensor in contents.tensors.items():
        if not _NAME.fullmatch(name):
            raise unsafe(
                "TENSOR_NAME",
                f"a tensor has the name {shown(name)}; names hold letters, digits, '_', '-' and '.'",
            )
        if tensor.dtype not in KEPT:
            raise Refused(
                DTYPE,
                "TENSOR_DTYPE",
                f"the tensor {name!r} has the type {tensor.dtype}; weights are float16, bfloat16, float32 or float64",
                "Convert it first: torch.save({name: t.float() for name, t in model.state_dict().items()}, 'teacher.pt').",
            )
    return contents


def _kind(value: Any) -> str:
    """What a value is, in the words of whoever saved it."""
    if isinstance(value, Inert):
        return value.what
    if isinstance(value, Name):
        return value.name
    names = {NumpyType: "numpy.dtype", StorageView: "storage", UnfilledArray: "array"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), type(value).__name__)
