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
from models.load_artifact import Score, evaluate
from worker.run import Run, Stopped
from worker.training.batches import Batch, TrainingImages, seed_step
from worker.training.checkpoint import load_checkpoint, save_checkpoint
from worker.training.memory_format import use_fastest_format
from worker.training.schedules import learning_rate

BatchLoss = Callable[[Tensor, Batch], Tensor]
"""(logits [N, C] in float32, batch) → scalar loss."""
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


def train(
    network: NetworkType,
    spec: Training,
    run: Run,
    *,
    images: TrainingImages,
    preprocessing: dict[str, Any],
    batch_loss: BatchLoss,
) -> NetworkType:
    """Train `network` in place on the run's device and return it in eval mode, with the weights that
    `spec.select` asks for.

    Notes per epoch `train_loss`, `learning_rate` and, on val, `accuracy` and `cross_entropy`. Raises Problem
    TRAINING_DIVERGED when the loss is no longer finite, and Stopped: "preempt" after a checkpoint, "cancel"
    with the best network so far.
    """
    return _Training(network, spec, run, images, preprocessing, batch_loss).run_to_end()


class _Training(Generic[NetworkType]):
    def __init__(
        self,
        network: NetworkType,
        spec: Training,
        run: Run,
        images: TrainingImages,
        preprocessing: dict[str, Any],
        batch_loss: BatchLoss,
    ) -> None:
        self.network = network.to(run.device)
        self.spec = spec
        self.run = run
        self.images = images
        self.preprocessing = preprocessing
        self.batch_loss = batch_loss
        use_fastest_format(self.network, images.pixels(images.batch(0, "none"), preprocessing))
        self.autocast_dtype = _autocast_dtype(spec, run)
        self.optimizer = build_optimizer(self.network, spec)
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=spec.precision == "amp_fp16")
        self.history = History()
        self.best_weights: dict[str, Tensor] | None = None
        self.has_val = run.data.has("val")
        self.fingerprint = self._fingerprint()

    def run_to_end(self) -> NetworkType:
        self._say_what_is_ignored()
        self._resume()
        steps_per_epoch = self.images.steps_per_epoch
        total = self.spec.epochs * steps_per_epoch
        pace = _Pace(self.history.step, total, steps_per_epoch, self.run)
        saved_at = time.monotonic()

        self.network.train()
        while self.history.step < total:
            self._stop_if_asked()
            self._train_step()
            if self.history.step % steps_per_epoch == 0:
                self._finish_epoch(self.history.step // steps_per_epoch)
                self._save()
                saved_at = time.monotonic()
            elif time.monotonic() - saved_at >= self.run.checkpoint_seconds:
                self._save()
                saved_at = time.monotonic()
            pace.tell(self.history.step)

        self._note_summary()
        return self._result(self.spec.select)

    # --- one step, one epoch ---

    def _train_step(self) -> None:
        step = self.history.step
        rate = learning_rate(self.spec, step, self.images.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seed_step(self.run.seed, step)
        batch = self.images.batch(step, self.spec.augmentation)
        pixels_NCHW = self.images.pixels(batch, self.preprocessing)
        with torch.autocast(
            self.run.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None
        ):
            logits_NC = self.network(pixels_NCHW)
        loss = self.batch_loss(logits_NC.float(), batch)
        value = loss.item()
        if not math.isfinite(value):
            raise self._diverged(f"the loss became {value}")
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
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
        epoch = self.history.step // self.images.steps_per_epoch + 1
        return Problem(
            422,
            "TRAINING_DIVERGED",
            f"Training diverged in epoch {epoch} of {self.spec.epochs}: {what} "
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
            raise Stopped("cancel", self._result("best") if self.best_weights is not None else None)  # type: ignore[arg-type]

    def _save(self) -> None:
        save_checkpoint(
            self.run.work_dir,
            {
                "fingerprint": self.fingerprint,
                "network": self.network.state_dict(),
                "best_weights": self.best_weights,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "history": asdict(self.history),
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
        ]
        return hashlib.sha256(repr(identity).encode()).hexdigest()

    # --- results ---

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
        self.network.to(memory_format=torch.contiguous_format)
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


def build_optimizer(network: nn.Module, spec: Training) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum. Biases and norms (one dimension) are not decayed."""
    decayed, free = [], []
    for parameter in network.parameters():
        if parameter.requires_grad:
            (decayed if parameter.dim() > 1 else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": free, "weight_decay": 0.0}]
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=spec.learning_rate)
    return torch.optim.SGD(groups, lr=spec.learning_rate, momentum=spec.momentum, nesterov=spec.momentum > 0)


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


def concatenated(run: Run, splits: Sequence[Split], spec: Training) -> TrainingImages:
    """The run's images of several splits as one training set."""
    return TrainingImages(run.data, splits, batch_size=spec.batch_size, seed=run.seed, device=run.device)
