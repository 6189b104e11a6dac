"""Another probability of dropout, for as long as a step trains."""

import pytest
from torch import nn

from tests.worker.fakes import make_run
from worker.training.dropout import dropout_probability


def _network() -> nn.Sequential:
    return nn.Sequential(nn.Dropout(0.2), nn.Conv2d(3, 3, 1), nn.Dropout2d(0.5))


def test_it_holds_within_the_block_alone(tmp_path):
    network = _network()
    with dropout_probability(network, 0.0, make_run(tmp_path)):
        assert (network[0].p, network[2].p) == (0.0, 0.0)
    assert (network[0].p, network[2].p) == (0.2, 0.5)


def test_none_leaves_each_layers_own(tmp_path):
    network = _network()
    with dropout_probability(network, None, make_run(tmp_path)):
        assert (network[0].p, network[2].p) == (0.2, 0.5)


def test_it_is_put_back_after_an_error(tmp_path):
    network = _network()
    with pytest.raises(KeyError), dropout_probability(network, 0.9, make_run(tmp_path)):
        raise KeyError
    assert (network[0].p, network[2].p) == (0.2, 0.5)


def test_a_network_without_dropout_says_that_it_is_ignored(tmp_path):
    run = make_run(tmp_path)
    with dropout_probability(nn.Linear(1, 1), 0.3, run):
        pass
    assert any("dropout 0.3 is ignored" in message for message in run.reporter.logs())
