"""Layers as chains of smaller ones: the size that was asked for, and the nearest network of that size."""

import copy

import pytest
import torch
from pydantic import ValidationError

from app.errors import Problem
from app.spec.steps.factorise import Factorise
from models import layer_table
from models.architectures import create_network
from tests.worker.fakes import PREPROCESSING, make_run, stop_at
from worker.run import Stopped
from worker.steps import factorise


@pytest.fixture(scope="module")
def plain():
    """report/plain, each weight of at most rank 6 in every unfolding, plus a little noise: as trained ones nearly are."""
    network = create_network("report/plain", num_classes=11, seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.dim() >= 2:
            out, into = (torch.randn(n, min(n, 6), generator=generator) for n in tensor.shape[:2])
            core = torch.randn(out.shape[1], into.shape[1], *tensor.shape[2:], generator=generator)
            low = torch.einsum("rs...,or,is->oi...", core, out, into)
            tensor.copy_(0.1 * low / low.std() + 0.005 * torch.randn(tensor.shape, generator=generator))
    network.preprocessing = dict(PREPROCESSING)
    return network


def apply(network, tmp_path, **fields):
    run = make_run(tmp_path)
    return factorise.apply(network, Factorise(method="factorise", **fields), run), run


def logits(network):
    images = torch.randn(4, *network.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return network(images)


def num_parameters(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


SCHEMES = {"svd": 2, "spatial_svd": 7, "tucker2": 7, "auto": 9}


@pytest.mark.parametrize(("scheme", "num_layers"), SCHEMES.items())
def test_the_rows_add_up(plain, tmp_path, scheme, num_layers):
    """A row or a reason for each convolution and linear layer; the parameters saved are those of the network; the error is
    that of the weights."""
    made, run = apply(plain, tmp_path, scheme=scheme, ratio=0.6)
    rows, skipped = run.details["layers"], run.details["skipped"]
    assert len(rows) == num_layers
    assert len(rows) + len(skipped) == 9
    saved = sum(row["parameters_before"] - row["parameters_after"] for row in rows)
    assert (
        num_parameters(plain) - num_parameters(made)
        == saved
        == num_parameters(plain) - layer_table(made)["parameters"]
    )
    for row in rows:
        assert row["parameters_after"] <= 0.6 * row["parameters_before"]
        pieces = made.get_submodule(row["layer"])
        assert sum(p.numel() for p in pieces.parameters()) == row["parameters_after"]
    chosen = {row["layer"] for row in rows}
    for name, tensor in plain.state_dict().items():
        if name.rpartition(".")[0] not in chosen:
            assert torch.equal(made.state_dict()[name], tensor), name


def test_energy_keeps_what_it_says_with_the_fewest_ranks(plain, tmp_path):
    """The kept share is 1 - error²; LAPACK's singular values say that one rank less would not do."""
    _, run = apply(plain, tmp_path, energy=0.99)
    assert len(run.details["layers"]) >= 7
    for row in run.details["layers"]:
        assert 1 - row["relative_error"] ** 2 >= 0.99 - 1e-9
        if row["scheme"] == "svd":
            squares = torch.linalg.svdvals(plain.state_dict()[row["layer"] + ".weight"].double()).square()
            shares = squares.cumsum(0) / squares.sum()
            assert shares[row["rank"][0] - 2] < 0.99 <= shares[row["rank"][0] - 1]


def test_more_energy_means_nearer_outputs(plain, tmp_path):
    exact = logits(plain)
    errors = [(logits(apply(plain, tmp_path, energy=e)[0]) - exact).norm().item() for e in (0.5, 0.9, 0.99)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.3 * exact.norm().item()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_budget_is_met(plain, tmp_path, share):
    """Never above, and near it; the whole of it is the network's parameters, norms included."""
    budget = int(share * num_parameters(plain))
    made, _ = apply(plain, tmp_path, budget=budget)
    assert 0.97 * budget <= num_parameters(made) <= budget


def test_a_budget_chooses_better_than_one_ratio(plain, tmp_path):
    """At the size that ratio 0.5 gives, the shares of energy that the greedy choice keeps sum to more."""
    same, run = apply(plain, tmp_path, ratio=0.5)
    _, budgeted = apply(plain, tmp_path, budget=num_parameters(same))

    def lost(details):
        return sum(row["relative_error"] ** 2 for row in details["layers"])

    assert lost(budgeted.details) < lost(run.details)


def test_a_budget_above_changes_nothing_and_says_so(plain, tmp_path):
    made, run = apply(plain, tmp_path, budget=num_parameters(plain))
    assert torch.equal(logits(made), logits(plain))
    assert "No layer was factorised" in run.reporter.logs()[0]


def test_a_budget_below_the_smallest_names_it(plain, tmp_path):
    with pytest.raises(Problem, match="BUDGET_TOO_SMALL") as problem:
        apply(plain, tmp_path, budget=100)
    smallest = next(
        int(word.rstrip(","))
        for word in problem.value.detail.split()
        if word.rstrip(",").isdigit() and int(word.rstrip(",")) > 100
    )
    made, _ = apply(plain, tmp_path, budget=smallest)
    assert num_parameters(made) == smallest
    with pytest.raises(Problem, match="BUDGET_TOO_SMALL"):
        apply(plain, tmp_path, budget=smallest - 1)


def test_a_rank_above_the_possible_is_refused_by_name(plain, tmp_path):
    """The last layer, 128 to 11, has rank 11 at most."""
    with pytest.raises(Problem, match="RANK_TOO_LARGE") as problem:
        apply(plain, tmp_path, rank=12, layers=["head.*"])
    assert problem.value.status == 422
    assert "rank 12 is above 11, the largest that head.fc2" in problem.value.detail
    _, run = apply(plain, tmp_path, rank=11, layers=["head.*"])
    assert [row["layer"] for row in run.details["layers"]] == ["head.fc1"]
    assert "instead of 1419" in run.details["skipped"][0]["reason"]


def test_grouped_convolutions_stay(tmp_path):
    network = create_network("course/studentnet", num_classes=11, image_size=32, seed=0).eval()
    made, run = apply(network, tmp_path, ratio=0.5)
    rows = {row["layer"]: row for row in run.details["layers"]}
    for name, entry in network.graph["layers"].items():
        if entry["type"] == "Conv2d":
            assert (name in rows) == (entry["arguments"]["groups"] == 1), name
    assert {row["scheme"] for row in rows.values()} == {"svd", "tucker2"}
    assert all("groups" in row["reason"] for row in run.details["skipped"])
    assert logits(made).isfinite().all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "not none"),
        ({"energy": 0.9, "rank": 4}, "energy and rank"),
        ({"ratio": 1.0}, "less than 1"),
        ({"rank": 0}, "1"),
    ],
)
def test_exactly_one_measure_is_taken(fields, message):
    with pytest.raises(ValidationError, match=message):
        Factorise(method="factorise", **fields)


def test_nan_is_refused_by_name(plain, tmp_path):
    broken = copy.deepcopy(plain)
    broken.state_dict()["features.conv2.weight"].view(-1)[0] = float("nan")
    with pytest.raises(Problem, match="WEIGHT_NOT_FINITE") as problem:
        apply(broken, tmp_path, ratio=0.5, layers=["*.conv2"])
    assert "'features.conv2'" in problem.value.detail


def test_it_stops_when_asked(plain, tmp_path):
    run = make_run(tmp_path, stop_requested=stop_at(3, "preempt"))
    with pytest.raises(Stopped):
        factorise.apply(plain, Factorise(method="factorise", ratio=0.5), run)
