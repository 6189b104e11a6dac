"""The layer table: what every layer gives, holds and costs, for one image.

MACs are multiply-adds, as `load_artifact.calls` counts them.
"""

import math
from typing import Any

import torch

from .load_artifact import Network, calls

Shape = list[int]


def layer_table(network: Network) -> dict[str, Any]:
    """Rows and totals, ready for JSON: {"rows": [...], "parameters": total, "macs": total}.

    A row: {"name", "type", "output_shape", "parameters", "macs", "share"}. `output_shape` is one image's,
    without the batch; null for a layer that is never called. `share` is the row's part of all parameters. A
    layer that is called twice is one row: its parameters once, the MACs of each call. Parameters that the
    graph itself holds, and functions that multiply (matmul, linear, conv2d), have rows as well: the rows add
    up to the totals.
    """
    called = _rows_of_calls(network)
    rows = list(called.values())
    with torch.device("meta"):
        blueprint = Network(network.graph)
    for name, layer in network.graph["layers"].items():
        num_parameters = sum(parameter.numel() for parameter in blueprint.get_submodule(name).parameters())
        if ("layer", name) in called:
            called["layer", name]["parameters"] = num_parameters
        elif layer["type"] != "Scope":
            rows.append(_row(name, layer["type"], None, parameters=num_parameters))
    for name, shape in network.graph["parameters"].items():
        rows.append(_row(name, "Parameter", list(shape), parameters=math.prod(shape)))
    parameters = sum(row["parameters"] for row in rows)
    for row in rows:
        row["share"] = row["parameters"] / parameters if parameters else 0.0
    return {"rows": rows, "parameters": parameters, "macs": sum(row["macs"] for row in rows)}


def _row(
    name: str, kind: str, output_shape: Shape | None, *, parameters: int = 0, macs: int = 0
) -> dict[str, Any]:
    return {"name": name, "type": kind, "output_shape": output_shape, "parameters": parameters, "macs": macs}


def _rows_of_calls(network: Network) -> dict[tuple[str, str], dict[str, Any]]:
    """A row for each layer, and for each function that costs something, in the order of their first calls."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for node, output_shape, macs in calls(network):
        target, shape = node.get("target", ""), output_shape[1:]
        if node["op"] == "layer":
            kind = network.graph["layers"][target]["type"]
            rows.setdefault(("layer", target), _row(target, kind, shape))["macs"] += macs
        elif node["op"] == "function" and macs:
            rows["function", node["name"]] = _row(node["name"], target, shape, macs=macs)
    return rows
