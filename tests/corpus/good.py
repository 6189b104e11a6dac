"""Checkpoints that must be taken: what training scripts save, with the tensors that must come out of them.

Ten architectures in six forms each, and forms that files have by accident (old protocols, odd containers).
"""

import argparse
import collections
import datetime
import io
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from models.architectures import create
from tests.corpus.checkpoints.containers import (
    NUMBERS,
    STATE,
    Member,
    checkpoint,
    deflated,
    legacy,
    zip_of,
    zipped,
)
from tests.corpus.checkpoints.containers import (
    safetensors as safetensors_by_hand,
)
from tests.corpus.checkpoints.opcodes import name, pickled, stack_name, state, tensor

State = dict[str, Tensor]

# Small ones: a test reads all of them in all forms.
ARCHITECTURES = {
    "report/final": 32,
    "course/studentnet": 32,
    "cifar/resnet20": 32,
    "resnet18": 32,
    "mobilenet_v2": 32,
    "efficientnet_b0": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32,
    "regnet_y_400mf": 32,
    "mnasnet0_5": 32,
}


@dataclass(frozen=True)
class Good:
    """A file and the tensors it holds, by the names that they must have afterwards."""

    name: str
    content: bytes
    tensors: State


def cases() -> Iterator[Good]:
    yield from by_hand()
    for architecture in ARCHITECTURES:
        yield from of_architecture(architecture)


def of_architecture(architecture: str) -> Iterator[Good]:
    """All forms of one network."""
    torch.manual_seed(0)
    network = create(architecture, num_classes=2, image_size=ARCHITECTURES[architecture])
    for form, make in FORMS.items():
        content, tensors = make(network)
        yield Good(f"{architecture}, {form}", content, tensors)


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


Made = tuple[bytes, State]


def _bare(network: nn.Module) -> Made:
    return saved(network.state_dict()), network.state_dict()


def _training(network: nn.Module) -> dict[str, Any]:
    """What a script saves at the end of an epoch; the optimizer has taken a step."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for parameter in network.parameters():
        parameter.grad = torch.ones(1).expand_as(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    return {
        "epoch": 12,
        "model_state_dict": network.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler": schedule.state_dict(),
        "best_acc": np.float64(0.937),
        "loss": np.float32(0.2),
        "rng": torch.get_rng_state(),
    }


def _with_optimizer(network: nn.Module) -> Made:
    return saved(_training(network)), network.state_dict()


def _whole_run(network: nn.Module) -> Made:
    """Options, counters, paths, times: all that scripts of five years have put beside the weights."""
    run = {
        "args": argparse.Namespace(lr=0.1, data=pathlib.PosixPath("/data"), gpus=[0, 1]),
        "seen": collections.Counter(cat=3, dog=4),
        "history": collections.defaultdict(list, {"loss": [1.0, 0.5]}),
        "output": pathlib.PosixPath("runs/7"),
        "at": datetime.datetime(2024, 2, 29, 12, 30),
        "took": datetime.timedelta(hours=3),
        "classes": {"cat", "dog"},
        "image_size": torch.Size([32, 32]),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "confusion": np.arange(4, dtype=np.int64).reshape(2, 2),
        "scores": np.linspace(0, 1, 3, dtype=np.float32),
        "complex": 1 + 2j,
        "big": 2**70,
        "none": None,
    }
    return saved({**run, "state_dict": network.state_dict()}, pickle_protocol=4), network.state_dict()


def _parallel_and_compiled(network: nn.Module) -> Made:
    prefixed = {f"module._orig_mod.{name}": value for name, value in network.state_dict().items()}
    return saved(prefixed, _use_new_zipfile_serialization=False), network.state_dict()


def _safetensors(network: nn.Module) -> Made:
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    return safetensors.torch.save(tensors, {"format": "pt"}), tensors


def _averaged_halves_in_channels_last(network: nn.Module) -> Made:
    """An exponential moving average in bfloat16, as torch.optim.swa_utils keeps it."""
    halves = {
        name: value.bfloat16().to(memory_format=torch.channels_last)
        if value.dim() == 4
        else (value.half() if value.is_floating_point() else value)
        for name, value in network.state_dict().items()
    }
    averaged = {"n_averaged": torch.tensor(9)} | {f"module.{name}": value for name, value in halves.items()}
    return saved({"ema": averaged, "epoch": 3}), halves


FORMS: dict[str, Callable[[nn.Module], Made]] = {
    "a bare state dict": _bare,
    "with its optimizer": _with_optimizer,
    "a whole run, protocol 4": _whole_run,
    "parallel and compiled, legacy": _parallel_and_compiled,
    "safetensors": _safetensors,
    "an average in halves, channels_last": _averaged_halves_in_channels_last,
}


def by_hand() -> Iterator[Good]:
    """What the hostile cases are made of, with nothing wrong; and what else is odd but in order."""
    four = {"w": torch.tensor([0.5, -1.0, 2.0, 0.25])}
    makes: dict[str, Callable[[], bytes]] = {
        "zip": partial(zip_of, STATE),
        "legacy": legacy,
        "safetensors": safetensors_by_hand,
        "safetensors with metadata": lambda: safetensors_by_hand(
            {"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
        ),
        "safetensors with a padded header": lambda: safetensors_by_hand(
            b'{"w":{"data_offsets":[0,16],"shape":[4],"dtype":"F32"}}' + b" " * 9
        ),
        "a zip in another folder": partial(zipped, checkpoint(root=b"teacher v2")),
        "a zip with a comment": partial(zipped, checkpoint(), comment=b"made by hand"),
        "a zip with a storage that nothing needs": partial(
            zipped, checkpoint(STATE, {"0": NUMBERS, "1": b"x"})
        ),
        "a deflated zip": partial(zipped, [deflated(m.name, m.data) for m in checkpoint()]),
        "a zip without version and byte order": partial(zipped, checkpoint()[:1] + checkpoint()[2:3]),
        "a zip with a serialization id": partial(
            zipped, [*checkpoint(), Member(b"archive/.data/serialization_id", b"1" * 40)]
        ),
        "protocol 3": partial(zip_of, b"\x80\x03" + STATE[2:]),
        "protocol 5 with a frame": partial(zip_of, b"\x80\x05\x95" + bytes(8) + STATE[2:]),
        "names by STACK_GLOBAL": partial(
            zip_of,
            pickled(state(("w", tensor())), protocol=4).replace(
                name("collections.OrderedDict"), stack_name("collections.OrderedDict")
            ),
        ),
        "strides of a side of one": partial(zip_of, pickled(state(("w", tensor((1, 4, 1), (77, 1, 5)))))),
    }
    for what, make in makes.items():
        expected = {"w": four["w"][None, :, None]} if what.startswith("strides") else four
        yield Good(f"by hand: {what}", make(), expected)
