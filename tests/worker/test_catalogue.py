"""`app/planning/architectures.json` tells what the builders build."""

import json
from typing import Any

import pytest
from torchvision.models import get_model_weights

from models.architectures import ARCHITECTURES
from worker import catalogue

FAST = [name for name in ARCHITECTURES if name.startswith(("report/", "course/"))]
FAST += ["cifar/resnet20", "resnet18", "vit_b_16"]
TORCHVISION = [name for name, a in ARCHITECTURES.items() if a.family.startswith("torchvision/")]


def published() -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in json.loads(catalogue.PATH.read_text())}


def test_the_file_lists_every_architecture_in_order() -> None:
    """No name is missing, none is left over."""
    assert list(published()) == list(ARCHITECTURES)


@pytest.mark.parametrize("name", FAST)
def test_the_file_is_fresh(name: str) -> None:
    """What is written is what would be written now."""
    assert published()[name] == json.loads(json.dumps(catalogue.entry(ARCHITECTURES[name])))


def test_the_file_has_the_reports_figures() -> None:
    """The first row a user looks for."""
    final = published()["report/final"]
    assert (final["parameters"], final["macs"], final["size_bytes_fp32"]) == (120_859, 41_888_768, 483_436)
    assert (final["num_classes"], final["image_size"]) == (11, 64)


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_file_agrees_with_torchvision(name: str) -> None:
    """Parameters, and multiply-adds in 10^9, are those published with the weights."""
    meta = next(iter(get_model_weights(name))).meta
    entry = published()[name]
    assert entry["macs"] / 1e9 == pytest.approx(meta["_ops"], abs=0.0006)
    if name != "inception_v3":  # published with its auxiliary classifier
        assert entry["parameters"] == meta["num_params"]


def test_check_tells_fresh_from_stale(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """`--check` passes on what was just written, and fails when a byte differs or the file is gone."""
    monkeypatch.setattr(catalogue, "ARCHITECTURES", {"report/final": ARCHITECTURES["report/final"]})
    monkeypatch.setattr(catalogue, "PATH", tmp_path / "architectures.json")
    with pytest.raises(SystemExit, match="stale"):
        catalogue.main(["--check"])
    catalogue.main([])
    catalogue.main(["--check"])
    catalogue.PATH.write_text(catalogue.PATH.read_text().replace("120859", "120860"))
    with pytest.raises(SystemExit, match="stale"):
        catalogue.main(["--check"])
