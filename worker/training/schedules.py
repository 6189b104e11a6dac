"""The learning rate as a function of the step number alone: nothing to save, nothing to restore."""

import math

from app.spec.training import Training

# torch.optim.lr_scheduler.OneCycleLR's defaults.
_ONE_CYCLE_RISE, _ONE_CYCLE_START, _ONE_CYCLE_END = 0.3, 1 / 25, 1 / 25e4


def learning_rate(spec: Training, step: int, steps_per_epoch: int) -> float:
    """The rate of the 0-based optimizer step `step`.

    Warm-up rises linearly over `warmup_epochs`. Then `cosine` falls to 0, `constant` stays, `step` drops to a
    tenth at 50 % and 75 % of all steps (Liu et al., ICLR 2019). `one_cycle` is torch's OneCycleLR, which
    brings its own warm-up.
    """
    total = spec.epochs * steps_per_epoch
    if spec.schedule == "one_cycle":
        return spec.learning_rate * _one_cycle(step, total)
    warmup = round(spec.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    if spec.schedule == "cosine":
        return spec.learning_rate * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
    if spec.schedule == "step":
        return spec.learning_rate * 0.1 ** ((step >= total * 0.5) + (step >= total * 0.75))
    return spec.learning_rate


def _one_cycle(step: int, total: int) -> float:
    top = _ONE_CYCLE_RISE * total - 1
    if step <= top:
        return _anneal(_ONE_CYCLE_START, 1, step / top)
    return _anneal(1, _ONE_CYCLE_END, (step - top) / (total - 1 - top))


def _anneal(start: float, end: float, share: float) -> float:
    """From start to end along half a cosine."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
