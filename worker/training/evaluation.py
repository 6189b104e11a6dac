"""Accuracy and loss of a network in memory, to follow a training. Reported results are measured on the packed file instead."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from app.spec.base import Split
from models.load_artifact import normalise
from worker.run import Run

BATCH_SIZE = 256


@dataclass(frozen=True)
class Score:
    accuracy: float
    """0..1"""
    loss: float
    """Mean cross-entropy."""


@torch.no_grad()
def score(
    network: nn.Module,
    run: Run,
    split: Split,
    preprocessing: dict[str, Any],
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Score:
    """Top-1 accuracy and cross-entropy on a labelled split; the network must be in eval mode."""
    images_NCHW = run.data.images(split, preprocessing)
    labels_N = run.data.labels(split)
    correct = loss = 0.0
    for start in range(0, len(labels_N), BATCH_SIZE):
        batch_NCHW = normalise(images_NCHW[start : start + BATCH_SIZE].to(run.device), preprocessing)
        batch_N = labels_N[start : start + BATCH_SIZE].to(run.device)
        logits_NC = network(batch_NCHW.contiguous(memory_format=memory_format)).float()
        correct += (logits_NC.argmax(1) == batch_N).sum().item()
        loss += F.cross_entropy(logits_NC, batch_N, reduction="sum").item()
    return Score(correct / len(labels_N), loss / len(labels_N))
