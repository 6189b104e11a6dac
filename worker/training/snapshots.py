"""Weights of single epochs, kept while a step trains so that a later step can go back to them (Renda et al. 2020,
"Comparing Rewinding and Fine-tuning in Neural Network Pruning", https://arxiv.org/abs/2003.02389)."""

import io
from pathlib import Path

import torch
from torch import Tensor, nn

from app.errors import Problem
from worker.whole_files import appears_whole

FOLDER = "snapshots"
"""Below the work folder of the step that trained."""


def save_snapshot(folder: Path, epoch: int, network: nn.Module) -> None:
    """Keep the network's tensors as they are now, after `epoch` epochs (0: before training). There whole or not at
    all, whenever the process is killed."""
    buffer = io.BytesIO()
    torch.save({name: tensor.cpu() for name, tensor in network.state_dict().items()}, buffer)
    folder.mkdir(parents=True, exist_ok=True)
    with appears_whole(snapshot_path(folder, epoch)) as file:
        file.write(buffer.getbuffer())


def load_snapshot(folder: Path, epoch: int) -> dict[str, Tensor]:
    """The tensors after `epoch` epochs, on the CPU. Raises Problem 422 SNAPSHOT_MISSING, naming the epochs there are."""
    if not snapshot_path(folder, epoch).exists():
        kept = sorted(int(path.stem) for path in folder.glob("*.pt"))
        raise Problem(
            422,
            "SNAPSHOT_MISSING",
            f"The step that trained this network kept no weights of epoch {epoch}; it kept epochs "
            f"{', '.join(map(str, kept)) or 'none'}. Rewind to an epoch from 0 to that step's epochs.",
        )
    state: dict[str, Tensor] = torch.load(snapshot_path(folder, epoch), map_location="cpu", weights_only=True)
    return state


def snapshot_path(folder: Path, epoch: int) -> Path:
    """Where the weights after `epoch` epochs are, if they were kept."""
    return folder / f"{epoch}.pt"
