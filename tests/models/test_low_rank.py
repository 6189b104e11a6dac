"""The approximations against independent computations: LAPACK's SVD, unfoldings by loops, random rivals."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from models import low_rank
from models.factorisation import Factorisable, Unfit, factorisable


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (3, 4, 7), (2, 7, 4)])
def test_a_truncated_svd_is_the_best_there_is(shape):
    """Its squared error is the tail of the squared singular values (Eckart, Young 1936)."""
    matrix = noise(*shape)
    singular = torch.linalg.svdvals(matrix)
    torch.testing.assert_close(low_rank.squared_singular_values(matrix), singular.square())
    for rank in range(1, min(shape[-2:]) + 1):
        left, right = low_rank.low_rank(matrix, rank)
        error = (matrix - left @ right).square().sum(dim=(-2, -1))
        torch.testing.assert_close(error, singular[..., rank:].square().sum(-1), atol=1e-10, rtol=1e-8)
        # Divided evenly: the factors of each rank are equally long.
        torch.testing.assert_close(left.norm(dim=-2), right.norm(dim=-1))


def test_a_matrix_of_lower_rank_is_met_exactly_even_by_zeros():
    matrix = noise(6, 2) @ noise(2, 8)
    for wanted in (matrix, torch.zeros(6, 8, dtype=torch.float64)):
        left, right = low_rank.low_rank(wanted, 4)
        torch.testing.assert_close(left @ right, wanted)
        assert left.isfinite().all()
        assert right.isfinite().all()


def unfolding(weight: torch.Tensor, mode: int) -> torch.Tensor:
    """[size of the mode, everything else], entry by entry."""
    rows = []
    for index in range(weight.shape[mode]):
        others = [range(size) if axis != mode else [index] for axis, size in enumerate(weight.shape)]
        rows.append([weight[place].item() for place in itertools.product(*others)])
    return torch.tensor(rows, dtype=torch.float64)


def test_tucker2_begins_with_the_singular_vectors_of_the_unfoldings():
    """HOSVD: each basis spans the leading left singular vectors that LAPACK finds."""
    weight = noise(6, 5, 3, 2)
    basis_OR, core, basis_IR = low_rank.tucker2(weight, 4, 3, sweeps=0)
    for basis, mode, rank in ((basis_OR, 0, 4), (basis_IR, 1, 3)):
        expected = torch.linalg.svd(unfolding(weight, mode))[0][:, :rank]
        torch.testing.assert_close(basis @ basis.T, expected @ expected.T)
    naive = torch.zeros(4, 3, 3, 2, dtype=torch.float64)
    for r, s in itertools.product(range(4), range(3)):
        for o, i in itertools.product(range(6), range(5)):
            naive[r, s] += basis_OR[o, r] * basis_IR[i, s] * weight[o, i]
    torch.testing.assert_close(core, naive)
    kept = low_rank.tucker2_energies(weight)
    torch.testing.assert_close(kept[3, 2], core.square().sum())
    torch.testing.assert_close(kept[-1, -1], weight.square().sum())


def test_hooi_betters_hosvd_and_every_rival():
    """The error falls with each sweep, and no pair of random bases does as well."""
    weight = noise(8, 7, 3, 3)
    errors = [
        low_rank.relative_error(
            weight, low_rank.tucker2_product(*low_rank.tucker2(weight, 3, 2, sweeps=sweeps))
        )
        for sweeps in range(5)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]
    for seed in range(20):
        out, into = (torch.linalg.qr(noise(n, r, seed=seed))[0] for n, r in ((8, 3), (7, 2)))
        core = torch.einsum("oihw,or,is->rshw", weight, out, into)
        assert low_rank.relative_error(weight, low_rank.tucker2_product(out, core, into)) > errors[-1]


CONVOLUTIONS = [
    {"kernel_size": [3, 3], "padding": [1, 1]},
    {"kernel_size": [3, 3], "stride": [2, 1], "padding": [0, 2], "dilation": [1, 2]},
    {"kernel_size": [5, 3], "stride": [2, 2], "padding": [2, 1], "padding_mode": "reflect"},
    {"kernel_size": [3, 3], "stride": 2, "padding": 1, "padding_mode": "circular", "bias": False},
    {"kernel_size": [2, 3], "padding": "same", "dilation": 2},
    {"kernel_size": [3, 1], "padding": "valid"},
]
POINTWISE = [{"kernel_size": [1, 1]}, {"kernel_size": [1, 1], "stride": [2, 2], "padding": [1, 0]}]


def make_layer(type_: str, arguments: dict) -> torch.nn.Module:
    own = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(torch.nn, type_)(**own)


def run_chain(pieces, x: torch.Tensor) -> torch.Tensor:
    for piece in pieces:
        layer = make_layer(piece.type, piece.arguments)
        layer.load_state_dict({name: value.float() for name, value in piece.values.items()})
        x = layer(x)
    return x


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    ("scheme", "changes"),
    [
        *[(scheme, changes) for scheme in ("spatial_svd", "tucker2") for changes in CONVOLUTIONS],
        *[("svd", changes) for changes in POINTWISE],
    ],
)
def test_full_rank_computes_what_the_layer_computes(scheme, changes):
    """To 1e-4, with every stride, padding and dilation; also with one rank below, where Tucker keeps all its pieces, if
    the weight has no more."""
    arguments = {"in_channels": 6, "out_channels": 7, "bias": True, **changes}
    layer = make_layer("Conv2d", arguments)
    with torch.no_grad():  # the last input and output are combinations of the others
        layer.weight[:, -1] = layer.weight[:, 0] - layer.weight[:, 1]
        layer.weight[-1] = layer.weight[0] + layer.weight[1]
    candidate = factorisable({"type": "Conv2d", "arguments": arguments}, layer.weight, layer.bias, scheme)
    assert isinstance(candidate, Factorisable)
    x = torch.randn(2, 6, 9, 11, generator=torch.Generator().manual_seed(1))
    full = candidate.ranks(candidate.largest_rank)
    exact = {"svd": (5,), "spatial_svd": full, "tucker2": (5, 6)}[scheme]
    for ranks, num_pieces in (
        (full, 1 if scheme == "tucker2" else 2),
        (exact, 3 if scheme == "tucker2" else 2),
    ):
        pieces, error = candidate.chain(ranks)
        assert len(pieces) == num_pieces
        assert error < 1e-6
        with torch.no_grad():
            torch.testing.assert_close(run_chain(pieces, x), layer(x), atol=1e-4, rtol=0)


def test_a_linear_layer_at_full_rank_is_itself():
    layer = make_layer("Linear", {"in_features": 6, "out_features": 4})
    candidate = factorisable({"type": "Linear"}, layer.weight, layer.bias, "auto")
    assert isinstance(candidate, Factorisable)
    pieces, error = candidate.chain((4,))
    x = torch.randn(3, 5, 6)
    torch.testing.assert_close(run_chain(pieces, x), layer(x), atol=1e-5, rtol=0)
    assert error < 1e-10


@pytest.mark.parametrize(
    ("scheme", "kernel", "formula"),
    [
        ("svd", 1, lambda r: r * (5 + 6)),
        ("spatial_svd", 3, lambda r: r * 3 * (5 + 6)),
        ("tucker2", 3, lambda r, s: 5 * r * (r < 5) + r * s * 9 + s * 6 * (s < 6)),
    ],
)
def test_every_option_has_the_parameters_of_the_papers_formula(scheme, kernel, formula):
    """And so have the pieces themselves; the energy of an option is 1 - error², of Tucker at least."""
    arguments = {"in_channels": 5, "out_channels": 6, "kernel_size": [kernel, kernel]}
    layer = make_layer("Conv2d", arguments)
    candidate = factorisable({"type": "Conv2d", "arguments": arguments}, layer.weight, layer.bias, scheme)
    assert isinstance(candidate, Factorisable)
    options = candidate.options()
    for ranks, parameters, energy in zip(*(part.tolist() for part in options), strict=True):
        pieces, error = candidate.chain(tuple(ranks))
        assert parameters == formula(*ranks) + 6
        assert sum(v.numel() for piece in pieces for v in piece.values.values()) == parameters
        if scheme == "tucker2":
            assert 1 - error**2 >= energy - 1e-9
        else:
            assert 1 - error**2 == pytest.approx(energy, abs=1e-9)


def test_a_grouped_convolution_and_the_wrong_scheme_are_unfit():
    grouped = {"type": "Conv2d", "arguments": {"groups": 2}}
    assert isinstance(factorisable(grouped, torch.rand(4, 2, 3, 3), None, "auto"), Unfit)
    for scheme, shape in (("svd", (4, 4, 3, 3)), ("tucker2", (4, 4, 1, 1)), ("spatial_svd", (4, 4))):
        kind = "Linear" if len(shape) == 2 else "Conv2d"
        unfit = factorisable({"type": kind, "arguments": {}}, torch.rand(*shape), None, scheme)
        assert isinstance(unfit, Unfit)
        assert "'auto' takes both" in unfit.reason


def test_the_two_filters_of_a_spatial_svd_make_its_kernel():
    """The product, tap by tap."""
    vertical, horizontal = low_rank.spatial_svd(noise(3, 2, 3, 3), 2)
    x = noise(1, 2, 6, 6)
    together = F.conv2d(x, low_rank.spatial_product(vertical, horizontal))
    torch.testing.assert_close(F.conv2d(F.conv2d(x, vertical), horizontal), together)
