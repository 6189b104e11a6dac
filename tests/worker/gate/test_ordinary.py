"""What people really save is read, with exactly the tensors that torch.load gives."""

import argparse
import collections
import datetime
import io
import json
import pathlib
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from worker.gate import Admitted, admit

State = dict[str, Tensor]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 6 * 6, 4))


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def read(folder: Path, content: bytes) -> tuple[Admitted, State]:
    (folder / "upload").write_bytes(content)
    out = folder / "canonical"
    admitted = admit(folder / "upload", out)
    return admitted, load_file(out)


def raw(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).contiguous().view(torch.uint8)


def assert_same(found: State, expected: State) -> None:
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert raw(found[name]).equal(raw(tensor)), name


def whole_run(state: State, model: nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    return {
        "epoch": 7,
        "model_state_dict": state,
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3).state_dict(),
        "best_acc": np.float64(0.93),
        "history": np.linspace(0, 1, 5),
        "names": np.array(["cat", "dog"]),
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("runs/1"), betas=(0.9, 0.999)),
        "more": types.SimpleNamespace(a=1),
        "counts": collections.Counter({"cat": 3}),
        "groups": collections.defaultdict(list, {"a": [1]}),
        "when": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        "tags": {"a", "b"},
        "frozen": frozenset({1}),
        "rng": torch.get_rng_state(),
        "numpy_rng": np.random.RandomState(0).get_state(),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "shape": torch.Size([1, 2]),
        "big": 2**80,
        "nothing": None,
    }


FORMS: dict[str, Callable[[State, nn.Module], bytes]] = {
    "bare": lambda state, model: saved(state),
    "legacy": lambda state, model: saved(state, _use_new_zipfile_serialization=False),
    "protocol 4": lambda state, model: saved(state, pickle_protocol=4),
    "protocol 5": lambda state, model: saved(state, pickle_protocol=5),
    "legacy protocol 4": lambda state, model: saved(
        state, pickle_protocol=4, _use_new_zipfile_serialization=False
    ),
    "safetensors": lambda state, model: save(state),
    "plain dict": lambda state, model: saved(dict(state)),
    "whole run": lambda state, model: saved(whole_run(state, model)),
    "whole run, protocol 4": lambda state, model: saved(whole_run(state, model), pickle_protocol=4),
    "whole legacy run": lambda state, model: saved(
        whole_run(state, model), _use_new_zipfile_serialization=False
    ),
    "parallel and compiled": lambda state, model: saved(
        {f"module._orig_mod.{name}": t for name, t in state.items()}
    ),
    "wrapped twice": lambda state, model: saved({"checkpoint": {"model": state, "epoch": 1}}),
    "ema": lambda state, model: saved(
        {"ema": {**{f"module.{k}": v for k, v in state.items()}, "n_averaged": torch.tensor(3)}}
    ),
    "parameters": lambda state, model: saved(
        {name: nn.Parameter(t) if t.is_floating_point() else t for name, t in state.items()}
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_canonical_file(tmp_path: Path, form: str) -> None:
    model = network()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    admitted, found = read(tmp_path, FORMS[form](state, model))
    assert admitted.kind == "state_dict"
    assert_same(found, state)
    # One file for one set of weights, in the library's own layout.
    save_file(dict(sorted(state.items())), tmp_path / "theirs")
    ours = (tmp_path / "canonical").read_bytes()
    length = int.from_bytes(ours[:8], "little")
    assert list(json.loads(ours[8 : 8 + length])) == sorted(state)
    other = tmp_path / "other"
    other.mkdir()
    read(other, saved(state))
    assert (other / "canonical").read_bytes() == ours


def test_an_average_keeps_its_prefix_only_where_all_have_it(tmp_path: Path) -> None:
    state = {"module.a": torch.rand(2), "b": torch.rand(2)}
    assert sorted(read(tmp_path, saved(state))[1]) == ["b", "module.a"]


ODD: dict[str, Callable[[], State]] = {
    "channels_last": lambda: {"w": torch.rand(7, 5, 3, 3).to(memory_format=torch.channels_last)},
    "transposed": lambda: {"w": torch.rand(5, 7).T},
    "a view with an offset": lambda: {"w": torch.rand(10, 4)[2:5, 1:3]},
    "every second": lambda: {"w": torch.arange(20.0)[1::2]},
    "permuted": lambda: {"w": torch.rand(2, 3, 4, 5).permute(3, 1, 0, 2)},
    "tied": lambda: (lambda t: {"a": t, "b": t})(torch.rand(3, 3)),
    "two views of one storage": lambda: (lambda t: {"a": t[:2], "b": t[2:]})(torch.rand(4, 3)),
    "empty": lambda: {"a": torch.empty(0, 3), "b": torch.empty(0), "c": torch.rand(1)},
    "scalars": lambda: {"a": torch.tensor(3), "b": torch.tensor(1.5, dtype=torch.float64)},
    "sides of one": lambda: {"a": torch.rand(1, 4, 1).expand(1, 4, 1), "b": torch.rand(3)[None, :, None]},
    "bf16 and fp16": lambda: {"a": torch.rand(9).bfloat16(), "b": torch.rand(9).half()},
    "integers": lambda: {
        str(dtype).removeprefix("torch."): torch.arange(5).to(dtype)
        for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    },
    "NaN payloads": lambda: {"a": torch.tensor([float("nan"), float("inf"), -0.0])},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("case", ODD)
def test_strides_views_and_types(tmp_path: Path, case: str, legacy: bool) -> None:
    state = ODD[case]()
    content = saved(state, _use_new_zipfile_serialization=not legacy)
    assert_same(read(tmp_path, content)[1], torch.load(io.BytesIO(content), weights_only=True))


def test_class_names_are_found(tmp_path: Path) -> None:
    content = saved({"model": {"w": torch.rand(2)}, "class_names": ["cat", "dog"]})
    assert read(tmp_path, content)[0].class_names == ["cat", "dog"]


def test_several_networks_are_named(tmp_path: Path) -> None:
    content = saved({"model": {"w": torch.zeros(2)}, "ema": {"w": torch.ones(2)}})
    admitted, found = read(tmp_path, content)
    assert found["w"].tolist() == [0, 0]
    assert "several networks" in admitted.warnings[0]


def test_a_course_file(tmp_path: Path) -> None:
    value = {
        "cnn.0.weight": (np.float64(-1.0), np.float64(1.0), np.arange(6, dtype=np.uint8).reshape(2, 3)),
        "fc.weight": np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
        "count": np.float64(4),
    }
    for protocol in (2, 3, 4, 5):
        admitted, found = read(tmp_path, pickle.dumps(value, protocol=protocol))
        assert admitted.kind == "course"
        assert admitted.encodings == {
            "cnn.0.weight": {"name": "minmax", "bits": 8, "minimum": -1.0, "maximum": 1.0},
            "fc.weight": {"name": "fp16"},
        }
        assert found["cnn.0.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert found["fc.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert found["count"].item() == 4


def test_nothing_but_the_standard_library_is_loaded() -> None:
    import subprocess

    code = "import sys; before = set(sys.modules); import worker.gate; print(*(set(sys.modules) - before))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    foreign = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    assert foreign == {"worker"}
    assert {name for name in loaded if name.startswith("worker")} <= {"worker", "worker.whole_files"} | {
        name for name in loaded if name.startswith("worker.gate")
    }
