"""Networks as data: trace, build, encode, pack, load."""

from .artifact import network_digest, pack, save
from .encodings import encode
from .graph import as_network, trace
from .layers import layer_table
from .load_artifact import (
    Encoded,
    GraphError,
    Network,
    build,
    check,
    evaluate,
    load,
    normalise,
    resize_and_crop,
    unpack,
)

__all__ = [
    "Encoded",
    "GraphError",
    "Network",
    "as_network",
    "build",
    "check",
    "encode",
    "evaluate",
    "layer_table",
    "load",
    "network_digest",
    "normalise",
    "pack",
    "resize_and_crop",
    "save",
    "trace",
    "unpack",
]
