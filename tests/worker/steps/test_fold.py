"""Batch norms gone, outputs as they were."""

import torch

from app.spec.steps.fold import Fold
from models.architectures import create_network
from tests.worker.fakes import make_run
from worker.steps import fold


def apply(name: str, tmp_path, **options):
    network = create_network(name, num_classes=5, image_size=32, seed=0, **options)
    with torch.no_grad():  # statistics as after a training
        network(torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    run = make_run(tmp_path)
    return network.eval(), fold.apply(network, Fold(method="fold"), run), run


def test_every_norm_goes_and_the_outputs_stay(tmp_path):
    network, folded, run = apply("cifar/resnet20", tmp_path)
    assert not any(layer["type"] == "BatchNorm2d" for layer in folded.graph["layers"].values())
    norms = [name for name, layer in network.graph["layers"].items() if layer["type"] == "BatchNorm2d"]
    assert [row["norm"] for row in run.details["folded"]] == norms
    assert run.details["kept"] == []
    assert run.reporter.values("folded_norms") == [len(norms)]
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(folded(images), network(images), atol=1e-4, rtol=1e-4)


def test_what_stays_is_named_with_the_reason(tmp_path):
    """densenet normalises before it convolves: only the norms between two convolutions go."""
    _, _, run = apply("densenet121", tmp_path)
    folded, kept = run.details["folded"], run.details["kept"]
    assert len(folded) + len(kept) == 121
    assert all(row["into"].endswith(("conv0", "conv1")) for row in folded)
    assert any("follows 'cat'" in row["reason"] for row in kept)


def test_a_network_without_norms_says_so(tmp_path):
    network, folded, run = apply("squeezenet1_1", tmp_path)
    assert run.reporter.logs() == ["No batch norm was folded: it has none."]
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), folded.state_dict().values(), strict=True)
    )
