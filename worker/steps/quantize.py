"""Storing weights in fewer bits, after training.

* Min-max is "linear quantization" of Han, Mao, Dally 2016, "Deep Compression", https://arxiv.org/abs/1510.00149, and
  the report's 8 bits; so are codebooks (section 3 there). Grids, clipping and k-means are in `models/grids.py` and
  `models/codebook.py`; the plain cast is the report's failure.
* AdaRound: Nagel et al. 2020, https://arxiv.org/abs/2004.10568, in `worker/quantization/rounding.py`.
* Bias correction: Nagel et al. 2019, https://arxiv.org/abs/1906.04721, in `worker/quantization/bias_correction.py`.

Nothing is trained; the last two look at a few images of train.
"""

import copy
import time
from typing import Any

import torch
from torch import Tensor, nn

from app.spec.steps.quantize import Quantize
from models import Encoded, Network, encode, layer_table
from models.encodings import encode_codes
from models.grids import fit_grid
from worker.quantization.bias_correction import correct_bias
from worker.quantization.calibration import CalibrationImages, values_of, weighted_layers
from worker.quantization.rounding import MAX_INPUTS, adaround, gather_moments, in_groups
from worker.quantization.stored_form import (
    bits_of,
    check_finite,
    check_patterns,
    in_half,
    keeping_zeros,
    loses_variance,
    pays_as_sparse,
    settle,
)
from worker.run import Run, Stopped

_ENCODINGS = {"float8": "float8_e4m3"}  # the others have their scheme's name


def apply(model: Network | None, spec: Quantize, run: Run) -> Network:
    """A copy of `model` that computes with the stored values; `encoded` holds each tensor that is not stored raw.

    Notes the largest error of an element, the mean bits of an encoded element, for the cast the share of weights that
    became 0 and for AdaRound the mean of the layers' output errors in units of nearest rounding's. A tensor that is
    stored as asked already stays as it is. Raises Problem NOT_QUANTIZABLE where a tensor holds NaN or infinity,
    PATTERN_MATCHES_NOTHING for an override, NO_CALIBRATION_IMAGES; and Stopped between two layers.
    """
    assert model is not None, "the pipeline gives the network of the step before"
    check_finite(model.state_dict())
    choice = _Choice(model, spec)
    check_patterns("overrides", spec.overrides, choice.chosen)
    quantized = copy.deepcopy(model).eval()
    quantized.encoded = {}
    encoded = _calibrated(model, quantized, choice, spec, run) if spec.calibrates else {}
    # Of the calibrated network: biases may have been corrected.
    whole = {name: tensor.cpu() for name, tensor in quantized.state_dict().items()}
    whole |= {name: model.state_dict()[name].cpu() for name in encoded}
    encoded = {name: encoded.get(name) or choice.encoded(name, tensor) for name, tensor in whole.items()}
    if spec.scheme == "cast":
        run.note("zeroed_weights", _zeroed_share(whole, encoded))
    return settle(quantized, encoded, whole, run)


class _Choice:
    """Which form each tensor of a network takes."""

    def __init__(self, model: Network, spec: Quantize) -> None:
        self._spec = spec
        self._before = model.encoded
        self.chosen = [name for name, tensor in model.state_dict().items() if self._is_chosen(tensor)]

    def _is_chosen(self, tensor: Tensor) -> bool:
        """Whether the scheme is for this tensor; others are kept in half precision."""
        if not tensor.is_floating_point() or tensor.dim() == 0 or tensor.numel() == 0:
            return False
        return self._spec.tensors == "all" or tensor.dim() >= 2

    def bits(self, name: str) -> int:
        return bits_of(name, self._spec.stored_bits, self._spec.overrides)

    def is_sparse(self, name: str, tensor: Tensor) -> bool:
        """Zeros are kept where the step before stored them as such, and where that takes no more bytes."""
        if self._spec.scheme == "cast" or tensor.dim() < 2:
            return False
        was_sparse = name in self._before and self._before[name].encoding["name"] == "sparse"
        return was_sparse or pays_as_sparse(tensor, self.bits(name))

    def encoded(self, name: str, tensor: Tensor) -> Encoded:
        if name not in self.chosen:
            return in_half(name, tensor)
        encoding = self._encoding(name, tensor)
        if self._is_stored_so(name, tensor, encoding):
            return self._before[name]
        stored = encode(tensor, keeping_zeros(encoding) if self.is_sparse(name, tensor) else encoding)
        # A step of 8 bits may be larger than the smallest variance, and so may half precision's least number.
        return in_half(name, tensor) if loses_variance(name, tensor, stored.decode()) else stored

    def _encoding(self, name: str, tensor: Tensor) -> dict[str, Any]:
        spec = self._spec
        encoding: dict[str, Any] = {"name": _ENCODINGS.get(spec.scheme, spec.scheme)}
        if spec.scheme in ("minmax", "symmetric", "codebook"):
            encoding["bits"] = self.bits(name)
        if self.is_by_row(tensor):
            encoding["axis"] = 0
        if spec.clip != "none":
            encoding["clip"] = spec.clip
        return encoding

    def is_by_row(self, tensor: Tensor) -> bool:
        # A grid for each single number of a bias would be larger than the bias.
        return self._spec.granularity == "channel" and tensor.dim() >= 2

    def _is_stored_so(self, name: str, tensor: Tensor, encoding: dict[str, Any]) -> bool:
        if name not in self._before or "clip" in encoding or self.is_sparse(name, tensor):
            return False
        before = self._before[name]
        is_same = all(before.encoding.get(key) == encoding.get(key) for key in ("name", "bits", "axis"))
        return is_same and torch.equal(before.decode(), tensor.cpu())


# --------------------------------------------------------------------------------------------- with a few images


def _calibrated(
    model: Network, quantized: Network, choice: _Choice, spec: Quantize, run: Run
) -> dict[str, Encoded]:
    """Layer by layer, in the order that they are called: each sees what the quantized ones before it give.

    Changes the weights, biases and running means of `quantized` in place; returns the weights' stored form.
    """
    images = CalibrationImages(model, run, spec.calibration_images)
    original = copy.deepcopy(model).to(run.device).eval()
    quantized.to(run.device)
    started = time.monotonic()
    layers = weighted_layers(model)
    encoded: dict[str, Encoded] = {}
    shares: dict[str, float] = {}
    for done, layer in enumerate(layers):
        _stop_if_asked(run)
        run.progress(done, len(layers), "layer")
        name = f"{layer}.weight"
        weight = original.state_dict()[name].cpu()
        grid_rounds = spec.rounding == "adaround" and _can_adaround(original, layer, run)
        if grid_rounds:
            encoded[name], shares[name] = _adarounded(original, quantized, layer, choice, spec, images, run)
        else:
            encoded[name] = choice.encoded(name, weight)
        quantized.state_dict()[name].copy_(encoded[name].decode())
        if spec.bias_correction and correct_bias(quantized, layer, original, images) is None:
            run.log(
                f"bias_correction passes layer {layer!r} by: it has no bias and no batch norm follows it",
                "warning",
            )
    _add_cost(model, layers, spec, run, time.monotonic() - started, len(images))
    if shares:
        run.details["adaround_error_share"] = shares
        run.note("adaround_error_share", sum(shares.values()) / len(shares))
    return encoded


def _stop_if_asked(run: Run) -> None:
    stop = run.stop_requested()
    if stop is not None:
        raise Stopped(stop)


def _can_adaround(network: Network, layer: str, run: Run) -> bool:
    module = _weighted(network, layer)
    num_inputs = in_groups(module, module.weight).shape[2]
    if num_inputs > MAX_INPUTS:
        run.log(
            f"layer {layer!r} is rounded to nearest: AdaRound takes at most {MAX_INPUTS} inputs an output, "
            f"and it has {num_inputs}",
            "warning",
        )
    return num_inputs <= MAX_INPUTS


def _adarounded(
    original: Network,
    quantized: Network,
    layer: str,
    choice: _Choice,
    spec: Quantize,
    images: CalibrationImages,
    run: Run,
) -> tuple[Encoded, float]:
    name = f"{layer}.weight"
    module = _weighted(original, layer)
    weight = module.weight.detach().cpu()
    keep_zeros = choice.is_sparse(name, weight)
    assert spec.scheme in ("minmax", "symmetric"), "the spec's rule"
    grid = fit_grid(
        weight,
        spec.scheme,
        choice.bits(name),
        by_row=choice.is_by_row(weight),
        clip=spec.clip,
        is_kept=weight != 0 if keep_zeros else None,
    )
    moments = gather_moments(
        module,
        (
            (values_of(quantized, layer, batch).inputs, values_of(original, layer, batch).inputs)
            for batch in images
        ),
        num_images=len(images),
        seed=run.seed,
    )
    codes, share = adaround(module, grid.to(run.device), moments, keep_zeros=keep_zeros)
    return encode_codes(weight, grid, codes, keep_zeros=keep_zeros), share


def _weighted(network: Network, layer: str) -> nn.Conv2d | nn.Linear:
    module = network.get_submodule(layer)
    assert isinstance(module, nn.Conv2d | nn.Linear)
    return module


def _add_cost(
    model: Network, layers: list[str], spec: Quantize, run: Run, seconds: float, num_images: int
) -> None:
    """Both networks run as far as each layer, once for each of the two methods."""
    macs_so_far, total = 0, 0
    for row in layer_table(model)["rows"]:
        macs_so_far += row["macs"]
        if row["name"] in layers:
            total += macs_so_far
    passes = 2 * ((spec.rounding == "adaround") + spec.bias_correction)
    run.cost.add(epochs=0, seconds=seconds, macs=total * passes * num_images)


def _zeroed_share(whole: dict[str, Tensor], encoded: dict[str, Encoded]) -> float:
    """Of the weights (two or more dimensions) that were not 0."""
    weights = [
        (tensor != 0, encoded[name].decode() == 0) for name, tensor in whole.items() if tensor.dim() >= 2
    ]
    num_weights = sum(int(was.sum()) for was, _ in weights)
    return sum(int((was & gone).sum()) for was, gone in weights) / max(num_weights, 1)
