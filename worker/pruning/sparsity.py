"""Penalties that drive whole channels towards 0, so that they can be removed with less harm.

* Network slimming: Liu et al. 2017, https://arxiv.org/abs/1708.06519.
* Group lasso over all that belongs to a channel: Fang et al. 2023 (DepGraph), https://arxiv.org/abs/2301.12900. Changed:
  every channel has the same weight; there, weak ones get a larger one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models import Network
from models.channels import Group
from worker.pruning.criteria import per_unit

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_ROLES = ("out", "in", "norm", "depthwise")


def slimming_penalty(network: Network) -> Tensor:
    """The sum of |gamma| over all batch norms, a scalar; 0 where there is none."""
    gammas = [
        module.weight.abs().sum()
        for module in network.modules()
        if isinstance(module, _BATCH_NORMS) and module.affine
    ]
    return torch.stack(gammas).sum() if gammas else next(network.parameters()).sum() * 0


def group_lasso(network: Network, groups: Sequence[Group]) -> Tensor:
    """The sum over all units of the L2 norm of their weights: filters, what reads them, and norms, a scalar.

    Its gradient at a unit that is exactly 0 is 0.
    """
    parameters = dict(network.named_parameters())
    norms = []
    for group in groups:
        parts = []
        for member in group.members:
            if (
                member.role in _ROLES
                and member.tensor == f"{member.layer}.weight"
                and member.tensor in parameters
            ):
                squares = parameters[member.tensor].square().movedim(member.dim, 0).unsqueeze(-1).flatten(1)
                parts.append(per_unit(squares.sum(dim=1), member))
        squares_U = torch.stack(parts).sum(dim=0)
        # sqrt has no gradient at 0: those units leave the sum.
        norms.append(squares_U[squares_U > 0].sqrt().sum())
    return torch.stack(norms).sum() if norms else next(network.parameters()).sum() * 0
