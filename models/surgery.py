"""Edits of a network's graph: a layer becomes a chain of layers, a batch norm disappears into the layer before it.

Each edit gives a new network; the one it was given stays as it was. Tensors that the edit does not concern are the
same to the bit, under the same names and in the same order. The new network has no `encoded`: what an edit
changes is stored anew.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .load_artifact import LAYERS, Network, build

Graph = dict[str, Any]
Node = dict[str, Any]
_LONGEST_NODE_NAME = 100


class Piece(NamedTuple):
    """One layer of a chain; takes one tensor and gives one. `suffix` "" keeps the replaced layer's own name.

    `values` are the tensors it begins with; those left out are drawn as PyTorch initialises the layer, from
    torch's global generator.
    """

    suffix: str
    type: str
    arguments: dict[str, Any]
    values: Mapping[str, Tensor]


def replace_layer(network: Network, name: str, layers: Sequence[Piece]) -> Network:
    """The network with the layer `name` replaced by a chain of layers `name.<suffix>`. See `replace_layers`."""
    return replace_layers(network, {name: layers})


def replace_layers(
    network: Network, chains: Mapping[str, Sequence[Piece]], bypassed: Collection[str] = ()
) -> Network:
    """The network with each layer named in `chains` replaced by its chain, wherever it is called.

    The last node of a chain keeps the name of the node it replaces, so whoever uses its value still finds it.
    Values are converted to the replaced layer's device and dtype. `bypassed` names nodes of one input that
    vanish, as do the layers that nobody calls then. Raises GraphError when the graph no longer runs.
    """
    graph = copy.deepcopy(network.graph)
    for node_name in bypassed:
        _bypass(graph, node_name)
    taken = {node["name"] for node in graph["nodes"]}
    graph["nodes"] = [part for node in graph["nodes"] for part in _nodes_of(node, chains, taken)]
    graph["layers"] = {
        target: layer
        for name, old in graph["layers"].items()
        for target, layer in _layers_of(name, old, chains)
    }
    return _with_values(network, graph, _values(network, chains))


def calls(graph: Graph, layer: str) -> list[Node]:
    """The nodes that call the layer, in order."""
    return [node for node in graph["nodes"] if node["op"] == "layer" and node["target"] == layer]


def inputs(node: Node) -> list[str]:
    """Names of the nodes whose values the node takes, in order; a node that is taken twice is named twice."""
    return _references([*node.get("args", []), *node.get("kwargs", {}).values()])


def sole_user(graph: Graph, name: str) -> Node | None:
    """The node that takes the value of the node `name`, when it is the only one and takes it once."""
    users = [node for node in graph["nodes"] for source in inputs(node) if source == name]
    return users[0] if len(users) == 1 else None


# ------------------------------------------------------------------------------------------------ batch norms


class BatchNorm(NamedTuple):
    """A batch norm of a graph, and the layer it can be folded into, or else why it cannot."""

    name: str
    into: str | None
    reason: str = ""


_FOLDS_INTO = {"BatchNorm2d": "Conv2d", "BatchNorm1d": "Linear"}


def batch_norms(network: Network) -> list[BatchNorm]:
    """Every batch norm, in the order of the layers."""
    ranks = _num_dimensions(network)
    layers = network.graph["layers"].items()
    return [_examine(network, name, ranks) for name, layer in layers if layer["type"] in _FOLDS_INTO]


def fold_batch_norm(network: Network) -> Network:
    """The network without the batch norms that follow a convolution or linear layer and nothing else.

    In eval mode a batch norm is y = (x - mean) * gamma / sqrt(var + eps) + beta, a factor and a shift of each
    channel: the layer before it takes both into its weight and bias (it gains one). The outputs in eval
    mode stay, up to rounding. In training the batch's own statistics are no longer used.
    """
    folds = [norm for norm in batch_norms(network) if norm.into is not None]
    chains = {norm.into: [_folded(network, norm.into, norm.name)] for norm in folds if norm.into}
    return replace_layers(network, chains, [calls(network.graph, norm.name)[0]["name"] for norm in folds])


def _examine(network: Network, name: str, ranks: dict[str, int]) -> BatchNorm:
    graph, into = network.graph, _FOLDS_INTO[network.graph["layers"][name]["type"]]
    found = calls(graph, name)
    if len(found) != 1:
        return BatchNorm(
            name, None, f"it is called {len(found)} times, and only a layer called once is folded"
        )
    if network.get_submodule(name).running_mean is None:
        return BatchNorm(name, None, "it keeps no running statistics, so it has no fixed factors")
    nodes = {node["name"]: node for node in graph["nodes"]}
    source = nodes[inputs(found[0])[0]]
    if source["op"] != "layer" or graph["layers"][source["target"]]["type"] != into:
        what = source.get("target", source["op"])
        return BatchNorm(name, None, f"it follows {what!r}, and it can be folded into a {into} only")
    layer = source["target"]
    if len(calls(graph, layer)) != 1 or sole_user(graph, source["name"]) is None:
        return BatchNorm(name, None, f"the value of {layer!r} is used elsewhere too")
    if into == "Linear" and ranks[source["name"]] != 2:
        return BatchNorm(name, None, f"it does not normalise the features of {layer!r} but another dimension")
    return BatchNorm(name, layer)


def _folded(network: Network, layer: str, norm: str) -> Piece:
    """The layer with the norm's factors in it; computed in float64."""
    old: Any = network.get_submodule(layer)
    batch_norm: Any = network.get_submodule(norm)
    state = {name: tensor.double() for name, tensor in batch_norm.state_dict().items()}
    mean_C, var_C = state["running_mean"], state["running_var"]
    gain_C = state.get("weight", torch.ones_like(mean_C)) / (var_C + batch_norm.eps).sqrt()
    shift_C = state.get("bias", torch.zeros_like(mean_C))
    weight = old.weight.detach().double()
    bias_C = torch.zeros_like(mean_C) if old.bias is None else old.bias.detach().double()
    values = {
        "weight": weight * gain_C.view(-1, *[1] * (weight.dim() - 1)),
        "bias": (bias_C - mean_C) * gain_C + shift_C,
    }
    entry = network.graph["layers"][layer]
    return Piece("", entry["type"], {**entry.get("arguments", {}), "bias": True}, values)


def _num_dimensions(network: Network) -> dict[str, int]:
    """Of every node's tensor."""
    found: dict[str, int] = {}

    def observe(name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            found[name] = value.dim()

    with torch.device("meta"), torch.no_grad():
        build(network.graph).eval().run(torch.empty((1, *network.input_shape)), observe)
    return found


# -------------------------------------------------------------------------------------------------- the graph


def _references(arguments: Any) -> list[str]:
    if isinstance(arguments, list):
        return [name for part in arguments for name in _references(part)]
    if isinstance(arguments, dict):
        return [arguments["node"]] if "node" in arguments else _references(list(arguments.values()))
    return []


def _renamed(arguments: Any, old: str, new: str) -> Any:
    """The arguments of a node, with the value of `new` where the value of `old` was."""
    if isinstance(arguments, list):
        return [_renamed(part, old, new) for part in arguments]
    if isinstance(arguments, dict):
        if arguments == {"node": old}:
            return {"node": new}
        return {key: part if key == "node" else _renamed(part, old, new) for key, part in arguments.items()}
    return arguments


def _bypass(graph: Graph, name: str) -> None:
    """Take the node out; its users get its one input instead. Its layer goes with its last call."""
    (gone,) = (node for node in graph["nodes"] if node["name"] == name)
    (source,) = inputs(gone)
    graph["nodes"].remove(gone)
    for node in graph["nodes"]:
        for key in ("args", "kwargs"):
            if key in node:
                node[key] = _renamed(node[key], name, source)
    if gone["op"] == "layer" and not calls(graph, gone["target"]):
        del graph["layers"][gone["target"]]


def _nodes_of(node: Node, chains: Mapping[str, Sequence[Piece]], taken: set[str]) -> list[Node]:
    """The node itself, or the calls of the chain that takes its place; their names join `taken`."""
    if node["op"] != "layer" or node["target"] not in chains:
        return [node]
    pieces = chains[node["target"]]
    given: Node = {key: node[key] for key in ("args", "kwargs") if key in node}
    made: list[Node] = []
    for number, piece in enumerate(pieces, 1):
        is_last = number == len(pieces)
        name = node["name"] if is_last else _free_name(f"{node['name']}_{piece.suffix}", taken)
        taken.add(name)
        made.append({"name": name, "op": "layer", "target": _target(node["target"], piece), **given})
        given = {"args": [{"node": name}]}
    return made


def _layers_of(
    name: str, layer: dict[str, Any], chains: Mapping[str, Sequence[Piece]]
) -> list[tuple[str, dict[str, Any]]]:
    if name not in chains:
        return [(name, layer)]
    return [
        (_target(name, piece), {"type": piece.type, "arguments": piece.arguments}) for piece in chains[name]
    ]


def _target(name: str, piece: Piece) -> str:
    return f"{name}.{piece.suffix}" if piece.suffix else name


def _free_name(wanted: str, taken: Collection[str]) -> str:
    """`wanted`, shortened to what a node's name may have, with a number where it is taken."""
    name, number = wanted[:_LONGEST_NODE_NAME], 0
    while name in taken:
        number += 1
        name = f"{wanted[: _LONGEST_NODE_NAME - 8]}_{number}"
    return name


# ------------------------------------------------------------------------------------------------- the values


def _values(network: Network, chains: Mapping[str, Sequence[Piece]]) -> dict[str, Tensor]:
    """The tensors of all pieces by their full names, where and in the dtype the replaced layer had them."""
    found: dict[str, Tensor] = {}
    for name, pieces in chains.items():
        like = next(network.get_submodule(name).parameters())
        for piece in pieces:
            for tensor_name, value in _piece_values(piece).items():
                kind = like.dtype if value.is_floating_point() else value.dtype
                found[f"{_target(name, piece)}.{tensor_name}"] = value.to(like.device, kind)
    return found


def _piece_values(piece: Piece) -> dict[str, Tensor]:
    layer = LAYERS[piece.type].make
    own = {key: tuple(value) if isinstance(value, list) else value for key, value in piece.arguments.items()}
    with torch.device("meta"):
        names = list(layer(**own).state_dict())
    assert piece.values.keys() <= set(names), (
        f"{piece.type} has no tensors {piece.values.keys() - set(names)}"
    )
    if piece.values.keys() == set(names):
        return dict(piece.values)
    made: nn.Module = layer(**own)
    return {**made.state_dict(), **piece.values}


def _with_values(network: Network, graph: Graph, values: Mapping[str, Tensor]) -> Network:
    """The network of the edited graph: `values` where given, the old network's tensors elsewhere."""
    with torch.device("meta"):
        edited = build(graph)
    old = network.state_dict()
    state = {
        name: (values[name] if name in values else old[name])
        .detach()
        .clone(memory_format=torch.contiguous_format)
        for name in edited.state_dict()
    }
    edited.load_state_dict(state, strict=True, assign=True)
    edited.preprocessing = copy.deepcopy(network.preprocessing)
    edited.class_names = copy.copy(network.class_names)
    return edited.train(network.training)
