"""Weights of single epochs that a later step goes back to."""

import pytest
import torch
from torch import nn

from app.errors import Problem
from worker.training.snapshots import load_snapshot, save_snapshot


def test_what_was_saved_comes_back(tmp_path):
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    save_snapshot(tmp_path / "snapshots", 4, network)
    expected = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        network[0].weight.zero_()
    found = load_snapshot(tmp_path / "snapshots", 4)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == ["4.pt"]


def test_an_epoch_that_was_not_kept_is_named_with_those_that_were(tmp_path):
    for epoch in (0, 10):
        save_snapshot(tmp_path, epoch, nn.Linear(1, 1))
    with pytest.raises(Problem, match="SNAPSHOT_MISSING") as problem:
        load_snapshot(tmp_path, 3)
    assert problem.value.status == 422
    assert "epoch 3" in problem.value.detail
    assert "epochs 0, 10" in problem.value.detail
