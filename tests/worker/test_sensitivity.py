"""What each layer bears, against a network that is changed by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import models
from models import Network
from models.architectures import create
from tests.worker import tiny
from worker import sensitivity
from worker.run import Stopped
from worker.sensitivity import Sensitivity

NUM_IMAGES = 70


def network() -> Network:
    torch.manual_seed(3)
    made = models.as_network(
        create(tiny.TEACHER, num_classes=2, image_size=tiny.SIDE), torch.zeros(1, 3, tiny.SIDE, tiny.SIDE)
    )
    made.preprocessing = tiny.PREPROCESSING
    with torch.no_grad():
        made.get_submodule("head.fc").weight.mul_(100)  # untrained, it would hardly tell two images apart
    return made.eval()


def images() -> tuple[torch.Tensor, torch.Tensor]:
    labels_N = torch.arange(NUM_IMAGES) % 2
    return torch.stack([tiny._pixels(label, n) for n, label in enumerate(labels_N.tolist())]), labels_N


def measured(
    folder: Path,
    made: Network | None = None,
    check_stop: Callable[[], None] = lambda: None,
    heard: list[tuple[int, int]] | None = None,
) -> dict[str, Any]:
    images_NCHW, labels_N = images()
    measuring = Sensitivity(
        made or network(), images_NCHW, labels_N, split="val", kept=folder / "kept.json", key="a"
    )
    return measuring.measure(
        check_stop, lambda done, total, eta: heard.append((done, total)) if heard is not None else None
    )


@torch.no_grad()
def by_hand(change: Callable[[Network], None]) -> dict[str, float]:
    """Accuracy, and KL by its definition, of a network with one layer changed."""
    images_NCHW, labels_N = images()
    normal_NCHW = models.normalise(images_NCHW, tiny.PREPROCESSING)
    changed = network()
    change(changed)
    before_NC, after_NC = network()(normal_NCHW).double(), changed(normal_NCHW).double()
    p_NC, q_NC = F.softmax(before_NC, 1), F.softmax(after_NC, 1)
    return {
        "accuracy": (after_NC.argmax(1) == labels_N).double().mean().item(),
        "divergence": (p_NC * (p_NC / q_NC).log()).sum(1).mean().item(),
    }


def close(found: dict[str, float]) -> dict[str, Any]:
    return {name: pytest.approx(value, rel=1e-4, abs=1e-7) for name, value in found.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return measured(tmp_path_factory.mktemp("sensitivity"))


def test_every_layer_with_weights_has_a_row(whole: dict[str, Any]) -> None:
    kinds = [
        name
        for name, module in network().named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    ]
    assert sorted(row["layer"] for row in whole["layers"]) == sorted(kinds)
    assert (whole["split"], whole["num_images"]) == ("val", NUM_IMAGES)


def test_four_bits_are_sixteen_levels_from_minimum_to_maximum(whole: dict[str, Any]) -> None:
    """Worked out with plain arithmetic, for the first and the last layer."""
    for row in (whole["layers"][0], whole["layers"][-1]):

        def in_sixteen_levels(changed: Network, layer: str = row["layer"]) -> None:
            weight = changed.get_submodule(layer).weight
            low, high = weight.min(), weight.max()
            step = (high - low) / 15
            weight.data = low + ((weight.data - low) / step).round() * step

        assert row["quantized"] == close(by_hand(in_sixteen_levels))


def test_a_quarter_of_the_channels_is_silent(whole: dict[str, Any]) -> None:
    """Those with the smallest norm, their bias too; a convolution that is not the last layer."""
    row = whole["layers"][2]

    def without_the_weakest(changed: Network) -> None:
        layer = changed.get_submodule(row["layer"])
        norms = [(float(channel.square().sum()), k) for k, channel in enumerate(layer.weight.data)]
        for _, k in sorted(norms)[: len(norms) // 4]:
            layer.weight.data[k] = 0
            layer.bias.data[k] = 0

    assert row["pruned"] == close(by_hand(without_the_weakest))
    assert row["pruned"]["divergence"] > 0


def test_the_channels_of_the_last_layer_are_the_classes(whole: dict[str, Any]) -> None:
    """Without some of them it would answer another question: only its bits are tried."""
    assert whole["layers"][-1]["pruned"] is None
    assert all(row["pruned"] is not None for row in whole["layers"][:-1])


def test_the_network_is_left_as_it_was(tmp_path: Path) -> None:
    made = network()
    before = models.network_digest(made)
    measured(tmp_path, made)
    assert models.network_digest(made) == before


def test_it_goes_on_where_it_was_killed(tmp_path: Path, whole: dict[str, Any]) -> None:
    """The finished layers are not measured again, and the end is the same."""
    calls = 0

    def dies() -> None:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, check_stop=dies)
    kept = json.loads((tmp_path / "kept.json").read_text())["rows"]
    assert 0 < len(kept) < len(whole["layers"])
    heard: list[tuple[int, int]] = []
    assert measured(tmp_path, heard=heard) == whole
    assert heard[0] == (len(kept) + 1, len(whole["layers"]))
    assert heard[-1] == (len(whole["layers"]), len(whole["layers"]))


def test_what_was_kept_of_another_network_is_not_taken(tmp_path: Path, whole: dict[str, Any]) -> None:
    kept = {"key": "b", "rows": [{"layer": "another"}]}
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    assert measured(tmp_path) == whole


def test_a_stop_ends_it_and_leaves_the_network_whole(tmp_path: Path) -> None:
    made, asked = network(), []
    before = models.network_digest(made)

    def stop() -> None:
        asked.append(1)
        if len(asked) > 3:
            raise Stopped("cancel")

    with pytest.raises(Stopped):
        measured(tmp_path, made, check_stop=stop)
    assert models.network_digest(made) == before


def test_a_large_split_is_asked_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evenly spaced, so that a split in the order of its classes has all of them."""
    monkeypatch.setattr(sensitivity, "MOST_IMAGES", 10)
    images_NCHW, labels_N = images()
    ordered = labels_N.argsort(stable=True)
    measuring = Sensitivity(
        network(), images_NCHW[ordered], labels_N[ordered], split="val", kept=tmp_path / "k", key="a"
    )
    assert measuring._labels_N.tolist() == [0] * 5 + [1] * 5
