"""Storing weights in fewer bits, after training: the report's min-max 8 bits, half precision, and the plain
cast that fails.

Min-max is "linear quantization" of Han, Mao, Dally 2016, "Deep Compression", https://arxiv.org/abs/1510.00149
(section 3 compares it with others): one minimum and maximum a tensor, levels evenly between them. No data is
needed and nothing is trained.
"""

import copy

from torch import Tensor

from app.errors import Problem
from app.spec.steps.quantize import Quantize
from models import Encoded, Network, encode
from worker.run import Run

_ENCODINGS: dict[str, dict[str, object]] = {
    "fp16": {"name": "fp16"},
    "minmax": {"name": "minmax", "bits": 8},
    "cast": {"name": "cast", "to": "int8"},
}


def apply(model: Network | None, spec: Quantize, run: Run) -> Network:
    """A copy of `model` that computes with the stored values; `encoded` holds each tensor that is not stored
    raw.

    Notes the largest error of an element, the mean bits of an encoded element and, for the cast, the share of
    weights that became 0. Raises Problem NOT_QUANTIZABLE where a tensor holds NaN or infinity.
    """
    assert model is not None, "the pipeline gives the network of the step before"
    quantized = copy.deepcopy(model)
    state = quantized.state_dict()
    encoded = {name: _encoded(name, tensor, spec) for name, tensor in state.items()}
    decoded = {name: stored.decode() for name, stored in encoded.items()}
    _note(run, spec, {name: tensor.cpu() for name, tensor in state.items()}, decoded, encoded)
    quantized.load_state_dict(decoded)
    quantized.encoded = {name: stored for name, stored in encoded.items() if stored.encoding["name"] != "raw"}
    return quantized.eval()


def _encoded(name: str, tensor: Tensor, spec: Quantize) -> Encoded:
    try:
        return encode(tensor, _encoding(name, tensor, spec))
    except ValueError as error:
        raise Problem(
            422,
            "NOT_QUANTIZABLE",
            f"The tensor {name!r} cannot be stored as {spec.scheme}: {error}. Train or repair it first.",
        ) from error


def _encoding(name: str, tensor: Tensor, spec: Quantize) -> dict[str, object]:
    if not tensor.is_floating_point() or tensor.dim() == 0 or tensor.numel() == 0:
        return {"name": "raw"}
    is_chosen = spec.tensors == "all" or tensor.dim() >= 2
    encoding = _ENCODINGS[spec.scheme if is_chosen else "fp16"]
    return {"name": "raw"} if encoding["name"] == "fp16" and not _survives_half(name, tensor) else encoding


def _survives_half(name: str, tensor: Tensor) -> bool:
    """Half precision ends at 65504 and, downwards, at 6e-8: a variance below becomes 0, and its channel is
    divided by sqrt(eps)."""
    half = tensor.half()
    overflows = bool((half.isinf() & ~tensor.isinf()).any())
    vanishes = name.endswith("running_var") and bool(((half == 0) & (tensor != 0)).any())
    return not overflows and not vanishes


def _note(
    run: Run, spec: Quantize, before: dict[str, Tensor], after: dict[str, Tensor], encoded: dict[str, Encoded]
) -> None:
    floats = [name for name, tensor in before.items() if tensor.is_floating_point() and tensor.numel()]
    errors = [(after[name] - before[name]).abs().max().item() for name in floats]
    run.note("max_abs_error", max(errors, default=0.0))
    num_bits = sum(8 * encoded[name].data.numel() for name in floats)
    run.note("bits_per_weight", num_bits / max(sum(before[name].numel() for name in floats), 1), "bit")
    if spec.scheme == "cast":
        run.note("zeroed_weights", _zeroed_share([before[n] for n in floats], [after[n] for n in floats]))


def _zeroed_share(before: list[Tensor], after: list[Tensor]) -> float:
    """Of the weights (two or more dimensions) that were not 0."""
    weights = [(old != 0, new == 0) for old, new in zip(before, after, strict=True) if old.dim() >= 2]
    num_weights = sum(int(was.sum()) for was, _ in weights)
    return sum(int((was & gone).sum()) for was, gone in weights) / max(num_weights, 1)
