"""The course's own encoder and decoder, from its description alone and in numpy's words: our files are held against them."""

import pickle
from typing import Any

import numpy as np
import torch

from models.architectures import create_network


def course_encode_8bit(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Report H in numpy's words: every tensor that is no scalar as float64 minimum, maximum and uint8 array."""
    encoded: dict[str, Any] = {}
    for name, tensor in state.items():
        values = np.float64(tensor.numpy())
        if isinstance(values, np.ndarray):
            low, high = np.min(values), np.max(values)
            with np.errstate(invalid="ignore"):
                encoded[name] = (low, high, np.uint8(np.round((values - low) / (high - low) * 255)))
        else:
            encoded[name] = values
    return encoded


def course_decode_8bit(content: bytes) -> dict[str, torch.Tensor]:
    """What somebody who has numpy does with such a file."""
    decoded = {}
    for name, value in pickle.loads(content).items():
        if isinstance(value, tuple):
            low, high, array = value
            value = np.float64(array) / 255 * (high - low) + low
        decoded[name] = torch.tensor(value)
    return decoded


def state() -> dict[str, torch.Tensor]:
    network = create_network("course/studentnet", num_classes=3, image_size=32, seed=1)
    tensors = {name: value.clone() for name, value in network.state_dict().items()}
    for name, value in tensors.items():
        if name.endswith("num_batches_tracked"):
            value.fill_(6789)
        elif name.endswith(("running_var", "running_mean")):
            value.copy_(torch.rand(value.shape, generator=torch.Generator().manual_seed(len(name))))
    tensors["cnn.0.0.bias"].fill_(0.25)  # constant: the course's encoder divides 0 by 0
    return tensors


def network_of(tensors: dict[str, torch.Tensor]) -> Any:
    network = create_network("course/studentnet", num_classes=3, image_size=32, seed=0)
    network.load_state_dict(tensors)
    return network.eval()
