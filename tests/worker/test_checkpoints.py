"""What people upload as checkpoints, and what strangers do."""

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import models
from app.errors import Problem
from models.architectures import create_network
from worker.checkpoints import read_checkpoint


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in network().state_dict().items()}


@pytest.mark.parametrize(
    "content",
    [
        network().state_dict(),
        dict(network().state_dict()),
        {"state_dict": network().state_dict(), "epoch": 3, "best": 0.5},
        {
            "model_state_dict": network().state_dict(),
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        },
        {"model": network().state_dict()},
        {"ema": network().state_dict()},
        prefixed("module."),
        prefixed("_orig_mod."),
        prefixed("_orig_mod.module."),
        prefixed("module._orig_mod."),
        {"state_dict": prefixed("module.")},
    ],
    ids=lambda content: next(iter(content)),
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_ordinary_checkpoints_give_the_tensors(content: Any, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read = read_checkpoint(path).tensors
    wanted = network().state_dict()
    assert sorted(read) == sorted(wanted)
    assert all(torch.equal(read[key], wanted[key]) for key in wanted)


def test_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file(network().state_dict(), tmp_path / "a.safetensors")
    read = read_checkpoint(tmp_path / "a.safetensors").tensors
    assert {key: tuple(value.shape) for key, value in read.items()} == {
        key: tuple(value.shape) for key, value in network().state_dict().items()
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.save(network().to(dtype).state_dict(), tmp_path / "a.pt")
    read = read_checkpoint(tmp_path / "a.pt").tensors
    assert read["0.weight"].dtype == torch.float32
    assert read["1.num_batches_tracked"].dtype == torch.int64
    assert torch.equal(read["0.weight"], network().state_dict()["0.weight"].to(dtype).float())


def test_two_networks_in_one_file_are_told(tmp_path: Path) -> None:
    torch.save({"model": network().state_dict(), "ema": network().state_dict()}, tmp_path / "a.pt")
    assert "ema" in read_checkpoint(tmp_path / "a.pt").warnings[0]


def refused(path: Path) -> Problem:
    with pytest.raises(Problem) as caught:
        read_checkpoint(path)
    assert caught.value.status == 422
    assert "state_dict" in caught.value.detail, "the way out"
    return caught.value


def test_a_whole_pickled_module_is_code(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "a.pt")
    problem = refused(tmp_path / "a.pt")
    assert problem.code == "CHECKPOINT_IS_CODE"
    assert "torch.nn.modules" in problem.detail


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_whole_module_in_the_legacy_format_is_code(tmp_path: Path) -> None:
    """The report's own student was saved so."""
    torch.save(network(), tmp_path / "a.bin", _use_new_zipfile_serialization=False)
    assert refused(tmp_path / "a.bin").code == "CHECKPOINT_IS_CODE"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_plain_pickle_of_a_module_is_code(protocol: int, tmp_path: Path) -> None:
    for content in (network(), {"net": network()}):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
        problem = refused(tmp_path / "a.pkl")
        assert problem.code == "CHECKPOINT_IS_CODE"
        assert "torch.save(model.state_dict()" in problem.detail


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 3])
def test_legacy_files_of_both_usual_protocols_are_read(protocol: int, tmp_path: Path) -> None:
    state = network().state_dict()
    torch.save(state, tmp_path / "a.bin", _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    read = read_checkpoint(tmp_path / "a.bin").tensors
    assert all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_courses_8_bit_pickle_keeps_its_stored_form(prefix: str, tmp_path: Path) -> None:
    """Its counters are floats there and integers here; weights are what the stored bytes decode to."""
    content: dict[str, Any] = {}
    for name, tensor in network().state_dict().items():
        values = np.float64(tensor.numpy())
        low, high = values.min(), values.max()
        is_scalar = tensor.dim() == 0
        q = np.uint8(np.round((values - low) / max(high - low, 1e-9) * 255))
        content[prefix + name] = np.float64(7) if is_scalar else (low, high, q)
    (tmp_path / "8_bit_model.pkl").write_bytes(pickle.dumps(content, protocol=3))
    read = read_checkpoint(tmp_path / "8_bit_model.pkl")
    assert sorted(read.tensors) == sorted(network().state_dict())
    assert (read.tensors["1.num_batches_tracked"].dtype, read.tensors["1.num_batches_tracked"]) == (
        torch.int64,
        7,
    )
    assert read.encoded.keys() == read.tensors.keys() - {"1.num_batches_tracked"}
    for name, stored in read.encoded.items():
        assert torch.equal(stored.decode(), read.tensors[name])
        assert stored.data.tolist() == content[prefix + name][2].reshape(-1).tolist()


def test_the_courses_16_bit_pickle(tmp_path: Path) -> None:
    """A counter beyond half precision has become infinite there."""
    with np.errstate(over="ignore"):
        content = {name: np.float16(tensor.numpy()) for name, tensor in network().state_dict().items()}
        content["1.num_batches_tracked"] = np.float16(np.inf)
    (tmp_path / "16_bit_model.pkl").write_bytes(pickle.dumps(content, protocol=4))
    read = read_checkpoint(tmp_path / "16_bit_model.pkl").tensors
    assert torch.equal(read["0.weight"], network().state_dict()["0.weight"].half().float())
    assert read["1.num_batches_tracked"].dtype == torch.int64


def test_a_plain_pickle_that_would_run_code_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": Shell()}, protocol=3))
    problem = refused(tmp_path / "a.pkl")
    assert problem.code == "CHECKPOINT_IS_CODE"
    assert "system" in problem.detail
    assert not (tmp_path / "executed").exists()


class Shell:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def test_an_artifact_keeps_its_stored_form(tmp_path: Path) -> None:
    made = create_network("report/final", num_classes=2, image_size=16, seed=0)
    weight = made.state_dict()["head.fc.weight"]
    made.encoded = {"head.fc.weight": models.encode(weight, {"name": "minmax", "bits": 8})}
    made.load_state_dict({**made.state_dict(), "head.fc.weight": made.encoded["head.fc.weight"].decode()})
    models.save(made.eval(), tmp_path / "a.pt", preprocessing=None, class_names=None)
    read = read_checkpoint(tmp_path / "a.pt")
    assert torch.equal(read.encoded["head.fc.weight"].data, made.encoded["head.fc.weight"].data)


def test_what_scripts_keep_beside_the_weights_does_no_harm(tmp_path: Path) -> None:
    torch.save({"model": network().state_dict(), "args": argparse.Namespace(lr=1)}, tmp_path / "a.pt")
    assert read_checkpoint(tmp_path / "a.pt").tensors.keys() == network().state_dict().keys()


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_code(tmp_path: Path) -> None:
    torch.jit.trace(network(), torch.zeros(1, 3, 4, 4)).save(str(tmp_path / "a.pt"))
    assert "TorchScript" in refused(tmp_path / "a.pt").detail


def test_torch_export_is_code(tmp_path: Path) -> None:
    program = torch.export.export(network().eval(), (torch.zeros(1, 3, 4, 4),))
    torch.export.save(program, tmp_path / "a.pt2")
    assert refused(tmp_path / "a.pt2").code == "CHECKPOINT_IS_CODE"


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ({"w": torch.zeros(1).expand(1 << 40)}, "CHECKPOINT_UNSAFE"),
        ({"w/../../x": torch.zeros(1)}, "CHECKPOINT_UNSAFE"),
        ({"w": torch.zeros(1, dtype=torch.complex64)}, "DTYPE_MISMATCH"),
        ({"w": torch.zeros(1).to(torch.float8_e4m3fn)}, "DTYPE_MISMATCH"),
        ({"w": torch.zeros((1,) * 9)}, "CHECKPOINT_UNSAFE"),
        (
            {
                "w": torch.sparse_coo_tensor(
                    torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (2,), check_invariants=True
                )
            },
            "CHECKPOINT_UNREADABLE",
        ),
        (OrderedDict(epoch=3), "CHECKPOINT_UNREADABLE"),
        ([torch.zeros(1)], "CHECKPOINT_UNREADABLE"),
        (torch.zeros(3), "CHECKPOINT_UNREADABLE"),
    ],
    ids=["stride 0", "name", "complex", "fp8", "9 dimensions", "sparse", "no tensors", "list", "tensor"],
)
def test_strange_contents_are_refused(content: Any, code: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert refused(tmp_path / "a.pt").code == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "CHECKPOINT_UNREADABLE"),
        (b"hello world, this is no checkpoint", "CHECKPOINT_UNREADABLE"),
        (b"PK\x03\x04 truncated", "CHECKPOINT_UNREADABLE"),
        (b"\x80\x02broken", "CHECKPOINT_UNREADABLE"),
        (b"\x08\x07\x12\x07pytorch", "CHECKPOINT_IS_CODE"),
    ],
    ids=["empty", "text", "zip", "pickle", "onnx"],
)
def test_other_files_are_refused(data: bytes, code: str, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(data)
    assert refused(tmp_path / "a.pt").code == code


def test_a_truncated_upload_is_unreadable(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])
    assert refused(tmp_path / "a.pt").code == "CHECKPOINT_UNREADABLE"


def test_a_pickle_that_would_run_code_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, tmp_path / "a.pt")
    assert refused(tmp_path / "a.pt").code == "CHECKPOINT_IS_CODE"
    assert not (tmp_path / "executed").exists()
