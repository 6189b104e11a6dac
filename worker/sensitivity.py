"""How much each layer of the answer bears: with this one layer stored in 4 bits, or without its weakest channels.

The usual first look before bits or rates are chosen layer by layer: one layer is changed at a time, nothing is trained, and
what is lost is counted: Han et al. 2015, "Learning both Weights and Connections", https://arxiv.org/abs/1506.02626, figure
6; Li et al. 2017, "Pruning Filters for Efficient ConvNets", https://arxiv.org/abs/1608.08710, figure 2b. Beside the accuracy
we give the divergence from the unchanged network's answers, which moves long before an answer does.

Shape letters: N images, C classes.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
from models import Network
from worker.quantization.calibration import weighted_layers
from worker.stages import write_whole

BITS = 4
SHARE = 0.25
MOST_IMAGES = 1000
"""Of the split, evenly spaced: every layer is asked about them twice, and a standard error of 1.6 points is fine here."""
_AT_ONCE = 64

Progress = Callable[[int, int, float | None], None]


class Sensitivity:
    """One network under test, on its own device. `images_NCHW`, `labels_N`: all of the split.

    `kept`: a file in which finished layers outlive a kill. `key`: what must agree for them to be this network's.
    """

    def __init__(
        self, network: Network, images_NCHW: Tensor, labels_N: Tensor, *, split: str, kept: Path, key: str
    ) -> None:
        total = len(labels_N)
        count = min(total, MOST_IMAGES)
        chosen_N = torch.arange(count) * total // count
        self._network = network.eval().requires_grad_(False)
        self._images_NCHW, self._labels_N = images_NCHW[chosen_N], labels_N[chosen_N]
        self._split = split
        self._kept = kept
        self._key = key

    def measure(self, check_stop: Callable[[], None], progress: Progress) -> dict[str, Any]:
        """Every convolution and linear layer, in the order of their first calls. Whatever `check_stop` raises ends it;
        the layers that are done are kept. The network is left as it was."""
        unchanged_NC = self._logits(check_stop)
        names = weighted_layers(self._network)
        classifier = _classifier(self._network, names)
        rows = self._rows_so_far()
        began, num_before = time.monotonic(), len(rows)
        for number, name in enumerate(names[num_before:], num_before + 1):
            rows.append(self._row(name, unchanged_NC, check_stop, is_classifier=name == classifier))
            write_whole(self._kept, json.dumps({"key": self._key, "rows": rows}).encode())
            seconds = (time.monotonic() - began) / (number - num_before)
            progress(number, len(names), seconds * (len(names) - number))
        return {
            "split": self._split,
            "num_images": len(self._labels_N),
            "accuracy": self._accuracy(unchanged_NC),
            "bits": BITS,
            "share": SHARE,
            "layers": rows,
        }

    def _rows_so_far(self) -> list[dict[str, Any]]:
        if not self._kept.exists():
            return []
        found = json.loads(self._kept.read_text())
        rows: list[dict[str, Any]] = found["rows"] if found["key"] == self._key else []
        return rows

    def _row(
        self, name: str, unchanged_NC: Tensor, check_stop: Callable[[], None], *, is_classifier: bool
    ) -> dict[str, Any]:
        layer = self._network.get_submodule(name)
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, nn.Parameter)
        assert bias is None or isinstance(bias, nn.Parameter)
        before = weight.clone(), None if bias is None else bias.clone()
        row: dict[str, Any] = {"layer": name, "parameters": weight.numel(), "quantized": None, "pruned": None}

        def changed(weight_now: Tensor, silent: Tensor | None = None) -> dict[str, float]:
            try:
                weight.copy_(weight_now)
                if bias is not None and silent is not None:
                    bias[silent] = 0
                return self._compared(unchanged_NC, self._logits(check_stop))
            finally:
                weight.copy_(before[0])
                if bias is not None:
                    bias.copy_(before[1])

        if bool(weight.isfinite().all()):
            row["quantized"] = changed(_in_few_bits(weight))
        # The channels of the last layer are the classes: without some of them it answers another question.
        silent = None if is_classifier else _weakest(weight)
        if silent is not None:
            row["pruned"] = changed(weight.index_fill(0, silent, 0), silent)
        return row

    @torch.no_grad()
    def _logits(self, check_stop: Callable[[], None]) -> Tensor:
        network, device = self._network, next(self._network.parameters()).device
        assert network.preprocessing is not None
        heard = []
        for images_NCHW in self._images_NCHW.split(_AT_ONCE):
            check_stop()
            logits_NC = network(models.normalise(images_NCHW.to(device), network.preprocessing))
            heard.append(logits_NC.double().cpu())
        return torch.cat(heard)

    def _accuracy(self, logits_NC: Tensor) -> float:
        return (logits_NC.argmax(1) == self._labels_N).double().mean().item()

    def _compared(self, unchanged_NC: Tensor, logits_NC: Tensor) -> dict[str, float]:
        """`divergence`: mean KL(unchanged || changed) over the images, in nat."""
        divergence = F.kl_div(
            logits_NC.log_softmax(1), unchanged_NC.log_softmax(1), reduction="batchmean", log_target=True
        )
        # Rounding may leave a hair less than nothing.
        return {"accuracy": self._accuracy(logits_NC), "divergence": max(0.0, divergence.item())}


def _in_few_bits(weight: Tensor) -> Tensor:
    """Per tensor, from its minimum to its maximum."""
    stored = models.encode(weight, {"name": "minmax", "bits": BITS})
    return stored.decode().to(weight.device)


def _weakest(weight: Tensor) -> Tensor | None:
    """The output channels with the smallest l2 norm; None where one must stay and there is no other."""
    num_channels = weight.shape[0]
    num_silent = min(max(1, int(num_channels * SHARE)), num_channels - 1)
    if num_silent == 0:
        return None
    norms = weight.flatten(1).double().norm(dim=1)
    return norms.argsort(stable=True)[:num_silent]


def _classifier(network: Network, weighted: list[str]) -> str | None:
    """The weighted layer that gives the network's outputs, perhaps in another shape."""
    nodes = {node["name"]: node for node in network.graph["nodes"]}
    node = network.graph["nodes"][-1]
    while node.get("target") not in weighted:
        references = [argument["node"] for argument in node.get("args", []) if _is_reference(argument)]
        if len(references) != 1:
            return None
        node = nodes[references[0]]
    name: str = node["target"]
    return name


def _is_reference(argument: Any) -> bool:
    return isinstance(argument, dict) and "node" in argument
