"""Tensors into their stored form; `load_artifact.decode` is the way back.

minmax is the report's "8 bits": one minimum and maximum a tensor, levels evenly between them (Han et al. 2016
call it linear quantization). cast is its negative control: a direct conversion to an integer type.
"""

from typing import Any

import torch
from torch import Tensor

from .load_artifact import Encoded


def encode(tensor: Tensor, encoding: dict[str, Any]) -> Encoded:
    """The tensor in its stored form. `encoding` is {"name": name, ...options}:

    * raw: as it is.
    * fp16: half precision; a tensor with a value beyond 65504, or no floating-point tensor, stays raw.
    * minmax, bits 8 (the default): value ≈ minimum + q * (maximum - minimum) / 255. The error is at most
      (maximum - minimum) / 510, plus half a unit in the last place from rounding the decoded value to the
      tensor's dtype.
    * cast, to "int8" (the default) or "uint8": truncated toward zero, then modulo 256, as a C cast does.

    Raises ValueError for an unknown name or option, and when minmax or cast meet a tensor that is not
    floating-point, is empty or holds NaN or infinity.
    """
    tensor = tensor.detach().cpu()
    options = {key: value for key, value in encoding.items() if key != "name"}
    encoders = {"raw": _raw, "fp16": _fp16, "minmax": _minmax, "cast": _cast}
    name = encoding.get("name")
    if name not in encoders:
        raise ValueError(f"encoding {name!r} is unknown: use one of {', '.join(encoders)}")
    return encoders[name](tensor, **options)


def _stored(encoding: dict[str, Any], like: Tensor, numbers: Tensor) -> Encoded:
    data = numbers.contiguous().reshape(-1).view(torch.uint8).clone()
    return Encoded(encoding, list(like.shape), str(like.dtype).removeprefix("torch."), data)


def _raw(tensor: Tensor) -> Encoded:
    return _stored({"name": "raw"}, tensor, tensor)


def _fp16(tensor: Tensor) -> Encoded:
    if not tensor.is_floating_point():
        return _raw(tensor)
    half = tensor.to(torch.float16)
    overflows = bool((half.isinf() & ~tensor.isinf()).any())
    return _raw(tensor) if overflows else _stored({"name": "fp16"}, tensor, half)


def _finite_doubles(tensor: Tensor, name: str) -> Tensor:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        raise ValueError(
            f"{name} is for floating-point tensors with elements, not {tensor.dtype} {list(tensor.shape)}"
        )
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} cannot store NaN or infinity: the tensor holds some")
    return tensor.double()


def _minmax(tensor: Tensor, bits: int = 8) -> Encoded:
    if bits != 8:
        raise ValueError(f"minmax stores 8 bits, not {bits}")
    values = _finite_doubles(tensor, "minmax")
    minimum, maximum = float(values.min()), float(values.max())
    levels = 2**bits - 1
    # A constant tensor has no span; every q is then 0 and decodes to the constant itself.
    span = maximum - minimum or 1.0
    q = ((values - minimum) / span * levels).round_().clamp_(0, levels).to(torch.uint8)
    return _stored({"name": "minmax", "bits": bits, "minimum": minimum, "maximum": maximum}, tensor, q)


def _cast(tensor: Tensor, to: str = "int8") -> Encoded:
    if to not in ("int8", "uint8"):
        raise ValueError(f"cast goes to int8 or uint8, not {to!r}")
    whole = _finite_doubles(tensor, "cast").trunc().remainder(256).to(torch.uint8)
    return _stored({"name": "cast", "to": to}, tensor, whole)
