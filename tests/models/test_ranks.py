"""Which ranks are kept: hand-worked cases, and all choices tried one by one."""

import itertools

import pytest
import torch

from models.factorisation import Options
from models.ranks import BudgetTooSmallError, by_budget, by_energy, by_parameters


def make_options(parameters: list[int], energy: list[float]) -> Options:
    ranks = torch.arange(1, len(parameters) + 1)[:, None]
    return Options(ranks, torch.tensor(parameters), torch.tensor(energy, dtype=torch.float64))


def spectrum(*singular: float) -> Options:
    """A matrix layer, 10 parameters a rank."""
    squares = torch.tensor(singular, dtype=torch.float64).square()
    return make_options(
        [10 * (n + 1) for n in range(len(singular))], (squares.cumsum(0) / squares.sum()).tolist()
    )


def test_energy_takes_the_fewest_parameters_that_keep_the_share():
    """3, 2, 1: the squares 9, 4, 1 of 14."""
    options = spectrum(3, 2, 1)
    assert [by_energy(options, share) for share in (0.5, 9 / 14, 0.65, 13 / 14, 0.95, 1.0)] == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]
    assert by_energy(make_options([30, 20, 40], [0.9, 0.9, 1.0]), 0.8) == 1


def test_parameters_take_the_most_energy_that_fits():
    options = spectrum(3, 2, 1)
    assert [by_parameters(options, most) for most in (9, 10, 29, 30)] == [None, 0, 1, 2]


def total(layers, chosen) -> int:
    return sum(
        whole if index is None else int(options.parameters[index])
        for (options, whole), index in zip(layers, chosen, strict=True)
    )


def kept(layers, chosen) -> float:
    return sum(
        1.0 if index is None else float(options.energy[index])
        for (options, _), index in zip(layers, chosen, strict=True)
    )


def test_the_budget_goes_where_it_keeps_most():
    """The first layer's second rank keeps 0.1 for 10 parameters, the second layer's 0.5."""
    layers = [(make_options([10, 20], [0.8, 0.9]), 25), (make_options([10, 20], [0.4, 0.9]), 25)]
    assert by_budget(layers, 20) == [0, 0]
    assert by_budget(layers, 30) == [0, 1]
    assert by_budget(layers, 50) == [None, None]
    assert by_budget([(make_options([30], [1.0]), 25)], 25) == [None], "no option is smaller than the layer"


def test_a_budget_below_the_smallest_options_names_them():
    with pytest.raises(BudgetTooSmallError) as error:
        by_budget([(spectrum(3, 2, 1), 25), (spectrum(1, 1), 15)], 19)
    assert error.value.smallest == 20


def test_the_budget_is_met_and_nearly_the_best():
    """Against all choices of three layers with spectra of their own: never above the budget, and at most one step of one
    layer worse than the best."""
    generator = torch.Generator().manual_seed(0)
    for case in range(20):
        layers = []
        for _ in range(3):
            singular = torch.rand(5, generator=generator, dtype=torch.float64).sort(descending=True).values
            layers.append((spectrum(*singular.tolist()), int(torch.randint(25, 60, (), generator=generator))))
        budget = int(torch.randint(30, 150, (), generator=generator))
        chosen = by_budget(layers, budget)
        assert total(layers, chosen) <= budget, case
        choices = [
            choice
            for choice in itertools.product([None, 0, 1, 2, 3, 4], repeat=3)
            if total(layers, choice) <= budget
        ]
        best = max(kept(layers, choice) for choice in choices)
        steps = [float(options.energy.diff().max()) for options, _ in layers]
        assert best - max(steps) <= kept(layers, chosen) <= best + 1e-9, case
        # Nothing that is left over would have bought a better option of one layer.
        for layer in range(len(layers)):
            for other in [None, *range(5)]:
                changed = [*chosen[:layer], other, *chosen[layer + 1 :]]
                if total(layers, changed) <= budget:
                    assert kept(layers, changed) <= kept(layers, chosen) + 1e-9, (case, layer)
