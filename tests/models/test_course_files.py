"""The course's pickles: read as its own decoder reads them, written so that its decoder reads them."""

import os
import pickle
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import Encoded
from models.architectures import create_network
from models.course_files import read_course_file, write_course_8bit, write_course_16bit
from models.encodings import encode
from models.plain_pickle import PickleError, read_plain_pickle
from tests.course import course_decode_8bit, course_encode_8bit


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


def values_of(read: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value.decode() if isinstance(value, Encoded) else value for name, value in read.items()}


def old_spelling(content: bytes) -> bytes:
    """As numpy 1 writes it; only protocols whose strings have no length allow to rename in place."""
    return content.replace(b"numpy._core.", b"numpy.core.")


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_8_bit_file_is_read_as_the_course_decodes_it(protocol: int) -> None:
    """Every protocol that Python 3 writes; arrays, minimum and maximum survive as they are stored."""
    encoded = course_encode_8bit(state())
    content = pickle.dumps(encoded, protocol=protocol)
    read = read_course_file(content)
    wanted = course_decode_8bit(content)
    assert list(read) == list(encoded)
    for name, value in read.items():
        if isinstance(value, Encoded):
            low, high, array = encoded[name]
            assert (value.encoding["minimum"], value.encoding["maximum"]) == (low, high)
            assert value.data.tolist() == array.reshape(-1).tolist()
            # Two orders of the same float64 operations, then rounded to float32: a unit in the last place.
            torch.testing.assert_close(value.decode(), wanted[name].float(), rtol=2e-7, atol=1e-9)
        else:
            assert value.item() == wanted[name].item()
    assert torch.equal(values_of(read)["cnn.0.0.bias"], torch.full((16,), 0.25))


@pytest.mark.parametrize("protocol", [2, 3])
def test_numpy_1s_names_are_read(protocol: int) -> None:
    content = pickle.dumps({"w": np.arange(4, dtype=np.float16), "n": np.float64(2.0)}, protocol=protocol)
    assert b"numpy._core" in content
    old = read_course_file(old_spelling(content))
    assert values_of(old)["w"].tolist() == [0, 1, 2, 3]
    assert old["n"].item() == 2.0


@pytest.mark.parametrize("protocol", [3, 5])
def test_the_16_bit_file_is_read(protocol: int) -> None:
    """Float16 arrays as they are; also in Fortran's order, which numpy keeps when it is asked to transpose."""
    halves = {name: np.float16(value.numpy()) for name, value in state().items()}
    halves["transposed"] = np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3))
    read = read_course_file(pickle.dumps(halves, protocol=protocol))
    for name, value in values_of(read).items():
        assert np.array_equal(value.numpy(), halves[name].astype(value.numpy().dtype)), name
    assert isinstance(read["cnn.0.0.weight"], Encoded)
    assert read["cnn.0.0.weight"].encoding == {"name": "fp16"}


def network_of(tensors: dict[str, torch.Tensor]) -> Any:
    network = create_network("course/studentnet", num_classes=3, image_size=32, seed=0)
    network.load_state_dict(tensors)
    return network.eval()


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


def test_stored_bytes_pass_through_unchanged() -> None:
    """Read, decode, write: the same arrays, minimum and maximum, to the bit."""
    content = write_course_8bit(network_of(state()))
    read = read_course_file(content)
    network = network_of(values_of(read))
    network.encoded = {name: value for name, value in read.items() if isinstance(value, Encoded)}
    assert write_course_8bit(network) == content


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


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_code_is_named_and_not_run(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PickleError) as refused:
        read_plain_pickle(pickle.dumps({"w": Evil()}, protocol=protocol))
    assert refused.value.needs in ("posix.system", "nt.system")
    assert not (tmp_path / "executed").exists()


def array_pickle(shape: bytes, data: bytes) -> bytes:
    """A float64 array by hand: `shape` and `data` are opcodes."""
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    kind = b"cnumpy\ndtype\nX\x02\x00\x00\x00f8\x89\x88\x87R"
    order = b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return b"\x80\x03}X\x01\x00\x00\x00w" + made + b"(K\x01" + shape + kind + order + b"\x89" + data + b"tbs."


HUGE = b"\x8a\x08" + struct.pack("<q", 2**62)
ARRAY = array_pickle(b"K\x01\x85", b"C\x08" + b"\x00" * 8)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (array_pickle(HUGE + b"\x85", b"C\x08" + b"\x00" * 8), "never does"),
        (array_pickle(b"M\xff\xffM\xff\xff\x86", b"C\x08" + b"\x00" * 8), "are there"),
        (array_pickle(b"K\x01\x85", b"\x8e" + struct.pack("<Q", 2**40) + b"\x00" * 8), "damaged"),
        (ARRAY.replace(b"f8", b"O8"), "type 'O8'"),
        (ARRAY.replace(b"\x00\x00\x00<NNN", b"\x00\x00\x00>NNN"), "big-endian"),
        (ARRAY[:-1], "damaged"),
        (b"\x80\x03cnumpy\nndarray\n)R.", "never does"),
        (b"\x80\x03cnumpy\ndtype\nX\x02\x00\x00\x00f8\x89\x88\x87R.", "one dict"),
        (b"\x80\x03}q\x00h\x07.", "refers to nothing"),
        (b"\x80\x03}X\x01\x00\x00\x00w}s.", "dict in a dict"),
        (b"\x80\x03}X\x01\x00\x00\x00wK\x01sX\x01\x00\x00\x00wK\x01s.", "twice"),
        (b"\x80\x03}X\x01\x00\x00\x00wX\x01\x00\x00\x00ws.", "str"),
        (b"\x80\x03}K\x01K\x01s.", "key"),
        (b"\x80\x03](K\x01e.", "EMPTY_LIST"),
    ],
)
def test_pickles_made_by_hand_are_refused(content: bytes, says: str) -> None:
    """A size that is only claimed allocates nothing; whatever is no dict of arrays is told."""
    assert values_of(read_course_file(ARRAY))["w"].tolist() == [0.0]
    with pytest.raises(PickleError, match=says):
        read_course_file(content)


def test_one_array_under_many_names_is_refused() -> None:
    """Otherwise a file of 1 MB would become a terabyte of tensors."""
    shared = (np.float64(0), np.float64(1), np.zeros(100_000, np.uint8))
    content = pickle.dumps({f"w{n}": shared for n in range(1_000)}, protocol=4)
    assert len(content) < 200_000
    with pytest.raises(PickleError, match="share one array"):
        read_course_file(content)


@pytest.mark.parametrize("low_high", [(float("nan"), 1.0), (0.0, float("inf")), (2.0, 1.0)])
def test_a_broken_range_is_named(low_high: tuple[float, float]) -> None:
    content = pickle.dumps({"w": (*map(np.float64, low_high), np.zeros(3, np.uint8))}, protocol=3)
    with pytest.raises(PickleError, match="'w' has the range"):
        read_course_file(content)


def test_a_memo_of_four_billion_places_takes_no_memory() -> None:
    """The index is a number in a dict here; `pickle` itself makes a list that long."""
    assert read_course_file(b"\x80\x03}r\xff\xff\xff\xff.") == {}


def test_any_single_damaged_byte_is_survived() -> None:
    """Reading either succeeds or says why: nothing else is raised."""
    array = np.arange(5, dtype=np.uint8)
    refused = 0
    for protocol in (2, 3, 4, 5):
        content = pickle.dumps(
            {"w": (np.float64(0), np.float64(1), array), "n": np.float64(3)}, protocol=protocol
        )
        for position in range(len(content)):
            for flip in (0x01, 0x80, 0xFF):
                damaged = bytearray(content)
                damaged[position] ^= flip
                try:
                    read_course_file(bytes(damaged))
                except PickleError:
                    refused += 1
    assert refused > 1_000
