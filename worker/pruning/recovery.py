"""Training after a cut, as two knobs: which weights to go on with, and where in the schedule.

Renda, Frankle, Carbin 2020, "Comparing Rewinding and Fine-tuning in Neural Network Pruning",
https://arxiv.org/abs/2003.02389: fine-tuning keeps the weights and a small constant rate, weight rewinding goes back with
both, learning-rate rewinding with the schedule alone. New weights and the whole schedule are Liu et al. 2019's scratch
training, https://arxiv.org/abs/1810.05270, whose scratch-B trains for int(epochs * MACs before / MACs after) epochs.
"""

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.errors import Problem
from app.spec.steps.prune import Prune
from app.spec.training import Training
from models import Network
from models.initialise import reinitialise
from worker.distillation.teachers import TeacherTargets
from worker.pruning.carving import Carving
from worker.pruning.sparsity import group_lasso, slimming_penalty
from worker.run import Run
from worker.training.batches import Batch
from worker.training.loop import OptimizerBuilder, build_optimizer, concatenated, train
from worker.training.losses import distillation_loss
from worker.training.snapshots import load_snapshot


@dataclass(frozen=True)
class Schedule:
    """A training and the epoch of it to begin with."""

    training: Training
    from_epoch: int

    @property
    def num_epochs(self) -> int:
        return self.training.epochs - self.from_epoch


def schedule(spec: Prune, *, macs_before: int, macs_after: int) -> Schedule:
    """What the knobs ask for after a cut from `macs_before` to `macs_after` multiply-adds an image."""
    training: Training = spec.training
    if spec.recover == "scratch_b":
        training = training.model_copy(
            update={"epochs": int(training.epochs * macs_before / max(macs_after, 1))}
        )
    if isinstance(spec.schedule_from_epoch, int):
        return Schedule(training, spec.schedule_from_epoch)
    constant = {"learning_rate": spec.finetune_learning_rate, "schedule": "constant", "warmup_epochs": 0.0}
    return Schedule(training.model_copy(update=constant), 0)


def set_weights(carving: Carving, spec: Prune, run: Run, iteration: int) -> None:
    """Give the network that is left the weights to go on with. Raises Problem 422 REWIND_IMPOSSIBLE where the step that
    kept its weights had another network, and SNAPSHOT_MISSING where it kept none of this epoch."""
    network, source = carving.network, spec.weights_from_epoch
    if source == "new":
        reinitialise(network, run.seed + iteration)
    elif isinstance(source, int):
        network.load_state_dict(_rewound(carving, source, run))


def check_rewind(carving: Carving, spec: Prune, run: Run) -> None:
    """Find out before anything is trained. Raises as `set_weights`."""
    if isinstance(spec.weights_from_epoch, int):
        _rewound(carving, spec.weights_from_epoch, run)


def _rewound(carving: Carving, epoch: int, run: Run) -> dict[str, Tensor]:
    if run.rewind_dir is None:
        raise Problem(
            422,
            "REWIND_IMPOSSIBLE",
            f"weights_from_epoch is {epoch}, and no step before this one trained a network: put one before it, or set "
            "weights_from_epoch to 'end' or 'new'.",
        )
    try:
        return carving.cut_alike(load_snapshot(run.rewind_dir, epoch))
    except ValueError as error:
        raise Problem(
            422,
            "REWIND_IMPOSSIBLE",
            f"weights_from_epoch is {epoch}, but the step that trained last had another network than this one prunes "
            f"({error}): put the prune step right behind it, or set weights_from_epoch to 'end' or 'new'.",
        ) from error


def retrain(network: Network, spec: Prune, run: Run, plan: Schedule, *, before: Network) -> Network:
    """Train what is left, in place. `before`: the network of before the cut, whose parameters a stale optimizer holds."""
    holder = copy.deepcopy(before).requires_grad_(True) if spec.compat == "stale_optimizer" else None

    def optimizer(network: nn.Module, training: Training) -> torch.optim.Optimizer:
        return build_optimizer(network if holder is None else holder.to(run.device), training)

    return _train(network, spec, run, plan, optimizer=optimizer)


def train_sparsely(carving: Carving, spec: Prune, run: Run) -> Network:
    """Train the network as it is, with the penalty of `spec.sparsity` in the loss, for its epochs."""
    assert spec.sparsity is not None
    sparsity, groups, network = spec.sparsity, carving.groups(), carving.network

    def penalty() -> Tensor:
        if sparsity.kind == "slimming":
            return sparsity.weight * slimming_penalty(network)
        return sparsity.weight * group_lasso(network, groups)

    training = spec.training.model_copy(update={"epochs": sparsity.epochs})
    if training.warmup_epochs >= sparsity.epochs:
        training = training.model_copy(update={"warmup_epochs": 0.0})
    return _train(network, spec, run, Schedule(training, 0), penalty=penalty)


def _train(
    network: Network,
    spec: Prune,
    run: Run,
    plan: Schedule,
    *,
    optimizer: OptimizerBuilder = build_optimizer,
    penalty: Callable[[], Tensor] | None = None,
) -> Network:
    assert network.preprocessing is not None
    images = concatenated(run, ["train"], plan.training)
    # With hard labels only, no teacher is run at all.
    teachers = run.teachers if spec.alpha > 0 else []
    with ExitStack() as stack:
        targets = stack.enter_context(
            TeacherTargets(
                teachers, images, temperature=spec.temperature, combine="mean_probability", weights=None
            )
        )

        def batch_loss(logits_NC: Tensor, batch: Batch) -> Tensor:
            loss = distillation_loss(
                logits_NC,
                batch,
                targets(batch) if teachers else None,
                alpha=spec.alpha,
                temperature=spec.temperature,
            )
            return loss if penalty is None else loss + penalty()

        return train(
            network.requires_grad_(True),
            plan.training,
            run,
            images=images,
            preprocessing=network.preprocessing,
            batch_loss=batch_loss,
            from_epoch=plan.from_epoch,
            build_optimizer=optimizer,
            teacher_macs=targets.macs_in(plan.num_epochs),
        )
