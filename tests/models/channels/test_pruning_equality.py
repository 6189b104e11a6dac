"""Our own analysis against torch-pruning's, in small; benchmarks/pruning_equality.py does all of it."""

import pytest

from benchmarks.pruning_equality import compare


@pytest.mark.parametrize("criterion", ["l2", "bn_gamma"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_the_same_channels_go_as_in_torch_pruning(name: str, criterion: str) -> None:
    """Half of every layer's: what is left is equal to the bit, so are parameters and MACs."""
    row = compare(name, criterion, 0.5, 32)
    assert row.different == []
    assert row.channels_removed == row.channels_removed_theirs > 0
    assert (row.parameters, row.macs) == (row.parameters_theirs, row.macs_theirs)
