"""The one file: what goes in comes out, the same content gives the same bytes, and lies are refused."""

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import models
from models import trace_network
from tests.models.conftest import CLASS_NAMES, PREPROCESSING

ABOUT: dict[str, Any] = {
    "preprocessing": PREPROCESSING,
    "class_names": CLASS_NAMES,
    "steps": [{"method": "distill", "alpha": 0.8}],
    "metrics": {"test": {"accuracy": 0.5}},
    "digests": {"network": "ab" * 32},
}
IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def _quantized(network: models.Network) -> models.Network:
    """Weights as 8 bits, other floating-point tensors as fp16; the network computes with what is stored."""
    state = network.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            encoded = models.encode(tensor, {"name": "minmax" if tensor.ndim > 1 else "fp16"})
            network.encoded[name] = encoded
            tensor.copy_(encoded.decode())
    return network


def test_a_network_comes_back_with_all_that_was_said_about_it(small: models.Network) -> None:
    loaded = models.load(io.BytesIO(models.pack(small, **ABOUT)))
    assert not loaded.training
    assert torch.equal(loaded(IMAGES), small.eval()(IMAGES))
    assert loaded.preprocessing == PREPROCESSING
    assert loaded.class_names == CLASS_NAMES
    assert loaded.artifact == {"format_version": 1, **ABOUT}
    assert loaded.graph == small.graph
    assert loaded.encoded == {}
    loaded.train()(IMAGES).sum().backward()
    assert loaded.head.weight.grad is not None


def test_encoded_tensors_are_stored_small_and_come_back_exactly(small: models.Network) -> None:
    raw = models.pack(small, **ABOUT)
    network = _quantized(small).eval()
    packed = models.pack(network, **ABOUT)
    loaded = models.load(io.BytesIO(packed))
    assert torch.equal(loaded(IMAGES), network(IMAGES))
    assert loaded.encoded.keys() == network.encoded.keys()
    assert models.pack(loaded, **ABOUT) == packed, "loading and packing again must not change a byte"
    document = torch.load(io.BytesIO(packed), weights_only=True)
    weight = document["tensors"]["body.weight"]
    assert weight["nbytes"] == small.body.weight.numel()
    assert weight["encoding"].keys() == {"name", "bits", "minimum", "maximum"}
    assert len(packed) < len(raw)


def test_a_tensor_changed_after_encoding_is_not_packed(small: models.Network) -> None:
    network = _quantized(small)
    with torch.no_grad():
        network.body.weight.add_(1)
    with pytest.raises(AssertionError, match=r"'body\.weight'"):
        models.pack(network, **ABOUT)


def test_the_file_is_plain_dicts_and_one_tensor(small: models.Network) -> None:
    document = torch.load(io.BytesIO(models.pack(small, **ABOUT)), weights_only=True)
    assert type(document) is dict
    assert [key for key, value in document.items() if isinstance(value, torch.Tensor)] == ["data"]
    assert document["data"].dtype == torch.uint8
    assert all(entry["offset"] % 8 == 0 for entry in document["tensors"].values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_are_kept(small: models.Network, dtype: torch.dtype) -> None:
    loaded = models.load(io.BytesIO(models.pack(small.to(dtype), **ABOUT)))
    assert loaded.head.weight.dtype == dtype
    assert torch.equal(loaded.head.weight, small.head.weight)


_PACK = """
import hashlib, sys, torch
import models
from tests.models.conftest import CLASS_NAMES, PREPROCESSING, SmallNet
torch.manual_seed(0)
network = models.as_network(SmallNet(), torch.rand(2, 3, 16, 16))
metrics = {"b": 1.0, "a": 2.0} if sys.argv[1] == "0" else {"a": 2.0, "b": 1.0}
packed = models.pack(network, preprocessing=PREPROCESSING, class_names=CLASS_NAMES, metrics=metrics)
print(hashlib.sha256(packed).hexdigest(), models.network_digest(network))
"""


def test_two_processes_write_the_same_bytes() -> None:
    """Whatever the hash seed, and whatever order the metrics were put in."""
    answers = []
    for seed in ("0", "1"):
        environment = {"PYTHONHASHSEED": seed, "PATH": ""}
        command = [sys.executable, "-c", _PACK, seed]
        answers.append(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
    assert answers[0] == answers[1]
    assert len(answers[0].split()) == 2


def test_the_digest_is_of_values_not_of_how_they_are_stored(small: models.Network) -> None:
    network = _quantized(small)
    digest = models.network_digest(network)
    network.encoded = {}
    assert models.network_digest(network) == digest
    with torch.no_grad():
        network.head.bias[0] += 1
    assert models.network_digest(network) != digest


def _report_student() -> nn.Module:
    """The report's D1: 120,859 parameters."""
    layers: list[nn.Module] = []
    channels = 3
    for part in (16, 16, "M", 32, 32, "M", 64, 64, "M", 64, "M"):
        if isinstance(part, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, part, 3, padding=1), nn.BatchNorm2d(part), nn.ReLU()]
            channels = part
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 11))


def test_the_file_is_hardly_larger_than_its_numbers() -> None:
    """Random 8-bit weights do not deflate: all beyond them is the format's own, under 3 KB."""
    torch.manual_seed(0)
    network = models.as_network(_report_student(), torch.rand(2, 3, 64, 64))
    assert sum(p.numel() for p in network.parameters()) == 120_859
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim > 1:
            noise = torch.rand(tensor.shape)
            network.encoded[name] = models.encode(noise, {"name": "minmax"})
            tensor.copy_(network.encoded[name].decode())
    packed = models.pack(network, preprocessing=PREPROCESSING, class_names=list("abcdefghijk"))
    document = torch.load(io.BytesIO(packed), weights_only=True)
    assert len(packed) - sum(entry["nbytes"] for entry in document["tensors"].values()) < 3000


def test_large_tensors_that_do_not_deflate_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_network, "_LARGE", 1 << 20)
    module = nn.Sequential(nn.Flatten(), nn.Linear(768, 500), nn.Linear(500, 3))
    network = models.as_network(module, IMAGES)
    compression = {}
    for fill in ("noise", "zeros"):
        if fill == "zeros":
            nn.init.zeros_(network.get_parameter("1.weight"))
        packed = models.pack(network, **ABOUT)
        member = max(zipfile.ZipFile(io.BytesIO(packed)).infolist(), key=lambda info: info.file_size)
        compression[fill] = member.compress_type
        assert torch.equal(models.load(io.BytesIO(packed))(IMAGES), network.eval()(IMAGES))
    assert compression == {"noise": zipfile.ZIP_STORED, "zeros": zipfile.ZIP_DEFLATED}


def _change(name: str, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["tensors"][name].update(fields)


LIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another version": (lambda d: d.update(format_version=2), "format_version is 2"),
    "no version": (lambda d: d.pop("format_version"), "no format_version"),
    "unknown field": (lambda d: d.update(code="import os"), "unknown fields"),
    "missing field": (lambda d: d.pop("digests"), "lacks"),
    "graph": (lambda d: d["graph"]["layers"]["body"].update(type="LSTM"), "'LSTM'"),
    "data of floats": (lambda d: d.update(data=torch.zeros(9)), "flat uint8"),
    "data with stride 0": (
        lambda d: d.update(data=torch.zeros(1, dtype=torch.uint8).expand(10**6)),
        "flat uint8",
    ),
    "missing tensor": (lambda d: d["tensors"].pop("head.bias"), "missing .'head.bias'"),
    "extra tensor": (lambda d: d["tensors"].update(x=d["tensors"]["scale"]), "unexpected"),
    "outside": (_change("head.bias", offset=1 << 40), "tensor 'head.bias': it lies outside"),
    "before the beginning": (_change("head.bias", offset=-8), "outside"),
    "too many bytes": (_change("head.bias", nbytes=13), "its shape needs 12"),
    "another shape": (_change("head.bias", shape=[4]), "the graph's is .3."),
    "another kind": (_change("head.bias", dtype="int32"), "does not fit"),
    "unknown dtype": (_change("head.bias", dtype="complex64"), "unknown"),
    "unknown encoding": (_change("head.bias", encoding={"name": "pickle"}), "'pickle' is unknown"),
    "minmax without minimum": (_change("head.bias", encoding={"name": "minmax", "bits": 8}), "lacks"),
    "minmax of nan": (
        _change("head.bias", encoding={"name": "minmax", "bits": 8, "minimum": float("nan"), "maximum": 1.0}),
        "finite",
    ),
    "integers as fp16": (_change("stem.1.num_batches_tracked", encoding={"name": "fp16"}), "floating-point"),
    "class names": (lambda d: d.update(class_names=["a"]), "class_names"),
    "preprocessing": (lambda d: d["preprocessing"].update(interpolation="lanczos"), "interpolation"),
}


@pytest.mark.parametrize("case", LIES)
def test_a_file_that_lies_is_refused(case: str, small: models.Network) -> None:
    change, message = LIES[case]
    document = torch.load(io.BytesIO(models.pack(small, **ABOUT)), weights_only=True)
    change(document)
    file = io.BytesIO()
    torch.save(document, file)
    file.seek(0)
    with pytest.raises(models.GraphError, match=message):
        models.load(file)


def test_what_is_no_artifact_is_refused(tmp_path: Path, small_module: nn.Module) -> None:
    torch.save(small_module.state_dict(), tmp_path / "state.pt")
    with pytest.raises(models.GraphError, match="plain state_dict"):
        models.load(tmp_path / "state.pt")
    torch.save(small_module, tmp_path / "module.pt")
    with pytest.raises(models.GraphError, match="cannot be opened"):
        models.load(tmp_path / "module.pt")
    (tmp_path / "noise.pt").write_bytes(b"noise" * 100)
    with pytest.raises(models.GraphError, match="cannot be opened"):
        models.load(tmp_path / "noise.pt")
    with pytest.raises(FileNotFoundError):
        models.load(tmp_path / "missing.pt")


def test_save_writes_what_pack_gives(tmp_path: Path, small: models.Network) -> None:
    models.save(small, tmp_path / "model.pt", **ABOUT)
    assert (tmp_path / "model.pt").read_bytes() == models.pack(small, **ABOUT)
