"""The gradients of one batch: at once, or in parts where memory does not hold all of it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from app.errors import Problem
from worker.run import Run
from worker.training.batches import Batch, seed_step
from worker.training.memory import Buffers, is_out_of_memory, parts_of

BatchLoss = Callable[[Tensor, Batch], Tensor]
"""(logits [N, C] in float32, batch) → scalar loss, the mean over the batch."""


class Gradients:
    """Forward and backward passes over batches.

    When memory runs out, the batch is done again in 2, 4, 8, ... parts, and so are all after it: each part's loss
    counts by its share of the images, so that the gradients add up to the whole batch's. Batch normalisation sees
    the statistics of a part, and moves its running means once a part. A pass that failed leaves no trace: random
    state and buffers are put back before the next try.
    """

    num_parts = 1
    """What a batch is divided into; part of a checkpoint, or a resumed run would find out later than its first
    attempt."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        run: Run,
        *,
        forward: Callable[[Tensor], Tensor],
        batch_loss: BatchLoss,
        autocast_dtype: torch.dtype | None,
    ) -> None:
        self._network = network
        self._optimizer = optimizer
        self._scaler = scaler
        self._run = run
        self._forward = forward
        self._batch_loss = batch_loss
        self._autocast_dtype = autocast_dtype

    def take(self, step: int, batch: Batch, pixels_of: Callable[[Batch], Tensor]) -> float:
        """Leave the gradients of the batch of this 0-based step in the parameters; returns its loss.

        `pixels_of`: the network's own pixels of a batch. Raises Problem OUT_OF_MEMORY when parts of two images are
        still too large: batch normalisation cannot train on one.
        """
        buffers = Buffers(self._network)
        while True:
            seed_step(self._run.seed, step)
            self._optimizer.zero_grad(set_to_none=True)
            self._network.zero_grad(set_to_none=True)  # an optimizer need not hold every parameter
            try:
                return self._pass_over(batch, pixels_of(batch))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error)
            # Outside of the handler: the error holds on to every tensor of the failed pass.
            buffers.restore()
            self._divide(step, len(batch.indices_N), reason)

    def _pass_over(self, batch: Batch, pixels_NCHW: Tensor) -> float:
        num_images = len(batch.indices_N)
        parts = list(parts_of(num_images, self.num_parts))
        if len(parts) == 1:
            return self._forward_and_backward(pixels_NCHW, batch, share=1.0)
        return sum(
            self._forward_and_backward(
                pixels_NCHW[rows], batch.part(rows), share=(rows.stop - rows.start) / num_images
            )
            for rows in parts
        )

    def _forward_and_backward(self, pixels_NCHW: Tensor, batch: Batch, *, share: float) -> float:
        with torch.autocast(
            self._run.device.type, dtype=self._autocast_dtype, enabled=self._autocast_dtype is not None
        ):
            logits_NC = self._forward(pixels_NCHW)
        loss = self._batch_loss(logits_NC.float(), batch) * share
        self._scaler.scale(loss).backward()
        return loss.item()

    def _divide(self, step: int, num_images: int, reason: str) -> None:
        num_parts = 2 * min(self.num_parts, max(num_images // 2, 1))
        if num_images // num_parts < 2:
            raise Problem(
                422,
                "OUT_OF_MEMORY",
                f"Two images at a time need more memory than {self._run.device} has "
                f"({(reason.splitlines() or [''])[0][:200]}). "
                "Take a smaller input size, a smaller network or teacher, or a larger device.",
            )
        self.num_parts = num_parts
        self._run.log(
            f"memory ran out at step {step}: batches are taken in {num_parts} parts from here on. Gradients add up to "
            "the whole batch's, but batch normalisation sees the statistics of a part.",
            "warning",
        )
        if self._run.device.type == "cuda":
            torch.cuda.empty_cache()  # pieces of the failed size are of no use to the smaller ones
