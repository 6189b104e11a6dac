"""Structured pruning: whole channels go, in one or more iterations, with training in between.

Score, cut, recover, again: as Molchanov et al. 2016 (https://arxiv.org/abs/1611.06440). What belongs together follows
Fang et al. 2023 (DepGraph, https://arxiv.org/abs/2301.12900), recovery Renda et al. 2020
(https://arxiv.org/abs/2003.02389) and Liu et al. 2019 (https://arxiv.org/abs/1810.05270); the sources of the criteria are
in `app.spec.steps.prune`. Changed against the course's code: channels stay in their order (there they are sorted by gamma,
which is the same network), and the optimizer is built anew after every cut (`compat: stale_optimizer` does as the course).
"""

import copy
import hashlib
import shutil
from dataclasses import asdict
from typing import Any

from app.errors import Problem
from app.spec.steps.prune import Prune
from models import Network, evaluate, network_digest
from worker.pruning.bn_reestimation import reestimate_batch_norm
from worker.pruning.carving import Carving, Removal
from worker.pruning.criteria import multiplicity
from worker.pruning.recovery import check_rewind, retrain, schedule, set_weights, train_sparsely
from worker.pruning.selection import Selection
from worker.run import Run, Stopped
from worker.training.checkpoint import load_checkpoint, save_checkpoint
from worker.training.loop import concatenated

_FOLDER = "iterations"


def apply(model: Network | None, spec: Prune, run: Run) -> Network:
    """A narrower copy of `model`.

    `run.details`: `start` (parameters, macs, accuracy on val), `iterations` (one row each: iteration, parameters, macs,
    accuracy_before and accuracy_after recovery, epochs, seconds, trained_macs, removed), `not_prunable` (layer -> why),
    `widths` (group of layers -> channels), and `stopped` (iteration, reason) where it ended early. With a target in bytes
    start and rows have `bytes` as well, of the file as it then is. Accuracies are null without a val split.

    Raises Problem 422 before anything is trained: EXCLUDE_UNKNOWN, NOTHING_TO_PRUNE, TARGET_UNREACHABLE, VAL_NEEDED,
    REWIND_IMPOSSIBLE, SNAPSHOT_MISSING. Raises Stopped: "cancel" with the network of the last finished iteration.
    """
    assert model is not None, "the pipeline gives the network of the step before"
    network = copy.deepcopy(model).to(run.device).eval()
    network.encoded = {}
    pruned = _Pruning(network, spec, run).run_to_end()
    if network_digest(pruned) == network_digest(model):
        pruned.encoded = dict(model.encoded)  # nothing was removed or trained: it stays as it was stored
    return pruned


class _Pruning:
    def __init__(self, network: Network, spec: Prune, run: Run) -> None:
        assert network.preprocessing is not None, "a step's network knows its preprocessing"
        self.preprocessing = network.preprocessing
        self.spec = spec
        self.run = run
        self.has_val = run.data.has("val")
        self.fingerprint = self._fingerprint(network)
        self.carving = Carving(network)
        self.rows: list[dict[str, Any]] = []
        self.selection = Selection(self.carving, spec, run, self._check_stop)
        self.start: dict[str, Any] = {**self.carving.count({}), **self._bytes()}
        self.finished: Network | None = None
        """Of the last whole iteration."""

    # ---- the story

    def run_to_end(self) -> Network:
        self._say_what_stays()
        self._check_before_training()
        try:
            self._run_iterations()
        except Stopped as stopped:
            if stopped.stop == "preempt":
                raise
            raise Stopped(stopped.stop, self.finished or stopped.model) from stopped
        self.run.details["widths"] = {
            group.name: group.num_units * multiplicity(group) for group in self.carving.groups()
        }
        return self.carving.network.requires_grad_(False).eval()

    def _run_iterations(self) -> None:
        done = self._resume()
        if done is None:
            self.start["accuracy"] = self._accuracy()
            self._train_sparsely()
            done = 0
            self._save(done)
        self.run.details |= {"start": self.start, "iterations": self.rows}
        for iteration in range(done + 1, self.spec.iterations + 1):
            if not self._iterate(iteration):
                break

    def _iterate(self, iteration: int) -> bool:
        """One cut and its recovery; false where it was the last one."""
        self._check_stop()
        removal = self.selection.choose(iteration)
        end = self.selection.ends_with(removal)
        too_far = self.selection.goes_too_far(removal)
        if too_far is not None:
            removal, end = {}, too_far
        if end is not None and not removal and not self._waits_for_recovery():
            self._say_stopped(iteration, end)
            return False
        is_last = end is not None or iteration == self.spec.iterations
        before, left = self.carving.network, self.carving.left.copy()
        row = self._cut_and_recover(iteration, removal, is_last=is_last)
        self.rows.append(row)
        self._note(row)
        if self._fell_too_far(row, is_last=is_last):
            self.carving.restore(left, before.state_dict())
            return False
        self.finished = self.carving.network
        self._save(iteration)
        if end is not None and (iteration < self.spec.iterations or not removal):
            self._say_stopped(iteration, end)
        if is_last and too_far is None:
            self._warn_if_too_large(row)
        return not is_last

    def _waits_for_recovery(self) -> bool:
        """Whether earlier cuts were left to the training after the last one."""
        return bool(self.rows) and self.spec.recovers and self.spec.recover_after == "last"

    def _cut_and_recover(self, iteration: int, removal: Removal, *, is_last: bool) -> dict[str, Any]:
        before, cost = self.carving.network, copy.copy(self.run.cost)
        self.carving.remove(removal)
        row: dict[str, Any] = {"iteration": iteration, **self.carving.count({})}
        row["accuracy_before"] = self._accuracy()
        recovers = self._recovers_after(is_last)
        if self.spec.bn_reestimation_batches:
            self._reestimate_batch_norm()
        if recovers:
            self._recover(iteration, before)
        changed = recovers or self.spec.bn_reestimation_batches > 0
        return row | {
            "accuracy_after": self._accuracy() if changed else row["accuracy_before"],
            "epochs": self.run.cost.epochs - cost.epochs,
            "seconds": self.run.cost.seconds - cost.seconds,
            "trained_macs": self.run.cost.macs - cost.macs,
            "removed": sum(len(units) for units in removal.values()),
            **self._bytes(),
        }

    # ---- training

    def _recovers_after(self, is_last: bool) -> bool:
        return self.spec.recovers and (is_last or self.spec.recover_after == "each")

    def _recover(self, iteration: int, before: Network) -> None:
        set_weights(self.carving, self.spec, self.run, iteration)
        plan = schedule(self.spec, macs_before=self.start["macs"], macs_after=self.carving.count({})["macs"])
        run = self._nested(f"iteration-{iteration}", iteration)
        retrain(self.carving.network, self.spec, run, plan, before=before)

    def _train_sparsely(self) -> None:
        if self.spec.sparsity is not None:
            train_sparsely(self.carving, self.spec, self._nested("sparsity", 0))

    def _nested(self, name: str, part: int) -> Run:
        """Iteration k is part k of the step; sparse training comes before, as part 0."""
        parts = self.spec.iterations + (self.spec.sparsity is not None)
        first = part if self.spec.sparsity is not None else part - 1
        return self.run.nested(
            name, first_epoch=round(self.run.cost.epochs), window=(first / parts, (first + 1) / parts)
        )

    def _reestimate_batch_norm(self) -> None:
        training = self.spec.training.model_copy(update={"mixup": 0.0})
        reestimate_batch_norm(
            self.carving.network,
            concatenated(self.run, ["train"], training),
            self.preprocessing,
            num_batches=self.spec.bn_reestimation_batches,
            check_stop=self._check_stop,
        )

    # ---- before, between and after

    def _check_before_training(self) -> None:
        check_rewind(self.carving, self.spec, self.run)
        if self.spec.stop_if_accuracy_drops is not None and not self.has_val:
            raise Problem(
                422,
                "VAL_NEEDED",
                f"stop_if_accuracy_drops is {self.spec.stop_if_accuracy_drops}, and this data set has no val split to "
                "measure a drop on: register it with a val_fraction, or leave the rule out.",
            )

    def _say_what_stays(self) -> None:
        self.run.details["not_prunable"] = self.selection.not_prunable
        for layer, why in self.selection.not_prunable.items():
            self.run.log(f"{layer} keeps its channels: {why}")

    def _accuracy(self) -> float | None:
        if not self.has_val:
            return None
        data = self.run.data
        score = evaluate(
            self.carving.network,
            data.images("val", self.preprocessing),
            data.labels("val"),
            self.preprocessing,
        )
        return score.accuracy

    def _bytes(self) -> dict[str, int]:
        goal = self.selection.goal
        return {"bytes": goal.now()} if goal is not None and goal.measure == "bytes" else {}

    def _warn_if_too_large(self, row: dict[str, Any]) -> None:
        goal = self.selection.goal
        if goal is not None and row.get("bytes", 0) > goal.wanted:
            self.run.log(
                f"training left weights that deflate less: {row['bytes']:,} {goal.unit}, and the target is {goal.wanted:,}",
                "warning",
            )

    def _fell_too_far(self, row: dict[str, Any], *, is_last: bool) -> bool:
        allowed = self.spec.stop_if_accuracy_drops
        if allowed is None or (self.spec.recovers and not self._recovers_after(is_last)):
            return False
        drop = self.start["accuracy"] - row["accuracy_after"]
        if drop <= allowed + 1e-9:  # 0.75 - 0.74 is more than 0.01 in binary
            return False
        self._say_stopped(
            row["iteration"],
            f"accuracy on val fell by {drop:.4f}, from {self.start['accuracy']:.4f} to {row['accuracy_after']:.4f}, and "
            f"stop_if_accuracy_drops is {allowed}: the network of the iteration before is kept",
        )
        return True

    def _say_stopped(self, iteration: int, reason: str) -> None:
        self.run.details["stopped"] = {"iteration": iteration, "reason": reason}
        self.run.log(f"pruning stopped at iteration {iteration}: {reason}", "warning")

    def _note(self, row: dict[str, Any]) -> None:
        trains_each = self.spec.recovers and self.spec.recover_after == "each"
        # Without training in between all iterations would share one epoch.
        epoch = round(self.run.cost.epochs) if trains_each else row["iteration"]
        for name in ("parameters", "macs"):
            self.run.note(name, row[name], epoch=epoch)
        for name in ("accuracy_before", "accuracy_after"):
            if row[name] is not None:
                self.run.note(name, row[name], split="val", epoch=epoch)
        self.run.progress(row["iteration"], self.spec.iterations, "iteration")

    def _check_stop(self) -> None:
        if (stop := self.run.stop_requested()) is not None:
            raise Stopped(stop)

    # ---- going on after a kill

    def _save(self, iteration: int) -> None:
        save_checkpoint(
            self.run.work_dir / _FOLDER,
            {
                "fingerprint": self.fingerprint,
                "iteration": iteration,
                "left": self.carving.left,
                "network": self.carving.network.state_dict(),
                "rows": self.rows,
                "start": self.start,
                "cost": asdict(self.run.cost),
            },
        )
        # What it trained with is not needed any more; of hundreds of iterations it would fill the disk.
        shutil.rmtree(self.run.work_dir / f"iteration-{iteration}", ignore_errors=True)

    def _resume(self) -> int | None:
        """The last finished iteration, or None; 0 is the sparse training."""
        state = load_checkpoint(self.run.work_dir / _FOLDER, fingerprint=self.fingerprint)
        if state is None:
            return None
        self.carving.restore(state["left"], state["network"])
        self.rows, self.start = state["rows"], state["start"]
        self.run.cost.add(**state["cost"])
        done: int = state["iteration"]
        if done:
            self.finished = self.carving.network
            self.run.log(f"pruning goes on after iteration {done}")
        return done

    def _fingerprint(self, network: Network) -> str:
        """What must agree for a checkpoint to be this step's."""
        data = self.run.data
        identity = [
            self.spec.model_dump(mode="json"),
            self.run.seed,
            network_digest(network),
            [data.digest(split) for split in ("train", "val") if data.has(split)],
            [teacher.id for teacher in self.run.teachers] if self.spec.alpha else [],
        ]
        return hashlib.sha256(repr(identity).encode()).hexdigest()
