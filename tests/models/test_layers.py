"""The layer table, against figures worked by hand and from papers."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

import models
from tests.models.conftest import SmallNet


def _table(module: nn.Module, side: int = 16) -> dict:
    return models.layer_table(models.as_network(module, torch.rand(2, 3, side, side)))


def _row(table: dict, name: str) -> dict:
    (row,) = [row for row in table["rows"] if row["name"] == name]
    return row


def test_every_row_of_a_small_network_by_hand() -> None:
    table = _table(SmallNet())
    assert _row(table, "stem.0") == {
        "name": "stem.0",
        "type": "Conv2d",
        "output_shape": [8, 16, 16],
        "parameters": 8 * 3 * 9 + 8,
        "macs": 8 * 3 * 9 * 256,
        "share": 224 / table["parameters"],
    }
    assert _row(table, "stem.1")["parameters"] == 16
    assert _row(table, "body")["macs"] == 8 * (8 // 2) * 9 * 256, "groups divide the input channels"
    assert _row(table, "head")["macs"] == 24
    assert _row(table, "scale")["type"] == "Parameter"
    assert table["parameters"] == 224 + 16 + 296 + 27 + 8
    assert table["macs"] == sum(row["macs"] for row in table["rows"])
    assert sum(row["share"] for row in table["rows"]) == pytest.approx(1)


def test_totals_are_the_files_parameters_and_the_published_macs() -> None:
    """ResNet-18 at 224x224: 11,689,512 parameters, 1.814 G multiply-adds (torchvision: 1.81 GFLOPS)."""
    original = torchvision.models.resnet18(weights=None)
    table = _table(original, 224)
    assert table["parameters"] == sum(p.numel() for p in original.parameters()) == 11_689_512
    assert table["macs"] == 1_814_073_344


def test_attention_is_counted() -> None:
    """One block of width E over S tokens: 4 S E² for the projections and 2 S² E for the two products."""
    width, tokens = 16, 17
    vit = torchvision.models.VisionTransformer(16, 4, 1, 2, width, 32, num_classes=3)
    row = _row(_table(vit), "encoder.layers.encoder_layer_0.self_attention")
    assert row["macs"] == 4 * tokens * width**2 + 2 * tokens**2 * width
    assert row["output_shape"] == [tokens, width]
    assert row["parameters"] == 4 * width * width + 4 * width


def test_a_layer_that_is_called_twice_is_one_row() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(self.conv(x)).mean((2, 3)))

    table = _table(Twice())
    row = _row(table, "conv")
    assert row["parameters"] == 3 * 3 * 9 + 3
    assert row["macs"] == 2 * 3 * 3 * 9 * 256


def test_products_of_functions_have_rows() -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(5, 768))

        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.linear(x.flatten(1), self.weight)
            return x.unsqueeze(1).matmul(x.unsqueeze(2)).flatten(1)

    table = _table(Products())
    assert table["macs"] == 5 * 768 + 5
    assert table["parameters"] == 5 * 768


def test_the_table_of_a_large_network_needs_no_memory() -> None:
    """Shapes are worked out on the meta device: VGG-19's 144 million weights are never made."""
    with torch.device("meta"):
        graph = models.trace(torchvision.models.vgg19(weights=None), torch.rand(2, 3, 224, 224))
        table = models.layer_table(models.build(graph))
    assert table["parameters"] == 143_667_240
    assert table["macs"] == 19_632_062_464
