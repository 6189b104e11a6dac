"""The one training loop. Every step that trains brings its network and a loss; how weights move is decided
here.

A run that is killed at any moment and starts again ends with the same weights, to the bit (CPU, same number
of threads): the order of images, the views, dropout and the learning rate follow from seed and step number
alone, everything else is in the checkpoint.
"""

import copy
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from app.errors import Problem
from app.spec.base import Split
from app.spec.training import Training
from models import Network, layer_table
from models.load_artifact import Score, evaluate
from worker.run import Run, Stopped
from worker.training.batches import TrainingImages
from worker.training.checkpoint import load_checkpoint, save_checkpoint
from worker.training.dropout import dropout_probability
from worker.training.gradients import BatchLoss, Gradients
from worker.training.memory_format import fastest_format
from worker.training.schedules import learning_rate
from worker.training.snapshots import FOLDER, save_snapshot

OptimizerBuilder = Callable[[nn.Module, Training], torch.optim.Optimizer]
"""The loop sets the rate of every group at every step."""
NetworkType = TypeVar("NetworkType", bound=nn.Module)

_PROGRESS_SECONDS = 1.0


@dataclass
class History:
    """How far the run is, and what it has seen: all that is neither weights nor optimizer."""

    step: int = 0
    loss_sum: float = 0.0
    """Of this epoch's steps so far."""
    accuracies: list[float] = field(default_factory=list)
    """On val, one an epoch."""
    best: dict[str, float] | None = None
    """accuracy, cross_entropy, epoch."""
    seconds: float = 0.0
    """Spent by all attempts, validation included."""


def build_optimizer(network: nn.Module, spec: Training) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum. Biases and norms (one dimension) are not decayed."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for parameter in network.parameters():
        if parameter.requires_grad:
            (decayed if parameter.dim() > 1 else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": free, "weight_decay": 0.0}]
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=spec.learning_rate)
    return torch.optim.SGD(groups, lr=spec.learning_rate, momentum=spec.momentum, nesterov=spec.momentum > 0)


def train(
    network: NetworkType,
    spec: Training,
    run: Run,
    *,
    images: TrainingImages,
    preprocessing: dict[str, Any],
    batch_loss: BatchLoss,
    from_epoch: int = 0,
    forward: Callable[[Tensor], Tensor] | None = None,
    build_optimizer: OptimizerBuilder = build_optimizer,
    after_step: Callable[[], None] | None = None,
    teacher_macs: int = 0,
    macs: int | None = None,
) -> NetworkType:
    """Train `network` in place on the run's device and return it in eval mode, with the weights that
    `spec.select` asks for.

    * `from_epoch`: begin at this epoch of the schedule, so that `epochs - from_epoch` are trained: learning-rate
      rewinding (Renda et al. 2020, https://arxiv.org/abs/2003.02389). Noted epochs count what is trained, from 1.
    * `forward`: what is called in training instead of `network(pixels)`; validation always calls the network.
    * `after_step`: called after every step of the optimizer, to put masked weights back to 0.
    * `teacher_macs`, `macs`: multiply-adds of a forward pass of one image, of the teachers and of the network. Where
      `macs` is not given it is that of the `models.Network` that `network` is, or holds, else 0.

    When memory runs out in a forward or backward pass, batches are taken in parts whose gradients add up to the whole
    batch's (`worker.training.gradients`). Batch normalisation then sees the statistics of a part, and a loss that
    compares the images of a batch with each other compares them within a part.

    Notes per epoch `train_loss`, `learning_rate` and, on val, `accuracy` and `cross_entropy`; at the end what all
    training of the run's step took: `trained_epochs`, `trained_seconds` and `trained_macs`. Keeps the weights of the
    epochs in `run.snapshot_epochs`. Raises Problem TRAINING_DIVERGED when the loss is no longer finite, OUT_OF_MEMORY
    when parts of two images are still too large, and Stopped: "preempt" after a checkpoint, "cancel" with the best
    network so far.
    """
    assert 0 <= from_epoch <= spec.epochs, "the schedule has this epoch"
    network.to(run.device)
    trial_NCHW = images.pixels(images.batch(0, "none"), preprocessing)
    with fastest_format(network, trial_NCHW), dropout_probability(network, spec.dropout, run):
        optimizer = build_optimizer(network, spec)
        training = _Training(network, spec, run, images, preprocessing, optimizer, from_epoch)
        training.gradients = Gradients(
            network,
            optimizer,
            training.scaler,
            run,
            forward=forward or network,
            batch_loss=batch_loss,
            autocast_dtype=_autocast_dtype(spec, run),
        )
        training.after_step = after_step
        training.macs_per_image = teacher_macs + 3 * (_macs_of(network) if macs is None else macs)
        return training.run_to_end()


class _Training(Generic[NetworkType]):
    gradients: Gradients
    after_step: Callable[[], None] | None
    macs_per_image: int

    def __init__(
        self,
        network: NetworkType,
        spec: Training,
        run: Run,
        images: TrainingImages,
        preprocessing: dict[str, Any],
        optimizer: torch.optim.Optimizer,
        from_epoch: int,
    ) -> None:
        self.network = network
        self.spec = spec
        self.run = run
        self.images = images
        self.preprocessing = preprocessing
        self.from_epoch = from_epoch
        self.first_step = from_epoch * images.steps_per_epoch
        self.optimizer = optimizer
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=spec.precision == "amp_fp16")
        self.history = History(step=self.first_step)
        self.best_weights: dict[str, Tensor] | None = None
        self.has_val = run.data.has("val")
        self.fingerprint = self._fingerprint()

    def run_to_end(self) -> NetworkType:
        self._say_what_is_ignored()
        self._resume()
        self.resumed_at, self.seconds_before = time.monotonic(), self.history.seconds
        steps_per_epoch = self.images.steps_per_epoch
        total = self.spec.epochs * steps_per_epoch
        pace = _Pace(self.history.step - self.first_step, total - self.first_step, steps_per_epoch, self.run)
        saved_at = time.monotonic()
        if self.history.step == self.first_step:
            self._snapshot(self.from_epoch)

        self.network.train()
        while self.history.step < total:
            self._stop_if_asked()
            self._train_step()
            if self.history.step % steps_per_epoch == 0:
                self._finish_epoch(self.history.step // steps_per_epoch - self.from_epoch)
                # Before the checkpoint: a run that is killed in between comes by here again.
                self._snapshot(self.history.step // steps_per_epoch)
                self._save()
                saved_at = time.monotonic()
            elif time.monotonic() - saved_at >= self.run.checkpoint_seconds:
                self._save()
                saved_at = time.monotonic()
            pace.tell(self.history.step - self.first_step)

        self._add_cost()
        self._note_summary()
        return self._result(self.spec.select)

    # --- one step, one epoch ---

    def _train_step(self) -> None:
        step = self.history.step
        rate = learning_rate(self.spec, step, self.images.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.images.batch(step, self.spec.augmentation)
        value = self.gradients.take(step, batch, lambda batch: self.images.pixels(batch, self.preprocessing))
        if not math.isfinite(value):
            raise self._diverged(f"the loss became {value}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.after_step is not None:
            self.after_step()
        self.history.step += 1
        self.history.loss_sum += value

    def _finish_epoch(self, epoch: int) -> None:
        """Epochs are counted from 1 in what is noted."""
        steps_per_epoch = self.images.steps_per_epoch
        self.run.note("train_loss", self.history.loss_sum / steps_per_epoch, split="train", epoch=epoch)
        self.run.note(
            "learning_rate", learning_rate(self.spec, self.history.step - 1, steps_per_epoch), epoch=epoch
        )
        self.history.loss_sum = 0.0
        if not self.has_val:
            return
        data = self.run.data
        score = evaluate(
            self.network, data.images("val", self.preprocessing), data.labels("val"), self.preprocessing
        )
        if not math.isfinite(score.cross_entropy):
            raise self._diverged(f"the cross-entropy on val became {score.cross_entropy}")
        self.run.note("accuracy", score.accuracy, split="val", epoch=epoch)
        self.run.note("cross_entropy", score.cross_entropy, "nat", split="val", epoch=epoch)
        self.history.accuracies.append(score.accuracy)
        if self._is_best(score):
            self.history.best = {
                "accuracy": score.accuracy,
                "cross_entropy": score.cross_entropy,
                "epoch": epoch,
            }
            self.best_weights = copy.deepcopy(self.network.state_dict())

    def _is_best(self, score: Score) -> bool:
        """By accuracy; val is small and ties are common, so then by cross-entropy."""
        best = self.history.best
        return best is None or (score.accuracy, -score.cross_entropy) > (
            best["accuracy"],
            -best["cross_entropy"],
        )

    def _diverged(self, what: str) -> Problem:
        epoch = self.history.step // self.images.steps_per_epoch + 1 - self.from_epoch
        return Problem(
            422,
            "TRAINING_DIVERGED",
            f"Training diverged in epoch {epoch} of {self.spec.epochs - self.from_epoch}: {what} "
            f"at learning_rate {self.spec.learning_rate}. "
            "Lower learning_rate (a tenth is a good next try) or raise warmup_epochs.",
        )

    # --- stopping and going on ---

    def _stop_if_asked(self) -> None:
        stop = self.run.stop_requested()
        if stop == "preempt":
            self._save()
            raise Stopped("preempt")
        if stop == "cancel":
            self._add_cost()
            raise Stopped("cancel", self._best_so_far())

    def _best_so_far(self) -> Network | None:
        """Of the epochs that ended the best on val, without val the weights as they are; None in the first epoch."""
        if self.history.step < self.first_step + self.images.steps_per_epoch:
            return None
        best = _network_in(self._result("best"))
        return best  # type: ignore[return-value]  # a Network wherever a step is under way

    def _snapshot(self, epoch: int) -> None:
        if epoch in self.run.snapshot_epochs:
            save_snapshot(self.run.work_dir / FOLDER, epoch, _network_in(self.network))

    def _save(self) -> None:
        self._count_seconds()
        save_checkpoint(
            self.run.work_dir,
            {
                "fingerprint": self.fingerprint,
                "network": self.network.state_dict(),
                "best_weights": self.best_weights,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "history": asdict(self.history),
                "num_parts": self.gradients.num_parts,
            },
        )

    def _resume(self) -> None:
        state = load_checkpoint(self.run.work_dir, fingerprint=self.fingerprint)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.best_weights = state["best_weights"]
        self.history = History(**state["history"])
        self.gradients.num_parts = state["num_parts"]
        self.run.log(f"training goes on at step {self.history.step}")

    def _fingerprint(self) -> str:
        """What must agree for a checkpoint to be this training's."""
        shapes = {name: list(tensor.shape) for name, tensor in self.network.state_dict().items()}
        identity = [
            self.spec.model_dump(mode="json"),
            self.run.seed,
            self.images.digests,
            self.preprocessing,
            shapes,
            self.from_epoch,
        ]
        return hashlib.sha256(repr(identity).encode()).hexdigest()

    # --- results ---

    def _count_seconds(self) -> None:
        self.history.seconds = self.seconds_before + time.monotonic() - self.resumed_at

    def _add_cost(self) -> None:
        """What this training took over all attempts; noted is the sum over the step."""
        self._count_seconds()
        num_steps = self.history.step - self.first_step
        num_images = self.images.num_images_in(num_steps)
        self.run.cost.add(
            epochs=num_steps / self.images.steps_per_epoch,
            seconds=self.history.seconds,
            macs=num_images * self.macs_per_image,
        )
        self.run.note("trained_epochs", self.run.cost.epochs, "epoch")
        self.run.note("trained_seconds", self.run.cost.seconds, "second")
        self.run.note("trained_macs", self.run.cost.macs)

    def _note_summary(self) -> None:
        history, best = self.history, self.history.best
        if best is None:
            return
        top = sorted(history.accuracies, reverse=True)[: self.spec.best_k]
        self.run.note("best_accuracy", best["accuracy"], split="val")
        self.run.note("best_epoch", best["epoch"], "epoch")
        self.run.note("last_accuracy", history.accuracies[-1], split="val")
        # The report's metric. Epochs were picked by the split they are scored on: optimistic, as its name
        # says.
        self.run.note("best_k_mean_accuracy_optimistic", sum(top) / len(top), split="val")

    def _result(self, select: Literal["best", "last"]) -> NetworkType:
        if select == "best" and self.best_weights is not None:
            self.network.load_state_dict(self.best_weights)
        for parameter in self.network.parameters():
            parameter.grad = None
        return self.network.eval()

    def _say_what_is_ignored(self) -> None:
        if self.spec.select == "best" and not self.has_val:
            self.run.log(
                "select 'best' needs a val split and there is none: the last epoch's weights are taken",
                "warning",
            )
        if self.spec.schedule == "one_cycle" and "warmup_epochs" in self.spec.model_fields_set:
            self.run.log("warmup_epochs is ignored: schedule 'one_cycle' has its own warm-up", "warning")


def _network_in(network: nn.Module) -> nn.Module:
    """The network itself, where it is wrapped with parameters that only training needs."""
    return next((module for module in network.modules() if isinstance(module, Network)), network)


def _macs_of(network: nn.Module) -> int:
    found = _network_in(network)
    macs: int = layer_table(found)["macs"] if isinstance(found, Network) else 0
    return macs


def _autocast_dtype(spec: Training, run: Run) -> torch.dtype | None:
    if spec.precision == "fp32":
        return None
    if spec.precision == "amp_bf16":
        if run.device.type == "cpu":
            run.log("amp_bf16 on a CPU without bf16 units is about ten times slower than fp32", "warning")
        return torch.bfloat16
    if run.device.type == "cpu":
        raise Problem(
            422,
            "PRECISION_UNSUPPORTED",
            "precision 'amp_fp16' needs a GPU and this job runs on the CPU: use 'fp32' there.",
        )
    return torch.float16


class _Pace:
    """Progress with the time left, at most once a second."""

    def __init__(self, step: int, total: int, steps_per_epoch: int, run: Run) -> None:
        self._first_step = step
        self._total = total
        self._steps_per_epoch = steps_per_epoch
        self._run = run
        self._started = self._told = time.monotonic()

    def tell(self, step: int) -> None:
        now = time.monotonic()
        if now - self._told < _PROGRESS_SECONDS and step < self._total:
            return
        self._told = now
        seconds_a_step = (now - self._started) / (step - self._first_step)
        epochs = self._total / self._steps_per_epoch
        self._run.progress(
            step / self._steps_per_epoch, epochs, "epoch", seconds_a_step * (self._total - step)
        )


def concatenated(
    run: Run, splits: Sequence[Split], spec: Training, *, views: int | None = None
) -> TrainingImages:
    """The run's images of several splits as one training set; each with this many views, or ever new ones."""
    return TrainingImages(
        run.data,
        splits,
        batch_size=spec.batch_size,
        seed=run.seed,
        device=run.device,
        train_fraction=spec.train_fraction,
        mixup=spec.mixup,
        views=views,
    )
