"""The layer table: what every layer gives, holds and costs, for one image.

MACs are multiply-adds. A convolution has C_out * (C_in / groups) * k_h * k_w * H_out * W_out, a linear layer
in * out at each position, attention its projections and its two products. Biases, norms, activations and
pooling count as 0, as in Blalock et al. 2020 (ShrinkBench, MLSys), whose code forgets the groups.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from .load_artifact import Network, build

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
    with torch.device("meta"):
        blueprint = build(network.graph).eval()
    nodes = {node["name"]: node for node in network.graph["nodes"]}
    shapes: dict[str, Shape] = {}
    rows: dict[tuple[str, str], dict[str, Any]] = {}

    def observe(name: str, value: Any) -> None:
        first = value[0] if isinstance(value, tuple) else value
        if not isinstance(first, Tensor):
            return
        shapes[name] = list(first.shape)
        node = nodes[name]
        inputs = [shapes.get(reference, []) for reference in _references(node)]
        if node["op"] == "layer":
            layer = blueprint.get_submodule(node["target"])
            kind = network.graph["layers"][node["target"]]["type"]
            row = rows.setdefault(("layer", node["target"]), _row(node["target"], kind, shapes[name][1:]))
            row["macs"] += _layer_macs(layer, inputs, shapes[name])
        elif node["op"] == "function":
            macs = _function_macs(node["target"], inputs, shapes[name])
            if macs:
                rows["function", name] = _row(name, node["target"], shapes[name][1:], macs=macs)

    with torch.no_grad():
        blueprint.run(torch.empty((1, *network.input_shape), device="meta"), observe)
    return rows


def _references(node: dict[str, Any]) -> list[str]:
    """Names of the nodes that are arguments by themselves, in order."""
    arguments = [*node.get("args", []), *node.get("kwargs", {}).values()]
    return [argument["node"] for argument in arguments if isinstance(argument, dict) and "node" in argument]


def _layer_macs(layer: nn.Module, inputs: list[Shape], output: Shape) -> int:
    """Multiply-adds of one call, for a batch of one."""
    if isinstance(layer, nn.Conv2d):
        return math.prod(output) * layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    if isinstance(layer, nn.Linear):
        return math.prod(output) * layer.in_features
    if isinstance(layer, nn.MultiheadAttention):
        return _attention_macs(layer, inputs)
    return 0


def _attention_macs(layer: nn.MultiheadAttention, inputs: list[Shape]) -> int:
    # Query [N, L, E] or, with batch_first false, [L, N, E]; key and value have S in the place of L.
    batch, sequence = (0, 1) if layer.batch_first else (1, 0)
    num_images, num_queries = inputs[0][batch], inputs[0][sequence]
    num_keys, width = inputs[1][sequence], layer.embed_dim
    projections = (2 * num_queries + 2 * num_keys) * width * width
    products = 2 * num_queries * num_keys * width
    return num_images * (projections + products)


def _function_macs(name: str, inputs: list[Shape], output: Shape) -> int:
    if name == "matmul":
        return math.prod(output) * inputs[0][-1]
    if name == "linear":  # weight [out, in]
        return math.prod(output) * inputs[1][1]
    if name == "conv2d":  # weight [C_out, C_in / groups, k_h, k_w]
        return math.prod(output) * math.prod(inputs[1][1:])
    return 0
