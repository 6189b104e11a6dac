"""All steps of a job with one seed: for each apply, pack, measure, report.

Two rules shape it. *What is measured is what is downloaded*: numbers come from a packed file, read by a fresh
process (`worker.measure`). *A killed run ends like an undisturbed one*: each step starts from the packed
bytes of the step before, and the artifact holds nothing that differs from run to run, no times, no ids.
"""

import copy
import hashlib
import importlib
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch

import models
from app.errors import Problem
from app.spec.steps.base import StepSpec
from models import Network
from worker.confusion import confusion
from worker.messages import Line
from worker.run import Run, Stopped, Teacher
from worker.setting import Setting
from worker.stage_zero import against_teacher, agreement
from worker.stages import Stages, write_whole
from worker.stored_layers import stored_layers
from worker.training import snapshots

STEPS_SHARE = 0.95
"""Of a job's progress, where something is measured after the steps (`sensitivity`)."""

TABLES = ("confusion", "layers")
"""What a record has that is large: stages and their events have it, copies of the record do not."""


class Chain:
    """`records`: stage 0, then one for each finished step. `position`: 0-based, of `num_seeds` seeds."""

    def __init__(
        self, setting: Setting, teacher_record: dict[str, Any], *, position: int = 0, num_seeds: int = 1
    ) -> None:
        self.setting = setting
        self.steps: list[StepSpec] = setting.spec.steps
        self.position = position
        self.num_seeds = num_seeds
        self.seed = setting.spec.seed + position
        # One seed alone keeps the folders that jobs have had from the beginning.
        self.folder = setting.work_dir if num_seeds == 1 else setting.work_dir / f"seed-{position}"
        self.stages = Stages(self.folder / "stages")
        self.records: list[dict[str, Any]] = [teacher_record]
        self.step = 0

    @property
    def is_finished(self) -> bool:
        return len(self.records) == len(self.steps) + 1

    def run(self) -> None:
        """Do the steps that are not done yet. Raises Stopped and Problem."""
        model = self._first_model()
        for number, step in enumerate(self.steps, 1):
            self.step = number
            if (record := self.stages.finished(number)) is None:
                record = self._do_step(number, step, model)
            else:
                by = f" by {record['shared_from']}" if "shared_from" in record else ""
                self.setting.log(f"{self._where(number)} was finished already{by}")
            self._note(record)
            self._warn_of_leaks(record)
            self.records.append(record)
            model = models.load(self.stages.path(number)).to(self.setting.device)

    def _first_model(self) -> Network | None:
        """What a first step may edit: the one teacher itself, whose outputs set the order of the job's classes."""
        teachers = self.setting.teachers
        if len(teachers) > 1 or not isinstance(teachers[0], Teacher):
            return None
        assert self.setting.alignment.orders[0] == self.setting.outputs
        return teachers[0].network

    def _where(self, number: int) -> str:
        seed = f"seed {self.position + 1} of {self.num_seeds}, " if self.num_seeds > 1 else ""
        return f"{seed}step {number}"

    # ---- one step

    def _do_step(self, number: int, step: StepSpec, model: Network | None) -> dict[str, Any]:
        self._check_stop_before(number)
        self.setting.phase(f"{self._where(number)} of {len(self.steps)}: {step.method}")
        started = time.monotonic()
        run = self._run_of(number)
        made = importlib.import_module(f"worker.steps.{step.method}").apply(model, step, run)
        seconds = time.monotonic() - started
        write_whole(self.stages.path(number), self.pack(made, number))
        self.setting.phase(f"measuring {self._where(number)} of {len(self.steps)}")
        is_last = number == len(self.steps)
        try:
            measured = self._embed_and_verify(number) if is_last else self._measure_stage(number)
        except Stopped as stopped:  # the step itself is done: its network is the best so far
            raise Stopped(stopped.stop, made) from stopped
        record = {
            "step": number,
            "method": step.method,
            **measured,
            "seconds": seconds,
            "cost": asdict(run.cost),
            "details": run.details,
            "attachments": dict(run.attachments),
        }
        self._flag_leaks(record, number)
        self.stages.keep(number, record)
        seed = {"seed": self.seed} if self.num_seeds > 1 else {}
        self.setting.line.send({"type": "stage", **record, **seed})
        return record

    def adopt(self, number: int, network: Network, record: dict[str, Any]) -> dict[str, Any]:
        """Finish step `number` with what another job made of it, packed as this job would have; its record is that job's.

        What is measured again: the answer, whose numbers are in its file; and what a job compares with its several
        teachers in another way than the other one did.
        """
        write_whole(self.stages.path(number), self.pack(network, number))
        if number == len(self.steps):
            measured = self._embed_and_verify(number)
        elif self._combines_later(number):
            measured = self._measure_stage(number)
        else:
            measured = {"size_bytes": self.stages.path(number).stat().st_size}
        record = {**record, **measured}
        self._flag_leaks(record, number)
        self.stages.keep(number, record)
        return record

    def _combines_later(self, number: int) -> bool:
        """Whether it is a step behind this one that says how several teachers become one."""
        said = any(hasattr(step, "combine") for step in self.steps[:number])
        return len(self.setting.teachers) > 1 and not said

    def _check_stop_before(self, number: int) -> None:
        """A cancel waits for a step that an earlier attempt began: it has the best network so far in its checkpoint,
        and gives it as soon as that is read."""
        is_begun = any(self.step_folder(number).rglob("checkpoint*.pt"))
        if self.setting.stop_requested() != "cancel" or not is_begun:
            self.setting.check_stop()

    def _run_of(self, number: int) -> Run:
        setting = self.setting
        rewind_step = last_training_step(self.steps, number)
        return Run(
            device=setting.device,
            seed=self.seed,
            teachers=setting.teachers,
            data=setting.data,
            step=number,
            work_dir=self.step_folder(number),
            reporter=_Overall(
                setting.line,
                len(self.steps),
                self.position,
                self.num_seeds,
                STEPS_SHARE if setting.spec.sensitivity else 1.0,
            ),
            checkpoint_seconds=setting.order["checkpoint_seconds"],
            stop_requested=setting.stop_requested,
            snapshot_epochs=self.snapshot_epochs(number),
            rewind_dir=self.step_folder(rewind_step) / snapshots.FOLDER if rewind_step else None,
            packed_with=self._packed_with(),
            shared=setting.shared,
        )

    def snapshot_epochs(self, number: int, *, after: int = 0) -> frozenset[int]:
        """The epochs of step `number` whose weights are to be kept: for this job's steps, those behind step `after`, and for
        jobs that go on from this one."""
        return snapshot_epochs(self.steps, number, after=after) | frozenset(self._asked_epochs(number))

    def _asked_epochs(self, number: int) -> list[int]:
        epochs: list[int] = self.setting.order.get("snapshot_epochs", {}).get(str(number), [])
        return epochs

    def _packed_with(self) -> dict[str, Any]:
        """What the answer's file will hold beside its network, or something that takes as many bytes."""
        setting = self.setting
        # Shares with all their digits, and numbers of the length of the largest.
        splits = {
            split: {
                "accuracy": math.sqrt(2 + number) / 2,
                "num_correct": setting.data.num_images(split),
                "num_images": setting.data.num_images(split),
            }
            for number, split in enumerate(setting.splits)
        }
        return {
            "steps": self._described_steps(len(self.steps)),
            "metrics": {"splits": splits, "parameters": 2**31 - 1, "macs": 2**47 - 1},
            "digests": self._digests(hashlib.sha256(b"the network's").hexdigest()),
        }

    def _described_steps(self, number: int) -> list[dict[str, Any]]:
        return [step.model_dump(mode="json") for step in self.steps[:number]]

    def _digests(self, network: str) -> dict[str, Any]:
        teachers = [teacher["sha256"] for teacher in self.setting.order["teachers"]]
        return {"network": network, "splits": self.setting.digests, "teachers": teachers}

    def step_folder(self, number: int) -> Path:
        folder = self.folder / f"step-{number}"
        folder.mkdir(exist_ok=True)
        return folder

    def pack(self, network: Network, number: int, metrics: dict[str, Any] | None = None) -> bytes:
        network = copy.deepcopy(network).to("cpu").eval()  # a step may have handed back the teacher itself
        return models.pack(
            network,
            preprocessing=network.preprocessing,
            class_names=self.setting.alignment.class_names,
            steps=self._described_steps(number),
            metrics=metrics,
            digests=self._digests(models.network_digest(network)),
        )

    # ---- measuring

    def _measure_stage(self, number: int) -> dict[str, Any]:
        logits = self.stages.path(number, ".logits")
        measured = self.setting.measuring.measure(
            self.stages.path(number), outputs=self.setting.outputs, logits=logits
        )
        answers = torch.load(logits, weights_only=True)
        measured["agreement"] = agreement(self.setting, answers)
        measured["against_teacher"] = against_teacher(self.setting, answers)
        measured["confusion"] = {
            split: confusion(answers[split], self.setting.data.labels(split)) for split in self.setting.splits
        }
        measured["layers"] = stored_layers(self.stages.path(number))
        return measured

    def _embed_and_verify(self, number: int) -> dict[str, Any]:
        """The answer: the network with its metrics inside.

        They are taken in this process, then a fresh one measures the file.

        Raises Problem VERIFY_MISMATCH when the two disagree.
        """
        path = self.stages.path(number)
        before = self.setting.measuring.measure_here(path, outputs=self.setting.outputs)
        embedded = {
            "splits": {
                split: {key: score[key] for key in ("accuracy", "num_correct", "num_images")}
                for split, score in before["splits"].items()
            },
            "parameters": before["parameters"],
            "macs": before["macs"],
        }
        write_whole(path, self.pack(models.load(path), number, embedded))
        measured = self._measure_stage(number)
        for split, score in embedded["splits"].items():
            if measured["splits"][split]["num_correct"] != score["num_correct"]:
                raise Problem(
                    500,
                    "VERIFY_MISMATCH",
                    f"Of {score['num_images']} images of {split} the packed network gets "
                    f"{measured['splits'][split]['num_correct']} right in a fresh process and "
                    f"{score['num_correct']} in the trainer's: this worker's arithmetic is not stable.",
                )
        return measured

    def _flag_leaks(self, record: dict[str, Any], number: int) -> None:
        trained = {split for step in self.steps[:number] for split in step.trained_splits}
        for split, score in record["splits"].items():
            score["leaked"] = split in trained

    def _warn_of_leaks(self, record: dict[str, Any]) -> None:
        leaked = [split for split in ("val", "test") if record["splits"].get(split, {}).get("leaked")]
        if leaked:
            self.setting.warn(
                f"Step {record['step']} was trained on {' and '.join(leaked)}: its accuracy there says "
                "nothing about other photos."
            )

    def _note(self, record: dict[str, Any]) -> None:
        note_stage(self.setting.line, record, seed=self.position + 1 if self.num_seeds > 1 else 0)

    # ---- what is left behind

    def artifacts(self, *, finished: bool = True) -> list[dict[str, Any]]:
        """Attachments and networks of the finished steps, the last network last."""
        last = len(self.steps) if finished else -1
        found = []
        for record in self.records[1:]:
            number = record["step"]
            for name, kind in record.get("attachments", {}).items():
                path = self.step_folder(number) / "attachments" / name
                found.append(self._artifact(number, kind, f"step-{number}-{name}", path, {}))
            if finished:
                found += self._kept_weights(number)
            is_final = number == last
            name = "final.pt" if is_final else f"step-{number}-{record['method']}.pt"
            path = self.stages.path(number)
            found.append(
                self._artifact(number, "final" if is_final else "stage", name, path, without_tables(record))
            )
        return found

    def _kept_weights(self, number: int) -> list[dict[str, Any]]:
        """Weights of epochs that jobs which go on from this one go back to."""
        folder = self.step_folder(number) / snapshots.FOLDER
        return [
            self._artifact(number, "snapshot", f"step-{number}-epoch-{epoch}.pt", path, {"epoch": epoch})
            for epoch in sorted(self._asked_epochs(number))
            if (path := snapshots.snapshot_path(folder, epoch)).exists()
        ]

    def keep_best(self, network: Network) -> dict[str, Any]:
        """The best network of a step that did not end, measured when there is time for it."""
        path = self.folder / "best-so-far.pt"
        write_whole(path, self.pack(network, self.step))
        seconds = self.setting.order["cancel_grace_seconds"] / 2
        measured = self.setting.measuring.measure_within(seconds, path, outputs=self.setting.outputs)
        if measured is None:
            self.setting.warn("There was no time to measure the best network so far.")
        return self._artifact(self.step, "best_so_far", "best-so-far.pt", path, measured or {})

    def _artifact(
        self, step: int, kind: str, name: str, path: Path, metrics: dict[str, Any]
    ) -> dict[str, Any]:
        file = str(path.relative_to(self.setting.work_dir))
        return {"step": step, "kind": kind, "name": name, "file": file, "metrics": metrics}


def last_training_step(steps: Sequence[StepSpec], number: int) -> int | None:
    """The 1-based number of the last step before step `number` that trains from epoch 0; None: there is none."""
    return next((n for n in range(number - 1, 0, -1) if steps[n - 1].trains), None)


def snapshot_epochs(steps: Sequence[StepSpec], number: int, *, after: int = 0) -> frozenset[int]:
    """The epochs of step `number` that later steps, those behind step `after`, go back to."""
    return frozenset(
        epoch
        for later in range(max(number, after) + 1, len(steps) + 1)
        if last_training_step(steps, later) == number
        for epoch in steps[later - 1].rewind_epochs
    )


def without_tables(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in TABLES}


class Reader(Protocol):
    def send(self, message: dict[str, Any]) -> None: ...


def note_stage(line: Reader, record: dict[str, Any], *, seed: int = 0) -> None:
    """A stage's numbers as metrics; after a crash they are sent again and replace themselves."""

    def note(split: str, name: str, value: float, unit: str) -> None:
        note_number(line, record["step"], split, name, value, unit, seed=seed)

    for split, score in record["splits"].items():
        note(split, "accuracy", score["accuracy"], "1")
        note(split, "loss", score["loss"], "nat")
    for name, unit in (("size_bytes", "byte"), ("parameters", "1"), ("macs", "1")):
        note("", name, record[name], unit)
    for split, share in record.get("agreement", {}).items():
        note(split, "agreement", share, "1")
    if record["latency_ms"]:
        note("", "latency_ms", record["latency_ms"]["median"], "ms")


def note_number(
    line: Reader, step: int, split: str, name: str, value: float, unit: str, *, seed: int = 0
) -> None:
    """One number of a whole step. `seed`: 1-based position of the seed that it belongs to; 0: of the job."""
    message = {"step": step, "epoch": -1, "split": split, "name": name, "value": value, "unit": unit}
    line.send({"type": "metric", **message} | ({"seed": seed} if seed else {}))


class _Overall:
    """Adds to a step's progress how far the whole job is, and to its metrics whose they are."""

    def __init__(self, line: Line, num_steps: int, position: int, num_seeds: int, share: float) -> None:
        self._line = line
        self._share = share
        self._num_steps = num_steps
        self._position = position
        self._num_seeds = num_seeds

    def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "progress":
            share = message["done"] / message["total"] if message["total"] else 0.0
            fraction = (message["step"] - 1 + share) / self._num_steps
            fraction = self._share * (self._position + fraction) / self._num_seeds
            message = {**message, "num_steps": self._num_steps, "fraction": fraction}
            if self._num_seeds > 1:
                message |= {"seed": self._position + 1, "num_seeds": self._num_seeds}
        elif message["type"] == "metric" and self._num_seeds > 1:
            message = {**message, "seed": self._position + 1}
        self._line.send(message)
