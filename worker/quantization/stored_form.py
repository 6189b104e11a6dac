"""In which form a tensor is stored: rules that steps share."""

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from app.errors import Problem
from models import Encoded, Network, encode
from worker.run import Run


def in_half(name: str, tensor: Tensor) -> Encoded:
    """fp16; raw where half precision cannot hold the tensor, or it is no tensor of floating-point numbers."""
    is_short = tensor.is_floating_point() and tensor.dim() > 0 and survives_half(name, tensor)
    return encode(tensor, {"name": "fp16" if is_short else "raw"})


def survives_half(name: str, tensor: Tensor) -> bool:
    """Half precision ends at 65504 and, downwards, at 6e-8: a variance below becomes 0, and its channel is divided by
    sqrt(eps)."""
    half = tensor.half()
    overflows = bool((half.isinf() & ~tensor.isinf()).any())
    return not overflows and not loses_variance(name, tensor, half)


def loses_variance(name: str, tensor: Tensor, decoded: Tensor) -> bool:
    """Whether a variance that was positive is no longer."""
    return name.endswith("running_var") and bool(((decoded <= 0) & (tensor > 0)).any())


def bits_of(name: str, bits: int, overrides: Mapping[str, int]) -> int:
    """The bits of the longest pattern that matches the tensor's name, else `bits`; of two as long, the larger."""
    matching = [
        (len(pattern), own) for pattern, own in overrides.items() if fnmatch.fnmatchcase(name, pattern)
    ]
    return max(matching)[1] if matching else bits


def check_patterns(field: str, patterns: Iterable[str], names: Iterable[str]) -> None:
    """Raises Problem 422 PATTERN_MATCHES_NOTHING: a misspelt pattern would be ignored silently."""
    known = list(names)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in known):
            examples = ", ".join(known[:5])
            raise Problem(
                422,
                "PATTERN_MATCHES_NOTHING",
                f"{field} has the pattern {pattern!r}, which matches none of the {len(known)} tensors it could be for "
                f"(such as {examples}): correct or drop it.",
            )


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raises Problem 422 NOT_QUANTIZABLE, naming the tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise Problem(
                422,
                "NOT_QUANTIZABLE",
                f"The tensor {name!r} holds NaN or infinity, so the network was broken before this step: "
                "train it again, with a lower learning rate or in fp32.",
            )


def keeping_zeros(encoding: dict[str, Any]) -> dict[str, Any]:
    """The encoding that stores a bit for each element, and the elements that are not 0 as `encoding` does."""
    return {"name": "sparse", "values": encoding}


def pays_as_sparse(tensor: Tensor, bits: int) -> bool:
    """Whether the zeros among the elements, which then need no `bits`, outweigh a bit for each element."""
    num_zeros = int((tensor == 0).sum())
    return num_zeros * bits >= tensor.numel()


def settle(
    network: Network, encoded: Mapping[str, Encoded], before: Mapping[str, Tensor], run: Run
) -> Network:
    """Let the network compute with its tensors as they are stored: all of its `state_dict`.

    `before`: the values that were encoded. Notes the largest error of an element and the mean bits of one, and leaves a
    row for each tensor in `run.details`.
    """
    rows = _rows(before, encoded)  # first: `before` may be the network's own memory
    run.details["tensors"] = rows
    run.note("max_abs_error", max((row["max_abs_error"] for row in rows), default=0.0))
    num_elements = sum(row["elements"] for row in rows)
    run.note("bits_per_weight", 8 * sum(row["bytes"] for row in rows) / max(num_elements, 1), "bit")
    network.load_state_dict({name: stored.decode() for name, stored in encoded.items()})
    network.encoded = {name: stored for name, stored in encoded.items() if stored.encoding["name"] != "raw"}
    return network.eval()


def _rows(tensors: Mapping[str, Tensor], encoded: Mapping[str, Encoded]) -> list[dict[str, Any]]:
    """One row a floating-point tensor, ready for JSON: how it is stored, its bytes, and what that changed."""
    rows = []
    for name, stored in encoded.items():
        tensor = tensors[name].detach().cpu()
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        difference = (stored.decode().double() - tensor.double()).abs()
        encoding = stored.encoding.get("values", stored.encoding)
        rows.append(
            {
                "tensor": name,
                "encoding": stored.encoding["name"],
                "values": encoding["name"],
                "bits": encoding.get("bits") or _BITS[encoding["name"]] or 8 * tensor.element_size(),
                "elements": tensor.numel(),
                "bytes": stored.data.numel(),
                "max_abs_error": float(difference.max()),
                "rms_error": float(difference.square().mean().sqrt()),
            }
        )
    return rows


_BITS = {"fp16": 16, "bf16": 16, "float8_e4m3": 8, "cast": 8, "raw": 0}
