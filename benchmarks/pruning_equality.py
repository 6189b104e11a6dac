"""The channels we remove against those torch-pruning 1.6.1 removes (https://github.com/VainF/Torch-Pruning, MIT).

    python -m benchmarks.pruning_equality
    python -m benchmarks.pruning_equality --networks resnet18 --ratios 0.3 --side 32

Both prune the same network with random weights by local ranking, each with its own dependency analysis, scores and cutting.
A row is `identical` when every tensor of the two results is equal to the bit: a weight that lost another channel has
other values. MACs of theirs are counted by hooks on their module, ours come from the layer table of the graph.

Their criteria are used with their defaults: MagnitudeImportance with p 1 and 2, BNScaleImportance, TaylorImportance.
"""

import argparse
import copy
import math
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torch_pruning
import torchvision
from torch import Tensor, nn

import models
from models.channels import Channels, analyse, narrow
from worker.pruning.criteria import Evidence, score
from worker.pruning.ranking import as_removal, by_keep_rate, candidate, scopes

NETWORKS = ("resnet18", "mobilenet_v2", "densenet121", "resnext50_32x4d")
# Our name for each, and theirs.
CRITERIA: dict[str, Callable[[], Any]] = {
    "l1": lambda: torch_pruning.importance.MagnitudeImportance(p=1),
    "l2": lambda: torch_pruning.importance.MagnitudeImportance(p=2),
    "bn_gamma": lambda: torch_pruning.importance.BNScaleImportance(),
    "taylor_weight": lambda: torch_pruning.importance.TaylorImportance(),
}


class Row(NamedTuple):
    """What one comparison found. Counts of channels are sums over all convolutions."""

    network: str
    criterion: str
    ratio: float
    num_layers: int
    channels_removed: int
    channels_removed_theirs: int
    parameters: int
    parameters_theirs: int
    macs: int
    macs_theirs: int
    different: list[str]
    """Tensors that are not equal to the bit."""

    @property
    def is_identical(self) -> bool:
        return not self.different and self.macs == self.macs_theirs


def compare(name: str, criterion: str, ratio: float, side: int) -> Row:
    """Prune one network twice. `side`: of the images, in pixels."""
    module = random_module(name, side)
    generator = torch.Generator().manual_seed(2)
    images_NCHW = torch.rand(4, 3, side, side, generator=generator)
    labels_N = torch.randint(10, (4,), generator=generator)
    network = models.as_network(module, images_NCHW)
    ours = prune_ours(network, criterion, ratio, images_NCHW, labels_N)
    theirs = prune_theirs(copy.deepcopy(module), criterion, ratio, images_NCHW, labels_N)
    our_state, their_state = ours.state_dict(), theirs.state_dict()
    different = [name for name in their_state if not _equal(our_state.get(name), their_state[name])]
    before = _num_channels(module)
    table = models.layer_table(ours)
    return Row(
        name,
        criterion,
        ratio,
        sum(isinstance(layer, nn.Conv2d) for layer in module.modules()),
        before - _num_channels(ours),
        before - _num_channels(theirs),
        table["parameters"],
        sum(parameter.numel() for parameter in theirs.parameters()),
        table["macs"],
        _macs(theirs, images_NCHW[:1]),
        different,
    )


def random_module(name: str, side: int) -> nn.Module:
    """torchvision's, in eval mode. No two channels are alike, and none is dead: channels whose scores tie are
    ranked by chance. So batch norms get random scales, and statistics of the images they see."""
    torch.manual_seed(1)
    module = torchvision.models.get_model(name, weights=None, num_classes=10)
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, 0.0, 0.5)
        norm.momentum = 1.0
    with torch.no_grad():
        module(torch.rand(8, 3, side, side))
    for norm in norms:
        norm.momentum = 0.1
    return module.eval()


def prune_ours(
    network: models.Network, criterion: str, ratio: float, images_NCHW: Tensor, labels_N: Tensor
) -> models.Network:
    """What the step `prune` does in one iteration."""
    channels: Channels = analyse(network)
    gradients: dict[str, Tensor] = {}
    if criterion == "taylor_weight":
        parameters = dict(network.named_parameters())
        loss = F.cross_entropy(network(images_NCHW), labels_N)
        gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    evidence = Evidence(network, gradients)
    candidates = []
    for group in channels.groups:
        scores_U = score(group, criterion, evidence)
        if scores_U is not None:
            original = group.num_units
            candidates.append(candidate(group, scores_U, original_units=original, min_channels=1, round_to=1))
    chosen = by_keep_rate(scopes(candidates, "local", network), 1 - ratio, 1)
    return narrow(network, channels, as_removal(chosen, candidates))


def prune_theirs(
    module: nn.Module, criterion: str, ratio: float, images_NCHW: Tensor, labels_N: Tensor
) -> nn.Module:
    """In place. The classifier, the only layer with 10 outputs, keeps them."""
    if criterion == "taylor_weight":
        F.cross_entropy(module(images_NCHW), labels_N).backward()
    ignored = [
        layer for layer in module.modules() if isinstance(layer, nn.Linear) and layer.out_features == 10
    ]
    pruner = torch_pruning.pruner.BasePruner(
        module,
        images_NCHW[:1],
        importance=CRITERIA[criterion](),
        pruning_ratio=ratio,
        global_pruning=False,
        ignored_layers=ignored,
    )
    pruner.step()
    return module


def _equal(ours: Tensor | None, theirs: Tensor) -> bool:
    return ours is not None and torch.equal(ours, theirs)


def _num_channels(module: nn.Module) -> int:
    return sum(layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d))


def _macs(module: nn.Module, image_1CHW: Tensor) -> int:
    """Multiply-adds of convolutions and linear layers, counted while it runs."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        total += output.numel() * math.prod(layer.weight.shape[1:])

    handles = [
        layer.register_forward_hook(count)
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        module(image_1CHW)
    for handle in handles:
        handle.remove()
    return total


def _lines(rows: Iterable[Row]) -> Iterable[str]:
    yield "| network | criterion | ratio | convolutions | channels removed, ours / theirs | parameters | MACs | identical |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        counts = [
            (row.channels_removed, row.channels_removed_theirs),
            (row.parameters, row.parameters_theirs),
            (row.macs, row.macs_theirs),
        ]
        both = " | ".join(f"{ours:,} / {theirs:,}" for ours, theirs in counts)
        verdict = "yes" if row.is_identical else f"NO: {', '.join(row.different[:3])}"
        yield f"| {row.network} | {row.criterion} | {row.ratio} | {row.num_layers} | {both} | {verdict} |"


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare structured pruning with torch-pruning.")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--criteria", nargs="+", default=list(CRITERIA), choices=list(CRITERIA))
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.3, 0.5])
    parser.add_argument("--side", type=int, default=64, help="of the images, in pixels")
    chosen = parser.parse_args()
    rows: list[Row] = []

    def found() -> Iterable[Row]:
        for name in chosen.networks:
            for criterion in chosen.criteria:
                for ratio in chosen.ratios:
                    rows.append(compare(name, criterion, ratio, chosen.side))
                    yield rows[-1]

    for line in _lines(found()):
        print(line, flush=True)
    # Their __version__ says 1.6.0 in 1.6.1.
    print(f"torch {torch.__version__}, torch-pruning {version('torch-pruning')}")
    return 0 if all(row.is_identical for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
