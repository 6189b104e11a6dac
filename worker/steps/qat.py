"""Quantization-aware training: a network learns to work with the few values that its weights will be stored as.

Esser et al. 2020, "Learned Step Size Quantization", https://arxiv.org/abs/1902.08153, in
`worker/quantization/learned_steps.py`, under the loss of Hinton et al. 2015 (https://arxiv.org/abs/1503.02531) with the
job's teachers. Changed: weights alone are quantized, as only they are stored.
"""

from torch import Tensor

from app.spec.networks import Student
from app.spec.steps.qat import Qat
from models import Network
from worker.distillation.teachers import TeacherTargets
from worker.quantization.calibration import weighted_layers
from worker.quantization.learned_steps import QuantizedNetwork
from worker.quantization.stored_form import bits_of, check_finite, check_patterns, settle
from worker.run import Run, Stopped
from worker.training.batches import Batch
from worker.training.loop import concatenated, train
from worker.training.losses import distillation_loss
from worker.training.students import build_student


def apply(model: Network | None, spec: Qat, run: Run) -> Network:
    """A copy of `model`, trained, that computes with the stored values; `encoded` is what the last evaluation computed
    with, to the bit.

    Notes the largest error of an element and the mean bits of one. Raises Problem
    NOT_QUANTIZABLE where a tensor holds NaN or infinity and PATTERN_MATCHES_NOTHING for an override, before any
    training.
    """
    network = build_student(Student(previous=True), model, run)
    check_finite(network.state_dict())
    assert network.preprocessing is not None
    bits = _bits(network, spec)
    quantized = QuantizedNetwork(network, bits, by_row=spec.granularity == "channel", init=spec.step_init)
    try:
        _train(quantized, network, spec, run)
    except Stopped as stopped:
        best = None if stopped.model is None else _settled(quantized, run)
        raise Stopped(stopped.stop, best) from None
    return _settled(quantized, run)


def _bits(network: Network, spec: Qat) -> dict[str, int]:
    """Weight's name → its bits."""
    names = [f"{layer}.weight" for layer in weighted_layers(network)]
    check_patterns("overrides", spec.overrides, names)
    edges = {names[0], names[-1]} if names and spec.edge_bits is not None else set()
    own = {name: spec.edge_bits if name in edges and spec.edge_bits else spec.bits for name in names}
    return {name: bits_of(name, bits, spec.overrides) for name, bits in own.items()}


def _train(quantized: QuantizedNetwork, network: Network, spec: Qat, run: Run) -> None:
    assert network.preprocessing is not None
    images = concatenated(run, ["train"], spec)
    with TeacherTargets(
        run.teachers,
        images,
        temperature=spec.temperature,
        combine=spec.combine,
        weights=spec.weights,
        seed=run.seed,
        speaking=spec.alpha > 0,  # with hard labels only, no teacher is run at all
    ) as targets:

        def batch_loss(logits_NC: Tensor, batch: Batch) -> Tensor:
            return distillation_loss(
                logits_NC,
                batch,
                targets(batch) if spec.alpha > 0 else None,
                alpha=spec.alpha,
                temperature=spec.temperature,
            )

        train(
            quantized,
            spec,
            run,
            images=images,
            preprocessing=network.preprocessing,
            batch_loss=batch_loss,
            teacher_macs=targets.macs_in(spec.epochs),
        )


def _settled(quantized: QuantizedNetwork, run: Run) -> Network:
    """The network with its weights as they are stored."""
    return settle(quantized.network, quantized.encoded(), quantized.network.state_dict(), run)
