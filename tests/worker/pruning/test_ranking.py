"""From scores to units: orders, floors, multiples, amounts."""

import pytest
import torch

from models import layer_table
from models.architectures import create_network
from models.channels import analyse
from tests.worker.training.small import small_network
from worker.pruning import ranking
from worker.pruning.carving import Carving


@pytest.fixture(scope="module")
def network():
    return small_network()


def candidates_of(network, scores, *, min_channels=1, round_to=1):
    groups = {group.name: group for group in analyse(network).groups}
    return [
        ranking.candidate(
            groups[name],
            torch.tensor(values, dtype=torch.float64),
            original_units=groups[name].num_units,
            min_channels=min_channels,
            round_to=round_to,
        )
        for name, values in scores.items()
    ]


SCORES = {
    "stem": [5.0, 1.0, 4.0, 2.0, 3.0, 6.0],
    "wide": [0.5, 0.1, 0.2, 0.9, 0.8, 0.7, 0.3, 0.4, 0.6, 1.0],
}


def test_local_ranks_each_group_by_itself(network):
    found = ranking.scopes(candidates_of(network, SCORES), "local", network)
    assert ranking.by_keep_rate(found, 0.7, 1) == [
        ("stem", 1),
        ("stem", 3),
        ("wide", 1),
        ("wide", 2),
        ("wide", 6),
    ]


def test_global_compares_all_and_keeps_the_floor(network):
    """`wide` is weaker everywhere and would vanish; it keeps three channels, and `stem` gives the rest."""
    candidates = candidates_of(network, SCORES, min_channels=3)
    found = ranking.scopes(candidates, "global", network)
    removal = ranking.as_removal(ranking.by_keep_rate(found, 0.5, 1), candidates)
    assert removal == {"stem": [1], "wide": [0, 1, 2, 5, 6, 7, 8]}
    everything = ranking.as_removal(ranking.in_order(found), candidates)
    assert {name: len(units) for name, units in everything.items()} == {"stem": 3, "wide": 7}


def test_isomorphic_compares_groups_of_the_same_structure():
    """resnet18's blocks of one stage: two inner convolutions are alike, the added channels are another structure."""
    network = create_network("resnet18", num_classes=3, image_size=32, seed=0)
    groups = {group.name: group for group in analyse(network).groups}
    alike = [ranking.structure(groups[f"layer{n}.{b}.conv1"], network) for n in (1, 3) for b in (0, 1)]
    assert len(set(alike)) == 1
    assert ranking.structure(groups["conv1"], network) != alike[0]
    found = ranking.scopes(
        [
            ranking.candidate(
                group, torch.rand(group.num_units), original_units=group.num_units, min_channels=1, round_to=1
            )
            for group in groups.values()
        ],
        "isomorphic",
        network,
    )
    sizes = sorted(scope.num_units for scope in found)
    assert 2 * (64 + 128 + 256 + 512) in sizes


def test_units_takes_exactly_so_many_of_the_weakest(network):
    found = ranking.scopes(candidates_of(network, SCORES), "global", network)
    assert ranking.in_order(found)[:3] == [("wide", 1), ("wide", 2), ("wide", 6)]


def test_keep_rate_is_rounded_down_once_from_the_original(network):
    """10 * 0.9^2 is 8.1; a group that lost one unit before loses one more."""
    scores = {"wide": SCORES["wide"]}
    found = ranking.scopes(candidates_of(network, scores), "local", network)
    assert len(ranking.by_keep_rate(found, 0.9, 2)) == 2
    # 0.29 * 100 is 28.999999999999996: what was meant is 29.
    found[0].original_units = found[0].num_units = 100
    found[0].removable = [("wide", n) for n in range(99)]
    assert len(ranking.by_keep_rate(found, 0.29, 1)) == 71


def test_round_to_keeps_multiples_and_never_less_than_the_floor(network):
    candidates = candidates_of(network, SCORES, round_to=4)
    removal = ranking.as_removal([("wide", 1)], candidates)
    assert removal == {"wide": [1, 2]}  # 9 would be left, 8 are
    removal = ranking.as_removal([("wide", n) for n in range(8)], candidates)
    assert 10 - len(removal["wide"]) == 4  # not 0
    assert ranking.as_removal([("stem", 1)], candidates) == {"stem": [1, 3]}


def test_equal_scores_go_in_their_order(network):
    candidates = candidates_of(network, {"stem": [1.0] * 6})
    assert ranking.as_removal([("stem", n) for n in range(2)], candidates) == {"stem": [0, 1]}


def test_the_shortest_prefix_that_fits():
    order = [("a", n) for n in range(10)]
    assert ranking.shortest(order, lambda units: len(units) >= 7) == order[:7]
    assert ranking.shortest(order, lambda units: True) == []
    assert ranking.shortest(order, lambda units: False) is None


def test_a_target_is_spread_linearly_or_in_equal_shares():
    linear = [ranking.spread(100, 25, k, 3, "linear") for k in (1, 2, 3)]
    assert linear == pytest.approx([75, 50, 25])
    geometric = [ranking.spread(100, 25, k, 2, "geometric") for k in (1, 2)]
    assert geometric == pytest.approx([50, 25])


def half_of_everything(carving):
    return {
        group.name: list(range(0, group.num_units - 1, 2))
        for group in carving.groups()
        if group.num_units > 1
    }


@pytest.mark.parametrize("name", ["course/studentnet", "resnet18", "shufflenet_v2_x0_5"])
def test_counts_are_those_of_the_layer_table(name):
    """Without making the network; the table walks the graph that was really made."""
    carving = Carving(create_network(name, num_classes=3, image_size=32, seed=0).eval())
    removal = half_of_everything(carving)
    expected = carving.count(removal)
    carving.remove(removal)
    table = layer_table(carving.network)
    assert expected == {"parameters": table["parameters"], "macs": table["macs"]}
    assert carving.count({}) == expected


@pytest.mark.parametrize("name", ["small", "resnet18", "shufflenet_v2_x0_5"])
def test_cutting_twice_is_cutting_once(name):
    """Down to one channel a layer, in three cuts: the weights are those of the original's channels that are left, which
    `narrow` alone would have kept."""
    network = (
        small_network() if name == "small" else create_network(name, num_classes=3, image_size=32, seed=0)
    )
    carving = Carving(network.eval())
    for removal in (half_of_everything(carving), None, None):
        removal = removal or {
            group.name: list(range(group.num_units - 1, (group.num_units + 1) // 3, -1))
            for group in carving.groups()
        }
        carving.remove({name: sorted(units) for name, units in removal.items()})
    carving.remove({group.name: list(range(1, group.num_units)) for group in carving.groups()})
    assert {group.num_units for group in carving.groups()} == {1}
    cut = carving.cut_alike(network.state_dict())
    for name, tensor in carving.network.state_dict().items():
        assert torch.equal(tensor, cut[name]), name
    again = Carving(network)
    again.restore(carving.left, carving.network.state_dict())
    images = torch.rand(2, *network.input_shape)
    with torch.no_grad():
        assert torch.equal(again.network(images), carving.network(images))


def test_weights_of_another_network_are_refused(network):
    other = create_network("course/studentnet", num_classes=3, image_size=32, seed=0)
    with pytest.raises(ValueError, match="shapes differ"):
        Carving(network).cut_alike(other.state_dict())
