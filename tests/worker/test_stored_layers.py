"""The layer table of a packed file, against the file itself."""

from pathlib import Path

import pytest
import torch

import models
from models.architectures import create
from tests.worker import tiny
from worker.stored_layers import stored_layers


@pytest.fixture(params=[None, {"name": "minmax", "bits": 8}, {"name": "minmax", "bits": 3}])
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The report's student with its tensors as they are, or stored in few bits."""
    torch.manual_seed(0)
    network = models.as_network(
        create(tiny.TEACHER, num_classes=2, image_size=tiny.SIDE), torch.zeros(1, 3, tiny.SIDE, tiny.SIDE)
    )
    if request.param is not None:
        network.encoded = {
            name: models.encode(tensor, request.param)
            for name, tensor in network.state_dict().items()
            if tensor.is_floating_point() and tensor.numel() > 1
        }
        network.load_state_dict(
            network.state_dict() | {name: stored.decode() for name, stored in network.encoded.items()}
        )
    path = tmp_path / "packed.pt"
    models.save(network, path, preprocessing=tiny.PREPROCESSING, class_names=tiny.CLASSES)
    return path


def test_the_bytes_of_layers_are_those_of_the_tensors_in_the_file(packed: Path) -> None:
    """As the file's own index has them, each tensor in one layer and none left over."""
    index = torch.load(packed, weights_only=True)["tensors"]
    rows = stored_layers(packed)
    for row in rows:
        own = [entry["nbytes"] for name, entry in index.items() if name.startswith(f"{row['name']}.")]
        assert row["size_bytes"] == sum(own), row["name"]
    assert sum(row["size_bytes"] for row in rows) == sum(entry["nbytes"] for entry in index.values())


def test_parameters_and_macs_add_up_to_the_network(packed: Path) -> None:
    table = models.layer_table(models.load(packed))
    rows = stored_layers(packed)
    assert [row["name"] for row in rows] == [row["name"] for row in table["rows"]]
    assert sum(row["parameters"] for row in rows) == table["parameters"]
    assert sum(row["macs"] for row in rows) == table["macs"]
