"""Measures one packed network in a process of its own:

`python -m worker.measure`, an order on stdin, a result on stdout.

What is measured is the file: it is loaded like a download is, and accuracy is counted by `evaluate` of
`load_artifact.py`, on the CPU, so whoever runs that script on the same photos counts the same. Latency is
taken on the job's device: one image, after a warm-up, the median and the 10th and 90th percentile of `n`
runs.
"""

import io
import os
import platform
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import models
from app.starting.parent import end_with_parent
from models.load_artifact import evaluate
from worker.checkpoints import read_checkpoint
from worker.datasets.image_data import ImageData
from worker.messages import ignore_termination, listen, read_order, take_over_stdout
from worker.stages import write_whole

_WARM_UP_RUNS = 5
_LATENCY_RUNS = 50
# A huge network on a small machine: fewer runs, but never too few for percentiles.
_LATENCY_SECONDS = 3.0
_FEWEST_RUNS = 10


def main() -> None:
    line = take_over_stdout()
    end_with_parent(signal.SIGKILL)
    ignore_termination()
    order = read_order(sys.stdin.buffer)
    listen(sys.stdin.buffer)
    torch.set_num_threads(order["num_threads"])
    code = 0
    try:
        line.send({"type": "measured", **measure(order)})
    except OSError as error:  # a full disk, say: the trainer meets it as if it had written itself
        line.send({"type": "failed", "errno": error.errno, "reason": error.strerror or str(error)})
        code = 1
    except Exception:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)  # a normal end of Python is an abort while a thread reads stdin


def measure(order: dict[str, Any]) -> dict[str, Any]:
    """Accuracy on each of `splits`, bytes, parameters, MACs, and (`latency`) the latency of the file
    `artifact`.

    `order`: the output that means class k of `class_names`. With `logits` the outputs are left in that file,
    as {split: float32 [N, C]} in the order of `class_names`; with `unlabeled` those of that split too. With
    `tensors`, a checkpoint, that file is measured: its tensors in the network of the artifact.
    """
    path = Path(order["tensors"] or order["artifact"])
    network = models.load(order["artifact"])
    if order["tensors"]:
        network.load_state_dict(read_checkpoint(path).tensors)
    assert network.preprocessing is not None
    data = open_data(order["data"], class_names=order["class_names"], num_threads=order["num_threads"])
    outputs = torch.tensor(order["order"])
    splits, logits = {}, {}
    for split in order["splits"]:
        images_NCHW = data.images(split, network.preprocessing)
        listener = _Listener(network)
        score = evaluate(listener, images_NCHW, outputs[data.labels(split)], network.preprocessing)
        splits[split] = {
            "accuracy": score.accuracy,
            "num_correct": score.num_correct,
            "num_images": score.num_images,
            "loss": score.cross_entropy,
        }
        logits[split] = torch.cat(listener.heard)[:, outputs]
    if order["logits"]:
        if order["unlabeled"]:
            logits["unlabeled"] = _answers(network, data)[:, outputs]
        buffer = io.BytesIO()
        torch.save(logits, buffer)
        write_whole(Path(order["logits"]), buffer.getbuffer())
    table = models.layer_table(network)
    return {
        "splits": splits,
        "size_bytes": path.stat().st_size,
        "parameters": table["parameters"],
        "macs": table["macs"],
        "latency_ms": latency(network, torch.device(order["device"]), order["num_threads"])
        if order["latency"]
        else None,
    }


def _answers(network: models.Network, data: ImageData) -> Tensor:
    """float32 [N, outputs] for the images that have no label."""
    assert network.preprocessing is not None
    listener = _Listener(network)
    no_labels_N = torch.zeros(data.num_images("unlabeled"), dtype=torch.int64)  # the score is not asked for
    evaluate(listener, data.images("unlabeled", network.preprocessing), no_labels_N, network.preprocessing)
    return torch.cat(listener.heard)


def open_data(
    paths: dict[str, Any], *, class_names: list[str] | None = None, num_threads: int | None = None
) -> ImageData:
    """The data set of an order."""
    source = paths["folder"] or paths["pack"]
    return ImageData(
        Path(paths["index"]),
        Path(source),
        Path(paths["cache_dir"]),
        class_names=class_names,
        num_threads=num_threads,
    )


class _Listener(nn.Module):
    """Passes images through and keeps what the network answered."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.heard: list[Tensor] = []
        # `evaluate` puts back the mode it finds: a new module's own would turn the batch norms of the network on.
        self.train(network.training)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NC: Tensor = self.network(images_NCHW)
        self.heard.append(logits_NC)
        return logits_NC


@torch.inference_mode()
def latency(network: models.Network, device: torch.device, num_threads: int) -> dict[str, Any]:
    """Milliseconds for a batch of one, on `device` with `num_threads` threads."""
    network = network.to(device)
    image_1CHW = torch.zeros(1, *network.input_shape, device=device)
    for _ in range(_WARM_UP_RUNS):
        network(image_1CHW)
    times: list[float] = []
    give_up = time.perf_counter() + _LATENCY_SECONDS
    while len(times) < _LATENCY_RUNS and (len(times) < _FEWEST_RUNS or time.perf_counter() < give_up):
        _finish(device)
        start = time.perf_counter()
        network(image_1CHW)
        _finish(device)
        times.append(1000 * (time.perf_counter() - start))
    low, median, high = (
        torch.tensor(times, dtype=torch.float64).quantile(torch.tensor([0.1, 0.5, 0.9]).double()).tolist()
    )
    return {
        "median": median,
        "p10": low,
        "p90": high,
        "batch_size": 1,
        "n": len(times),
        "device": device_name(device),
        "num_threads": num_threads,
    }


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """The device as people know it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_model() or platform.processor() or platform.machine()


def _cpu_model() -> str | None:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return None
    lines = (line.partition(":") for line in info.read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "model name"), None)


if __name__ == "__main__":
    main()
