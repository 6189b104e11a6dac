"""The layer table of a packed file: what each layer gives, holds and costs, and the bytes that it is stored in."""

from pathlib import Path
from typing import Any

import models
from models import Network


def stored_layers(path: Path) -> list[dict[str, Any]]:
    """The rows of `models.layer_table` with `size_bytes`: of the layer's tensors as they are encoded, before the file is
    deflated. Graph, index and tensors that belong to no layer are the rest of the file."""
    network = models.load(path)
    rows = models.layer_table(network)["rows"]
    sizes = dict.fromkeys((row["name"] for row in rows), 0)
    for tensor, num_bytes in _tensor_bytes(network).items():
        if (owner := _owner(tensor, sizes)) is not None:
            sizes[owner] += num_bytes
    kept = ("name", "type", "output_shape", "parameters", "macs")
    return [{key: row[key] for key in kept} | {"size_bytes": sizes[row["name"]]} for row in rows]


def _tensor_bytes(network: Network) -> dict[str, int]:
    return {
        name: network.encoded[name].data.numel()
        if name in network.encoded
        else tensor.numel() * tensor.element_size()
        for name, tensor in network.state_dict().items()
    }


def _owner(tensor: str, layers: dict[str, int]) -> str | None:
    """The layer whose tensor this is: of `a.b.weight` the layer `a.b`, of an attention's `a.out_proj.weight` the layer `a`.
    A parameter of the graph itself is its own row."""
    name = tensor
    while name:
        if name in layers:
            return name
        name = name.rpartition(".")[0]
    return None
