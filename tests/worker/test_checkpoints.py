"""What people upload as checkpoints, and what strangers do."""

import argparse
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from app.errors import Problem
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
    assert list(read) == list(wanted)
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


def test_an_argparse_namespace_is_named(tmp_path: Path) -> None:
    torch.save({"model": network().state_dict(), "args": argparse.Namespace(lr=1)}, tmp_path / "a.pt")
    assert "argparse.Namespace" in refused(tmp_path / "a.pt").detail


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
    "content",
    [
        {"w": torch.zeros(1).expand(1 << 40)},
        {"w/../../x": torch.zeros(1)},
        {"w": torch.zeros(1, dtype=torch.complex64)},
        {"w": torch.zeros((1,) * 9)},
        {
            "w": torch.sparse_coo_tensor(
                torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (2,), check_invariants=True
            )
        },
        OrderedDict(epoch=3),
        [torch.zeros(1)],
        torch.zeros(3),
    ],
    ids=["stride 0", "name", "complex", "9 dimensions", "sparse", "no tensors", "list", "tensor"],
)
def test_strange_contents_are_unreadable(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert refused(tmp_path / "a.pt").code == "CHECKPOINT_UNREADABLE"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello world, this is no checkpoint",
        b"PK\x03\x04 truncated",
        b"\x80\x02broken",
        b"\x08\x07\x12\x07pytorch",
    ],
    ids=["empty", "text", "zip", "pickle", "onnx"],
)
def test_other_files_are_unreadable(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(data)
    assert refused(tmp_path / "a.pt").code == "CHECKPOINT_UNREADABLE"


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
