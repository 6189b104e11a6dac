"""The exact counts of the report come out of the presets at their full size."""

from typing import Any

import pytest
import torch
from torch import nn

from app import presets
from app.spec.job import JobSpec
from app.spec.networks import Student
from app.sweeps.points import points
from models.architectures import create
from models.layers import layer_table
from tests.worker.fakes import MemoryData, make_run
from worker.steps import prune

NUM_CLASSES = 11


def jobs_of(name: str, **options: Any) -> list[tuple[dict[str, Any], JobSpec]]:
    raise NotImplementedError


def studentnet() -> nn.Module:
    """At a small image size, which changes no parameter; with norms as a training leaves them: all different."""
    network = create("course/studentnet", num_classes=NUM_CLASSES, image_size=16)
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.5, 0.5, generator=generator)
    return network
