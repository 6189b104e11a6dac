"""Tensors into their stored form; `load_artifact.decode` is the way back.

Grids (minmax, symmetric) are in `grids.py`, k-means in `codebook.py`. float8_e4m3 is the format of Micikevicius
et al. 2022, https://arxiv.org/abs/2209.05433, under one scale a tensor. sparse stores a map of the elements
that are not 0 and their values in another encoding. cast is the negative control: a direct conversion to an
integer type. `docs/formats.md` has the bytes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .codebook import k_means, nearest, short_numbers
from .grids import Clip, Grid, Scheme, fit_grid
from .load_artifact import DTYPES, Encoded

_LARGEST_FLOAT8 = torch.finfo(torch.float8_e4m3fn).max


def encode(tensor: Tensor, encoding: dict[str, Any]) -> Encoded:
    """The tensor in its stored form. `encoding` is {"name": name, ...options}:

    * raw: as it is.
    * fp16, bf16: half precision, or bfloat16. A tensor with a value beyond its range (65504; 3.4e38), or no
      floating-point tensor, stays raw.
    * float8_e4m3: eight bits of floating point, after the tensor was scaled so that its largest element is 448.
    * minmax: 2^bits levels from minimum to maximum, in `bits` (2 to 8; default 8) bits an element. The error is
      at most (maximum - minimum) / (2 * (2^bits - 1)), plus half a unit in the last place from rounding the
      decoded value to the tensor's dtype. With `axis` 0 each index of that axis has a grid of its own, at most
      1 % coarser than that. `clip` "mse": a narrower grid, where the squared error is smaller with it.
    * symmetric, with the same options: signed integers times a step; 0 stays 0.
    * codebook: the best 2^bits values (bits 2 to 8; default 4), by k-means.
    * sparse, values {an encoding}: zeros cost a bit, and are exactly 0 again; other elements also `values`.
    * cast, to "int8" (the default) or "uint8": truncated toward zero, then modulo 256, as a C cast does.

    Raises ValueError for an unknown name or option, and when anything but raw, fp16 and bf16 meets a tensor that
    is not floating-point, is empty or holds NaN or infinity.
    """
    tensor = tensor.detach().cpu()
    if encoding.get("name") == "sparse":
        return _sparse(tensor, **_options(encoding))
    return _encode(tensor, encoding, None)


def encode_codes(tensor: Tensor, grid: Grid, codes: Tensor, *, keep_zeros: bool = False) -> Encoded:
    """Elements as these codes (uint8, as many as the tensor has) of a grid; with `keep_zeros` as sparse."""
    tensor = tensor.detach().cpu()
    is_kept = tensor != 0 if keep_zeros else None
    stored = _on_grid(tensor, grid.to(torch.device("cpu")), codes.cpu(), is_kept)
    return stored if is_kept is None else _with_map(stored, tensor, is_kept)


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """uint8 [ceil(N * bits / 8)] from N codes below 2^bits; `load_artifact.unpack_bits` is the way back."""
    codes = codes.reshape(-1).to(torch.uint8)
    if bits == 8:
        return codes
    num_words = -(-codes.numel() // 8)
    padded = torch.nn.functional.pad(codes, (0, num_words * 8 - codes.numel())).view(num_words, 8)
    byte_shifts, code_shifts = 8 * torch.arange(bits), bits * torch.arange(8)
    packed = torch.empty((num_words, bits), dtype=torch.uint8)
    for start in range(0, num_words, 1 << 17):  # a word takes eight times the memory of its codes
        words = (padded[start : start + (1 << 17)].long() << code_shifts).sum(dim=1, keepdim=True)
        packed[start : start + (1 << 17)] = (words >> byte_shifts) & 255
    return packed.view(-1)[: -(-codes.numel() * bits // 8)].clone()


def _options(encoding: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in encoding.items() if key != "name"}


def _encode(tensor: Tensor, encoding: dict[str, Any], is_kept: Tensor | None) -> Encoded:
    """`is_kept`: which elements are stored; None: all."""
    encoders: dict[str, Callable[..., Encoded]] = {
        "raw": _raw,
        "fp16": _fp16,
        "bf16": _bf16,
        "float8_e4m3": _float8,
        "minmax": _minmax,
        "symmetric": _symmetric,
        "codebook": _codebook,
        "cast": _cast,
    }
    name = encoding.get("name")
    if name not in encoders:
        raise ValueError(f"encoding {name!r} is unknown: use one of {', '.join([*encoders, 'sparse'])}")
    return encoders[name](tensor, is_kept, **_options(encoding))


def _stored(encoding: dict[str, Any], like: Tensor, *parts: Tensor) -> Encoded:
    data = torch.cat([part.contiguous().reshape(-1).view(torch.uint8) for part in parts])
    return Encoded(encoding, list(like.shape), str(like.dtype).removeprefix("torch."), data)


def _kept(tensor: Tensor, is_kept: Tensor | None) -> Tensor:
    return tensor if is_kept is None else tensor[is_kept]


def _raw(tensor: Tensor, is_kept: Tensor | None) -> Encoded:
    return _stored({"name": "raw"}, tensor, _kept(tensor, is_kept))


def _fp16(tensor: Tensor, is_kept: Tensor | None) -> Encoded:
    return _as_type("fp16", torch.float16, tensor, is_kept)


def _bf16(tensor: Tensor, is_kept: Tensor | None) -> Encoded:
    return _as_type("bf16", torch.bfloat16, tensor, is_kept)


def _as_type(name: str, dtype: torch.dtype, tensor: Tensor, is_kept: Tensor | None) -> Encoded:
    if not tensor.is_floating_point():
        return _raw(tensor, is_kept)
    short = tensor.to(dtype)
    overflows = bool((short.isinf() & ~tensor.isinf()).any())
    return _raw(tensor, is_kept) if overflows else _stored({"name": name}, tensor, _kept(short, is_kept))


def _check_finite(tensor: Tensor, name: str) -> None:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        raise ValueError(
            f"{name} is for floating-point tensors with elements, not {tensor.dtype} {list(tensor.shape)}"
        )
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} cannot store NaN or infinity: the tensor holds some")


def _check_bits(name: str, bits: int) -> None:
    if not 2 <= bits <= 8:
        raise ValueError(f"{name} stores 2 to 8 bits, not {bits}")


def _float8(tensor: Tensor, is_kept: Tensor | None) -> Encoded:
    _check_finite(tensor, "float8_e4m3")
    scale = float(tensor.double().abs().max()) / _LARGEST_FLOAT8
    scaled = _kept(tensor, is_kept).double() / (scale or 1.0)
    # By way of float32, the widest type that converts; the largest element is 448 or a rounding away from it.
    numbers = scaled.clamp(-_LARGEST_FLOAT8, _LARGEST_FLOAT8).float().to(torch.float8_e4m3fn)
    return _stored({"name": "float8_e4m3", "scale": scale}, tensor, numbers)


def _minmax(tensor: Tensor, is_kept: Tensor | None, **options: Any) -> Encoded:
    return _fitted(tensor, is_kept, "minmax", **options)


def _symmetric(tensor: Tensor, is_kept: Tensor | None, **options: Any) -> Encoded:
    return _fitted(tensor, is_kept, "symmetric", **options)


def _fitted(
    tensor: Tensor,
    is_kept: Tensor | None,
    scheme: Scheme,
    bits: int = 8,
    axis: int | None = None,
    clip: Clip = "none",
) -> Encoded:
    _check_finite(tensor, scheme)
    _check_bits(scheme, bits)
    if axis not in (None, 0) or (axis == 0 and tensor.dim() == 0):
        raise ValueError(f"{scheme} has grids along axis 0 or one for the tensor, not along axis {axis}")
    if clip not in ("none", "mse"):
        raise ValueError(f"clip is 'none' or 'mse', not {clip!r}")
    grid = fit_grid(tensor, scheme, bits, by_row=axis == 0, clip=clip, is_kept=is_kept)
    return _on_grid(tensor, grid, grid.codes(grid.rows(tensor)), is_kept)


def _on_grid(tensor: Tensor, grid: Grid, codes: Tensor, is_kept: Tensor | None) -> Encoded:
    codes = pack_bits(_kept(codes.reshape(tensor.shape), is_kept), grid.bits)
    encoding: dict[str, Any] = {"name": grid.scheme, "bits": grid.bits}
    if grid.numbers is None:
        if grid.scheme == "minmax":
            encoding |= {"minimum": float(grid.first_R1), "maximum": float(grid.last_R1)}
        else:
            encoding |= {"scale": float(grid.steps)}
        return _stored(encoding, tensor, codes)
    dtype = DTYPES[grid.numbers]
    numbers = [grid.steps.to(dtype)]
    if grid.scheme == "minmax":
        numbers.insert(0, grid.first_R1.to(dtype))
    return _stored(encoding | {"axis": 0, "numbers": grid.numbers}, tensor, *numbers, codes)


def _codebook(tensor: Tensor, is_kept: Tensor | None, bits: int = 4) -> Encoded:
    _check_finite(tensor, "codebook")
    _check_bits("codebook", bits)
    values_N = _kept(tensor, is_kept).double().reshape(-1)
    if len(values_N) == 0:
        values_N = values_N.new_zeros(1)  # a book must have a value, even if no element is stored
    centres_K = k_means(values_N, 1 << bits)
    numbers = short_numbers(centres_K)
    book_K = centres_K.to(DTYPES[numbers])
    codes_N = nearest(_kept(tensor, is_kept).double().reshape(-1), book_K.double())
    encoding = {"name": "codebook", "bits": bits, "size": len(book_K), "numbers": numbers}
    return _stored(encoding, tensor, book_K, pack_bits(codes_N, bits))


def _cast(tensor: Tensor, is_kept: Tensor | None, to: str = "int8") -> Encoded:
    if to not in ("int8", "uint8"):
        raise ValueError(f"cast goes to int8 or uint8, not {to!r}")
    _check_finite(tensor, "cast")
    whole = _kept(tensor, is_kept).double().trunc().remainder(256).to(torch.uint8)
    return _stored({"name": "cast", "to": to}, tensor, whole)


def _sparse(tensor: Tensor, values: dict[str, Any]) -> Encoded:
    _check_finite(tensor, "sparse")
    is_kept = tensor != 0
    return _with_map(_encode(tensor, values, is_kept), tensor, is_kept)


def _with_map(stored: Encoded, tensor: Tensor, is_kept: Tensor) -> Encoded:
    return _stored({"name": "sparse", "values": stored.encoding}, tensor, pack_bits(is_kept, 1), stored.data)
