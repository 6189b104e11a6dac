"""The course's pickles, written so that its decoder reads them. The gate reads them: tests/worker/test_course_files.py."""

import pickle
import warnings

import numpy as np
import pytest
import torch

from models.course_files import write_course_8bit, write_course_16bit
from models.encodings import encode
from tests.course import network_of, state


def test_what_is_written_is_what_numpy_reads() -> None:
    """Plain pickle and numpy give uint8 arrays, float64 ranges and scalars; each value within half a step."""
    network = network_of(state())
    content = write_course_8bit(network)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy 2 must not even grumble about numpy 1's names
        loaded = pickle.loads(content)
    assert list(loaded) == list(network.state_dict())
    for name, tensor in network.state_dict().items():
        value = loaded[name]
        if tensor.dim() == 0:
            assert type(value) is np.float64
            assert value == tensor.item()
            continue
        low, high, array = value
        assert (type(low), array.dtype, array.shape) == (np.float64, np.uint8, tuple(tensor.shape))
        assert (low, high) == (tensor.min().item(), tensor.max().item())
        error = np.abs(array / 255 * (high - low) + low - tensor.numpy().astype(np.float64)).max()
        assert error <= (high - low) / 510 * (1 + 1e-9), name


def test_16_bits_are_written_as_halves_and_overflow_is_not() -> None:
    network = network_of(state())
    with torch.no_grad():
        network.get_parameter("fc.0.weight")[0, 0] = 1e6
    loaded = pickle.loads(write_course_16bit(network))
    assert loaded["cnn.0.0.weight"].dtype == np.float16
    assert np.array_equal(loaded["cnn.0.0.weight"], network.state_dict()["cnn.0.0.weight"].half().numpy())
    assert loaded["fc.0.weight"].dtype == np.float32
    assert loaded["fc.0.weight"][0, 0] == 1e6


def test_other_stored_forms_are_encoded_anew() -> None:
    network = network_of(state())
    weight = network.state_dict()["fc.0.weight"]
    network.encoded = {"fc.0.weight": encode(weight, {"name": "fp16"})}
    array = pickle.loads(write_course_8bit(network))["fc.0.weight"][2]
    assert array.tobytes() == bytes(encode(weight, {"name": "minmax", "bits": 8}).data.tolist())


def test_nan_cannot_be_written() -> None:
    network = network_of(state())
    with torch.no_grad():
        network.get_parameter("fc.0.weight")[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"fc\.0\.weight"):
        write_course_8bit(network)
