"""A network into one `.pt` file, and its digest.

The writing itself is in `trace_network`, a file that also runs by itself on a user's machine.
"""

import ctypes
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .load_artifact import Network
from .trace_network import pack

__all__ = ["network_digest", "pack", "save"]


def save(
    network: Network,
    path: str | Path,
    *,
    preprocessing: dict[str, Any] | None,
    class_names: Sequence[str] | None,
    steps: Sequence[dict[str, Any]] = (),
    metrics: dict[str, Any] | None = None,
    digests: dict[str, Any] | None = None,
) -> None:
    """Write what `pack` gives to `path`."""
    packed = pack(
        network,
        preprocessing=preprocessing,
        class_names=class_names,
        steps=steps,
        metrics=metrics,
        digests=digests,
    )
    Path(path).write_bytes(packed)


def network_digest(network: Network) -> str:
    """sha256 (hex) over the canonical JSON of the graph and every tensor's name, dtype, shape and bytes.

    How a tensor is stored does not matter, only its value. Dictionaries of the graph are hashed in their own
    order, which is the order of the parameters.
    """
    digest = hashlib.sha256(json.dumps(network.graph, separators=(",", ":")).encode())
    for name, value in network.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    """The tensor's memory, without numpy and without a copy; valid as long as the tensor lives."""
    num_bytes = tensor.numel() * tensor.element_size()
    return (
        memoryview((ctypes.c_char * num_bytes).from_address(tensor.data_ptr()))
        if num_bytes
        else memoryview(b"")
    )
