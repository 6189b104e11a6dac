"""Checkpoints as people save them, ten architectures in ten forms: all are taken, with exactly the tensors that were saved."""

import argparse
import collections
import copy
import io
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from models.architectures import create
from tests.corpus.case import Case
from tests.corpus.pickling import saved

State = dict[str, Tensor]
# name → image size; small ones, and every family that spells its tensors in a way of its own.
ARCHITECTURES = {
    "resnet18": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "efficientnet_lite0": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32,
    "regnet_y_400mf": 32,
    "mnasnet0_5": 32,
    "cifar/resnet20": 32,
    "report/final": 32,
}
NUM_CLASSES = 3


@dataclass(frozen=True)
class GoodCheckpoint(Case):
    """`tensors`: by name, as they must be read."""

    tensors: Callable[[], State] = field(default=dict)


def cases() -> Iterator[GoodCheckpoint]:
    for architecture, side in ARCHITECTURES.items():
        made: list[nn.Module] = []

        def network(
            architecture: str = architecture, side: int = side, made: list[nn.Module] = made
        ) -> nn.Module:
            if not made:
                torch.manual_seed(len(architecture))
                made.append(create(architecture, num_classes=NUM_CLASSES, image_size=side))
            return made[0]

        request = {
            "architecture": {"architecture": architecture},
            "preprocessing": {
                "resize": None,
                "crop": side,
                "interpolation": "bilinear",
                "mean": [0.5] * 3,
                "std": [0.25] * 3,
            },
        }
        for name, form in FORMS.items():
            yield GoodCheckpoint(
                f"good: {architecture}, {name}",
                lambda form=form, network=network: form.write(network()),  # type: ignore[misc]
                201,
                "",
                request=request,
                tensors=lambda form=form, network=network: form.change(dict(network().state_dict())),  # type: ignore[misc]
            )


@dataclass(frozen=True)
class Form:
    """How a network is saved, and what that does to its tensors."""

    write: Callable[[nn.Module], bytes]
    change: Callable[[State], State] = lambda state: state


def _state(model: nn.Module) -> State:
    return dict(model.state_dict())


def _run(model: nn.Module) -> bytes:
    """What a training script keeps: weights among options, counters, paths and the state of the optimizer."""
    trained = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(trained.parameters())
    for parameter in list(trained.parameters())[:3]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    run = {
        "epoch": 12,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "best_acc": np.float64(0.91),
        "losses": np.linspace(1, 0, 12, dtype=np.float32),
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("runs/1"), betas=(0.9, 0.999)),
        "counts": collections.Counter({"cat": 3, "dog": 5}),
        "rng_state": torch.get_rng_state(),
    }
    return saved(run)


def _half(dtype: torch.dtype) -> Callable[[State], State]:
    def change(state: State) -> State:
        return {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}

    return change


def _channels_last(state: State) -> State:
    return {name: t.to(memory_format=torch.channels_last) if t.dim() == 4 else t for name, t in state.items()}


def _safetensors(model: nn.Module) -> bytes:
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})


def _ema(model: nn.Module) -> bytes:
    average = torch.optim.swa_utils.AveragedModel(model)
    return saved({"ema": average.state_dict(), "decay": 0.999})


FORMS = {
    "bare": Form(lambda model: saved(model.state_dict())),
    "a whole run": Form(_run),
    "parallel and compiled": Form(
        lambda m: saved({"state_dict": {f"module._orig_mod.{k}": v for k, v in _state(m).items()}})
    ),
    "legacy": Form(lambda model: saved(model.state_dict(), _use_new_zipfile_serialization=False)),
    "safetensors": Form(_safetensors),
    "bfloat16": Form(lambda model: saved(_half(torch.bfloat16)(_state(model))), _half(torch.bfloat16)),
    "float16": Form(
        lambda model: saved({"model": _half(torch.float16)(_state(model))}), _half(torch.float16)
    ),
    "protocol 4": Form(lambda model: saved({"net": model.state_dict()}, pickle_protocol=4)),
    "channels_last": Form(lambda model: saved(_channels_last(_state(model)))),
    "averaged": Form(_ema),
}


def same(found: State, expected: State) -> bool:
    """Names, types, shapes and bytes."""
    return sorted(found) == sorted(expected) and all(
        (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        and _bytes(found[name]) == _bytes(tensor)
        for name, tensor in expected.items()
    )


def _bytes(tensor: Tensor) -> bytes:
    buffer = io.BytesIO()
    buffer.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return buffer.getvalue()


__all__: list[Any] = ["ARCHITECTURES", "FORMS", "GoodCheckpoint", "cases", "same"]
