"""The course's pickles, read as its own decoder reads them; and what a stranger makes of them."""

import os
import pickle
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import Encoded
from models.course_files import write_course_8bit
from tests.course import course_decode_8bit, course_encode_8bit, network_of, state
from worker.checkpoints import read_admitted
from worker.gate import Refused, admit


def read_course_file(content: bytes) -> dict[str, Any]:
    """By name: the tensor, or its stored form where the file has one."""
    with tempfile.TemporaryDirectory() as folder:
        file, canonical = Path(folder) / "8_bit_model.pkl", Path(folder) / "canonical"
        file.write_bytes(content)
        read = read_admitted(admit(file, canonical), canonical)
        return {name: read.encoded.get(name, tensor.clone()) for name, tensor in read.tensors.items()}


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
    assert sorted(read) == sorted(encoded)
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


def test_stored_bytes_pass_through_unchanged() -> None:
    """Read, decode, write: the same arrays, minimum and maximum, to the bit."""
    content = write_course_8bit(network_of(state()))
    read = read_course_file(content)
    network = network_of(values_of(read))
    network.encoded = {name: value for name, value in read.items() if isinstance(value, Encoded)}
    assert write_course_8bit(network) == content


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_code_is_named_and_not_run(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match="system") as refused:
        read_course_file(pickle.dumps({"w": Evil()}, protocol=protocol))
    assert refused.value.code == "CHECKPOINT_IS_CODE"
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
        (array_pickle(HUGE + b"\x85", b"C\x08" + b"\x00" * 8), "TENSOR_DAMAGED"),
        (array_pickle(b"M\xff\xffM\xff\xff\x86", b"C\x08" + b"\x00" * 8), "ARRAY_SIZE"),
        (array_pickle(b"K\x01\x85", b"\x8e" + struct.pack("<Q", 2**40) + b"\x00" * 8), "PICKLE_TRUNCATED"),
        (ARRAY.replace(b"f8", b"O8"), "is a array"),
        (ARRAY.replace(b"\x00\x00\x00<NNN", b"\x00\x00\x00>NNN"), "BIG_ENDIAN"),
        (ARRAY[:-1], "PICKLE_TRUNCATED"),
        (b"\x80\x03cnumpy\nndarray\n)R.", "REDUCE_FORBIDDEN"),
        (b"\x80\x03cnumpy\ndtype\nX\x02\x00\x00\x00f8\x89\x88\x87R.", "no dict of arrays"),
        (b"\x80\x03}q\x00h\x07.", "PICKLE_DAMAGED"),
        (b"\x80\x03}X\x01\x00\x00\x00w}s.", "is a dict"),
        (b"\x80\x03}X\x01\x00\x00\x00wK\x01sX\x01\x00\x00\x00wK\x01s.", "twice"),
        (b"\x80\x03}X\x01\x00\x00\x00wX\x01\x00\x00\x00ws.", "is a str"),
        (b"\x80\x03}K\x01K\x01s.", "no dict of arrays"),
        (b"\x80\x03](K\x01e.", "no dict of arrays"),
        (b"\x80\x03}r\xff\xff\xff\xff.", "no dict of arrays"),
    ],
)
def test_pickles_made_by_hand_are_refused(content: bytes, says: str) -> None:
    """A size that is only claimed allocates nothing; whatever is no dict of arrays is told."""
    assert values_of(read_course_file(ARRAY))["w"].tolist() == [0.0]
    with pytest.raises(Refused, match=says):
        read_course_file(content)


def test_one_array_under_many_names_is_refused() -> None:
    """Otherwise a file of 1 MB would become a terabyte of tensors."""
    shared = (np.float64(0), np.float64(1), np.zeros(100_000, np.uint8))
    content = pickle.dumps({f"w{n}": shared for n in range(1_000)}, protocol=4)
    assert len(content) < 200_000
    with pytest.raises(Refused, match="TENSOR_ALIASING"):
        read_course_file(content)


@pytest.mark.parametrize("low_high", [(float("nan"), 1.0), (0.0, float("inf")), (2.0, 1.0)])
def test_a_broken_range_is_named(low_high: tuple[float, float]) -> None:
    content = pickle.dumps({"w": (*map(np.float64, low_high), np.zeros(3, np.uint8))}, protocol=3)
    with pytest.raises(Refused, match="'w' has the range"):
        read_course_file(content)


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
                except Refused:
                    refused += 1
    assert refused > 1_000
