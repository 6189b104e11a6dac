"""The one function that opens an uploaded checkpoint.

It runs in an inspection's limited process only. `torch.load(weights_only=True)` keeps a stranger's code out;
the limits keep a stranger's sizes out. The course's pickles of numpy arrays are not unpickled at all
(`models.course_files`). Files that *are* code (whole pickled modules, TorchScript,
torch.export, ONNX) are told by their content and refused with the lines that save the same network as data.
"""

import pickle
import re
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

import models
from app.errors import Problem
from models import Encoded
from models.course_files import read_course_file
from models.plain_pickle import PickleError

_RECIPE = "On your machine: torch.save(model.state_dict(), 'teacher.pt'), then upload that file."
# The hyphen is for RegNet, whose blocks are called block1-0.
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,512}")
# torch.save before 1.6, any protocol: its magic number as a pickle of its own.
_LEGACY_HEAD = re.compile(rb"\x80[\x02-\x05](\x95.{8})?\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.", re.DOTALL)
_MAX_TENSORS = 20_000
_MAX_DIMENSIONS = 8
_MAX_HEADER_BYTES = 8 << 20
# Where training scripts keep the weights, most common first.
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "ema",
    "model_ema",
    "state_dict_ema",
    "ema_state_dict",
)
# DataParallel's and torch.compile's prefixes.
_PREFIXES = ("module.", "_orig_mod.")


@dataclass
class Checkpoint:
    """What a file holds: tensors by name as they were saved, and what else it says about its network."""

    tensors: dict[str, torch.Tensor]
    graph: dict[str, Any] | None = None
    preprocessing: dict[str, Any] | None = None
    class_names: list[str] | None = None
    encoded: dict[str, Encoded] = field(default_factory=dict)
    """The stored form of tensors that the file keeps in fewer bits; it decodes to the entry of `tensors`."""
    warnings: list[str] = field(default_factory=list)

    def rename(self, new_names: dict[str, str]) -> None:
        """Give every tensor its new name; names that are not in `new_names` stay."""
        self.tensors = {new_names.get(name, name): value for name, value in self.tensors.items()}
        self.encoded = {new_names.get(name, name): value for name, value in self.encoded.items()}


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a state_dict (bare or wrapped; torch.save or safetensors), an artifact with its graph, or one of the
    course's 8- or 16-bit pickles.

    Raises Problem 422: CHECKPOINT_UNREADABLE, or CHECKPOINT_IS_CODE for what would have to be executed to be
    read.
    """
    with path.open("rb") as file:
        head = file.read(32)
    if _is_safetensors(head, path.stat().st_size):
        return _checked(_read_safetensors(path))
    if head.startswith(b"PK\x03\x04"):
        _refuse_programs(path)
    elif not head.startswith(b"\x80"):
        raise _unreadable(
            f"it begins with {head[:8].hex(' ')}, which neither torch.save nor safetensors writes"
        )
    elif not _LEGACY_HEAD.match(head):
        return _checked(_read_course_file(path))
    content = _load(path)
    if isinstance(content, dict) and "graph" in content and "format_version" in content:
        return _read_artifact(path)
    return _checked(_unwrap(content))


def _unreadable(why: str) -> Problem:
    return Problem(422, "CHECKPOINT_UNREADABLE", f"The file cannot be read as a checkpoint: {why}. {_RECIPE}")


def _is_code(what: str) -> Problem:
    return Problem(
        422,
        "CHECKPOINT_IS_CODE",
        f"The file is {what}: reading it would run its code, and uploads are never run. {_RECIPE} If its "
        "architecture is not a built-in one, run trace_network.py there: its file brings the graph.",
    )


def _is_safetensors(head: bytes, size: int) -> bool:
    return len(head) > 9 and head[8:9] == b"{" and 8 + struct.unpack("<Q", head[:8])[0] <= size


def _refuse_programs(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise _unreadable(f"its zip directory is damaged ({error}); was the upload complete?") from error
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise _is_code("a TorchScript program")
    if any(
        name.startswith(("models/", "serialized_exported_program")) or name == "archive_format"
        for name in names
    ):
        raise _is_code("a torch.export program (.pt2)")
    if "data.pkl" not in names:
        raise _unreadable("it is a zip file, but torch.save did not write it")


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # "Unsupported global: GLOBAL argparse.Namespace was not an allowed global by default."
        if found := re.search(r"GLOBAL ([\w.]+) was", str(error)):
            raise _is_code(f"a pickle that needs the Python object {found[1][:120]}") from None
        raise _unreadable("its pickle holds more than tensors and plain values") from None
    except (MemoryError, OSError):
        raise
    except (
        Exception
    ) as error:  # a damaged pickle raises whatever its reader stumbles over: 13 types were counted
        if "Allocator" in str(error) or "not enough memory" in str(error):
            raise
        raise _unreadable(f"torch.load says {type(error).__name__}: {str(error).splitlines()[:1]}") from None


def _read_course_file(path: Path) -> Checkpoint:
    try:
        values = read_course_file(path.read_bytes())
    except PickleError as error:
        if error.needs is not None:
            raise _is_code(f"a pickle that needs the Python object {error.needs[:120]}") from None
        raise _unreadable(str(error)[:300]) from None
    encoded = {name: value for name, value in values.items() if isinstance(value, Encoded)}
    tensors = {
        name: value.decode() if isinstance(value, Encoded) else value for name, value in values.items()
    }
    checkpoint = Checkpoint(tensors, encoded=encoded)
    start = _prefix_length(list(tensors))
    checkpoint.rename({name: name[start:] for name in tensors})
    return checkpoint


def _read_safetensors(path: Path) -> Checkpoint:
    with path.open("rb") as file:
        header_bytes = struct.unpack("<Q", file.read(8))[0]
    if header_bytes > _MAX_HEADER_BYTES:
        raise _unreadable(f"its safetensors header has {header_bytes} bytes, more than {_MAX_HEADER_BYTES}")
    try:
        return Checkpoint(load_file(path))
    except SafetensorError as error:
        raise _unreadable(f"safetensors says: {str(error)[:200]}") from None


def _read_artifact(path: Path) -> Checkpoint:
    try:
        network = models.load(path)
    except ValueError as error:  # GraphError is one
        raise _unreadable(str(error)[:500]) from None
    return Checkpoint(
        {name: tensor.clone() for name, tensor in network.state_dict().items()},
        graph=network.graph,
        preprocessing=network.preprocessing,
        class_names=list(network.class_names) if network.class_names else None,
        encoded=dict(network.encoded),
    )


def _unwrap(content: Any) -> Checkpoint:
    """Find the state_dict in what a training script saved."""
    warnings: list[str] = []
    class_names: list[str] | None = None
    for _ in range(3):  # {"checkpoint": ...} in {"model": ...} happens; more is not a checkpoint
        if not isinstance(content, dict):
            raise _unreadable(f"it holds a {type(content).__name__}, not a dict of tensors")
        if content and all(isinstance(value, torch.Tensor) for value in content.values()):
            return Checkpoint(_without_prefixes(content), class_names=class_names, warnings=warnings)
        class_names = class_names or _class_names(content)
        candidates = [key for key in _WRAPPERS if isinstance(content.get(key), dict)]
        if not candidates:
            break
        if len(candidates) > 1:
            warnings.append(f"The file holds several networks, {candidates}: {candidates[0]!r} was taken.")
        content = content[candidates[0]]
    strange = [
        f"{key!r} ({type(value).__name__})"
        for key, value in content.items()
        if not isinstance(value, torch.Tensor)
    ]
    raise _unreadable(f"no dict of tensors was found in it; it holds {', '.join(strange[:5]) or 'nothing'}")


def _class_names(content: dict[Any, Any]) -> list[str] | None:
    for key in ("class_names", "classes"):
        names = content.get(key)
        if isinstance(names, list) and len(names) >= 2 and all(isinstance(name, str) for name in names):
            return names
    return None


def _without_prefixes(tensors: dict[Any, torch.Tensor]) -> dict[Any, torch.Tensor]:
    if not all(isinstance(key, str) for key in tensors):
        return tensors
    start = _prefix_length(list(tensors))
    return {name[start:]: tensor for name, tensor in tensors.items()}


def _prefix_length(names: list[str]) -> int:
    """How many letters of known prefixes all names begin with."""
    start = 0
    for prefix in _PREFIXES * 2:  # compiled and parallel, in either order
        if names and all(name.startswith(prefix, start) for name in names):
            start += len(prefix)
    return start


def _checked(checkpoint: Checkpoint) -> Checkpoint:
    """Only plain tensors, with names of letters, digits, `_`, `-` and `.`, each as large as the bytes that are
    really there.
    """
    if len(checkpoint.tensors) > _MAX_TENSORS:
        raise _unreadable(f"it holds {len(checkpoint.tensors)} tensors, more than {_MAX_TENSORS}")
    for name, tensor in checkpoint.tensors.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _unreadable(
                f"a tensor has the name {str(name)[:80]!r}; names hold letters, digits, '_', '-' and '.'"
            )
        if (
            type(tensor) not in (torch.Tensor, torch.nn.Parameter)
            or tensor.layout != torch.strided
            or tensor.is_quantized
        ):
            raise _unreadable(f"tensor {name!r} is not a plain dense tensor")
        if tensor.dim() > _MAX_DIMENSIONS:
            raise _unreadable(f"tensor {name!r} has {tensor.dim()} dimensions, more than {_MAX_DIMENSIONS}")
        # A stride of 0 shows one number as a tensor of any size.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise _unreadable(f"tensor {name!r} claims {tensor.numel()} elements, more than the file holds")
    checkpoint.tensors = {name: _usual(name, tensor) for name, tensor in checkpoint.tensors.items()}
    return checkpoint


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def _usual(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Weights in float32, counters in int64: the course's files keep BN's counters as floats."""
    if name.endswith("num_batches_tracked") and tensor.is_floating_point():
        # Half precision has no number beyond 65504; nothing but a training without momentum reads the counter.
        return tensor.double().nan_to_num(nan=0.0, posinf=65504.0, neginf=0.0).long()
    return _as_float32(name, tensor)


def _as_float32(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype in _FLOATS:
        return tensor.detach().to(torch.float32).contiguous()
    if tensor.dtype in _INTEGERS:
        return tensor.detach().contiguous()
    raise _unreadable(
        f"tensor {name!r} has the type {tensor.dtype}; weights are float16, bfloat16, float32 or float64"
    )
