"""Trained weights as products of smaller ones, so that a layer becomes a chain of cheaper layers.

Linear layers and 1x1 convolutions: truncated SVD (Denton et al. 2014, https://arxiv.org/abs/1404.0736). k x k convolutions:
Tucker-2 (Kim et al. 2016, https://arxiv.org/abs/1511.06530) or spatial SVD (Jaderberg et al. 2014,
https://arxiv.org/abs/1405.3866). Changed: ranks are chosen by energy, by ratio, or for the whole network by a number of
parameters, where the paper of Tucker-2 uses variational Bayes; a layer that would not shrink stays whole.
"""

from typing import Any

from app.errors import Problem
from app.spec.steps.factorise import Factorise
from models import Network
from models.factorisation import Factorisable, Ranks, Unfit, factorisable
from models.ranks import BudgetTooSmallError, by_budget, by_energy, by_parameters
from models.surgery import Piece, replace_layers
from worker.chosen_layers import chosen_layers, require_finite
from worker.run import Run, Stopped

_KINDS = ("Conv2d", "Linear")


def apply(model: Network | None, spec: Factorise, run: Run) -> Network:
    """The network with factorised layers; `details` has a row for each, and for each that stays the reason.

    Raises Problem RANK_TOO_LARGE or BUDGET_TOO_SMALL, naming the layer and the largest rank or the smallest number.
    """
    assert model is not None, "the pipeline gives the network of the step before"
    candidates, skipped = _candidates(model, spec)
    require_finite(model, list(candidates))
    if spec.rank is not None:
        _check_rank(candidates, spec.rank)
    ranks = _budgeted(model, candidates, spec.budget) if spec.budget is not None else {}
    chains: dict[str, list[Piece]] = {}
    rows: list[dict[str, Any]] = []
    for number, (name, layer) in enumerate(candidates.items()):
        if (stop := run.stop_requested()) is not None:
            raise Stopped(stop)
        run.progress(number, len(candidates), "layer")
        chosen = ranks[name] if spec.budget is not None else _ranks(layer, spec)
        if (reason := _reason_to_stay(layer, chosen, spec)) is not None:
            skipped.append({"layer": name, "reason": reason})
            continue
        assert chosen is not None, "no ranks are a reason to stay"
        chains[name], error = layer.chain(chosen)
        rows.append(_row(name, layer, chosen, error))
    run.details["layers"], run.details["skipped"] = rows, skipped
    run.note("factorised_layers", len(rows))
    if not rows:
        first = f": {skipped[0]['layer']}, for one: {skipped[0]['reason']}" if skipped else ""
        run.log(f"No layer was factorised{first}.", "warning")
    return replace_layers(model, chains).eval()


def _candidates(model: Network, spec: Factorise) -> tuple[dict[str, Factorisable], list[dict[str, Any]]]:
    """Convolutions and linear layers that fit the scheme, and the reason why the others do not."""
    fit: dict[str, Factorisable] = {}
    skipped = []
    for name in chosen_layers(model, spec):
        entry = model.graph["layers"][name]
        if entry["type"] not in _KINDS:
            continue
        layer: Any = model.get_submodule(name)
        made = factorisable(entry, layer.weight, layer.bias, spec.scheme)
        if isinstance(made, Unfit):
            skipped.append({"layer": name, "reason": made.reason})
        else:
            fit[name] = made
    return fit, skipped


def _check_rank(candidates: dict[str, Factorisable], rank: int) -> None:
    """Before anything is computed."""
    for name, layer in candidates.items():
        if rank > layer.largest_rank:
            raise Problem(
                422,
                "RANK_TOO_LARGE",
                f"rank {rank} is above {layer.largest_rank}, the largest that {name} ({layer.num_inputs} to "
                f"{layer.num_outputs} channels, {layer.scheme}) has: lower rank or exclude the layer.",
            )


def _ranks(layer: Factorisable, spec: Factorise) -> Ranks | None:
    if spec.rank is not None:
        return layer.ranks(spec.rank)
    options = layer.options()
    if spec.energy is not None:
        index: int | None = by_energy(options, spec.energy)
    else:
        assert spec.ratio is not None, "exactly one measure is given"
        index = by_parameters(options, int(spec.ratio * layer.num_parameters))
    return None if index is None else tuple(options.ranks[index].tolist())


def _budgeted(model: Network, candidates: dict[str, Factorisable], budget: int) -> dict[str, Ranks | None]:
    """The ranks of each layer, None where it stays as it is."""
    fixed = sum(parameter.numel() for parameter in model.parameters())
    fixed -= sum(layer.num_parameters for layer in candidates.values())
    options = {name: layer.options() for name, layer in candidates.items()}
    try:
        indices = by_budget(
            [(options[name], layer.num_parameters) for name, layer in candidates.items()], budget - fixed
        )
    except BudgetTooSmallError as error:
        raise Problem(
            422,
            "BUDGET_TOO_SMALL",
            f"budget {budget} is below {fixed + error.smallest}, the parameters that are left with every layer "
            "at its smallest rank: raise budget, choose more layers, or prune first.",
        ) from error
    return {
        name: None if index is None else tuple(options[name].ranks[index].tolist())
        for name, index in zip(candidates, indices, strict=True)
    }


def _reason_to_stay(layer: Factorisable, ranks: Ranks | None, spec: Factorise) -> str | None:
    if ranks is None and spec.budget is not None:
        return "the budget has room for it as it is"
    if ranks is None:
        return f"even rank 1 has more than {spec.ratio:g} of its parameters"
    size = layer.size(ranks)
    if size < layer.num_parameters:
        return None
    return f"at rank {' and '.join(map(str, ranks))} it would have {size} parameters instead of {layer.num_parameters}"


def _row(name: str, layer: Factorisable, ranks: Ranks, error: float) -> dict[str, Any]:
    return {
        "layer": name,
        "scheme": layer.scheme,
        "rank": list(ranks),
        "parameters_before": layer.num_parameters,
        "parameters_after": layer.size(ranks),
        "relative_error": error,
    }
