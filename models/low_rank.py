"""The best approximations of a weight by smaller ones: SVD, spatial SVD, Tucker-2. Pure functions, in float64 on the CPU.

* SVD (Eckart, Young 1936): the best rank-r matrix in Frobenius norm keeps the r largest singular values. A stack
  of matrices is done one by one.
* Spatial SVD: Jaderberg, Vedaldi, Zisserman 2014, https://arxiv.org/abs/1405.3866, scheme 2 in closed form (Tai et al.
  2016, https://arxiv.org/abs/1511.06067): a k x k kernel as a k x 1 kernel and then a 1 x k one.
* Tucker-2: Kim et al. 2016, https://arxiv.org/abs/1511.06530: a core between bases of the input and of the output channels.
  Begun by HOSVD, improved by HOOI (De Lathauwer, De Moor, Vandewalle 2000).

Bases come from the eigenvectors of a Gram matrix, on the smaller side: on a 4096 x 25088 layer that is a hundred times
cheaper than an SVD. Projecting on an orthonormal basis is exact at full rank, however small a singular value.

Shape letters: O output channels, I input channels, H, W the kernel's height and width, R rank.
"""

import torch
from torch import Tensor


def squared_singular_values(matrix: Tensor) -> Tensor:
    """Of [..., M, N], descending: [..., min(M, N)], in float64."""
    return _eigen(_wide(_exact(matrix)))[1]


def low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """left [..., M, R] and right [..., R, N], whose product is the best approximation of [..., M, N] of that rank.

    Each singular value is divided evenly between the two. The largest entry of each basis vector is positive, so that the
    result does not hang on a library's choice of signs.
    """
    matrix = _exact(matrix)
    wide = _wide(matrix)
    basis = _eigen(wide)[0][..., :rank]
    rest = basis.mT @ wide
    lengths = rest.norm(dim=-1, keepdim=True)
    root = torch.where(lengths > 0, lengths, torch.ones_like(lengths)).sqrt()
    left, right = basis * root.mT, rest / root
    return (left, right) if wide is matrix else (right.mT, left.mT)


def spatial_matrix(weight_OIHW: Tensor) -> Tensor:
    """[I * H, O * W]: its rank-r factors are the r vertical and the r horizontal filters."""
    num_outputs, num_inputs, height, width = weight_OIHW.shape
    return weight_OIHW.permute(1, 2, 0, 3).reshape(num_inputs * height, num_outputs * width)


def spatial_svd(weight_OIHW: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """vertical [R, I, H, 1] and horizontal [O, R, 1, W], to be applied in this order."""
    num_outputs, num_inputs, height, width = weight_OIHW.shape
    left, right = low_rank(spatial_matrix(weight_OIHW), rank)
    vertical = left.T.reshape(rank, num_inputs, height, 1)
    horizontal = right.reshape(rank, num_outputs, 1, width).transpose(0, 1)
    return vertical.contiguous(), horizontal.contiguous()


def spatial_product(vertical_RIH1: Tensor, horizontal_OR1W: Tensor) -> Tensor:
    """The kernel [O, I, H, W] that the two make together."""
    return torch.einsum("rihx,oryw->oihw", vertical_RIH1, horizontal_OR1W)


def tucker2(
    weight_OIHW: Tensor, rank_out: int, rank_in: int, *, sweeps: int = 5
) -> tuple[Tensor, Tensor, Tensor]:
    """(basis_OR, core, basis_IR): weight ≈ core [rank_out, rank_in, H, W] times both orthonormal bases.

    `sweeps` of HOOI: each basis in turn is the best one for the other; the error never grows. 0 is HOSVD alone.
    """
    weight = _exact(weight_OIHW)
    basis_OR, basis_IR = _output_basis(weight)[:, :rank_out], _input_basis(weight)[:, :rank_in]
    for _ in range(sweeps):
        basis_OR = _output_basis(torch.einsum("oihw,ir->orhw", weight, basis_IR))[:, :rank_out]
        basis_IR = _input_basis(torch.einsum("oihw,or->rihw", weight, basis_OR))[:, :rank_in]
    core = torch.einsum("oihw,or,is->rshw", weight, basis_OR, basis_IR)
    return basis_OR, core, basis_IR


def tucker2_product(basis_OR: Tensor, core: Tensor, basis_IR: Tensor) -> Tensor:
    """The kernel [O, I, H, W] that the three make together."""
    return torch.einsum("rshw,or,is->oihw", core, basis_OR, basis_IR)


def tucker2_energies(weight_OIHW: Tensor) -> Tensor:
    """[O, I]: entry (p - 1, q - 1) is the squared norm that HOSVD keeps at ranks p of the outputs and q of the inputs."""
    core = tucker2(weight_OIHW, *weight_OIHW.shape[:2], sweeps=0)[1]
    return core.square().sum(dim=(2, 3)).cumsum(0).cumsum(1)


def relative_error(weight: Tensor, approximation: Tensor) -> float:
    """|weight - approximation| / |weight| in Frobenius norm; 0 for two zeros."""
    weight = _exact(weight)
    difference = (weight - approximation.reshape(weight.shape)).norm().item()
    return difference / (weight.norm().item() or 1.0)


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


def _wide(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT


def _eigen(wide_MN: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors [..., M, M] as columns, and squared singular values [..., M], descending."""
    values, vectors = torch.linalg.eigh(wide_MN @ wide_MN.mT)
    values, vectors = values.flip(-1).clamp(min=0), vectors.flip(-1)
    largest = vectors.gather(-2, vectors.abs().argmax(dim=-2, keepdim=True))
    return vectors * largest.sign(), values


def _output_basis(weight_OIHW: Tensor) -> Tensor:
    """[O, O], the most important direction first."""
    return _eigen(weight_OIHW.flatten(1))[0]


def _input_basis(weight_OIHW: Tensor) -> Tensor:
    """[I, I], the most important direction first."""
    return _eigen(weight_OIHW.transpose(0, 1).flatten(1))[0]
