"""An admitted checkpoint in PyTorch's hands: its tensors, its graph, its stored form.

The upload itself is read by the gate (`worker.gate`), in a process without torch. Here only the canonical file is
opened, which the gate wrote. Weights become float32; no other type is cast, so nothing is lost without a word.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import models
from app.errors import Problem
from models import Encoded
from worker.admission import admitted
from worker.gate import Admitted


@dataclass
class Checkpoint:
    """What a file holds: tensors by name, and what else it says about its network."""

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


def read_admitted(said: Admitted, canonical: Path) -> Checkpoint:
    """The checkpoint behind the gate's verdict and file.

    Raises Problem 422 CHECKPOINT_UNREADABLE when its graph or its encodings break a rule.
    """
    tensors = load_file(canonical)
    if said.kind == "artifact":
        return _of_artifact(said.document, tensors)
    encoded = {name: _encoded(tensors[name], encoding) for name, encoding in said.encodings.items()}
    values = {name: encoded[name].decode() if name in encoded else value for name, value in tensors.items()}
    return Checkpoint(
        {name: _usual(name, value) for name, value in values.items()},
        class_names=said.class_names,
        encoded=encoded,
        warnings=list(said.warnings),
    )


def read_checkpoint(path: Path) -> Checkpoint:
    """Through the gate and back, for a file that this process may read itself: one of our own making.

    Raises Problem 422, as an upload would get it.
    """
    with tempfile.TemporaryDirectory() as folder:
        canonical = Path(folder) / "canonical.safetensors"
        checkpoint = read_admitted(admitted(path, canonical), canonical)
        # The library maps the file; what it gave must outlive the folder.
        checkpoint.tensors = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
        return checkpoint


def _of_artifact(document: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Checkpoint:
    try:
        network = models.unpack(document | tensors)
    except ValueError as error:  # GraphError is one
        raise Problem(
            422, "CHECKPOINT_UNREADABLE", f"The file's graph or tensors break a rule: {str(error)[:500]}"
        ) from None
    return Checkpoint(
        {name: _usual(name, tensor).clone() for name, tensor in network.state_dict().items()},
        graph=network.graph,
        preprocessing=network.preprocessing,
        class_names=list(network.class_names) if network.class_names else None,
        encoded=dict(network.encoded),
    )


def _encoded(stored: torch.Tensor, encoding: dict[str, Any]) -> Encoded:
    data = stored.contiguous().reshape(-1).view(torch.uint8).clone()
    return Encoded(dict(encoding), list(stored.shape), "float32", data)


def _usual(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Weights in float32, counters in int64: the course's files keep BN's counters as floats."""
    if name.endswith("num_batches_tracked") and tensor.is_floating_point():
        # Half precision has no number beyond 65504; nothing but a training without momentum reads the counter.
        return tensor.double().nan_to_num(nan=0.0, posinf=65504.0, neginf=0.0).long()
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor
