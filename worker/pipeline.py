"""A compress job, told in order: load and measure the teachers; for each step apply, pack, measure; pack and
verify the answer.

Two rules shape it. *What is measured is what is downloaded*: numbers come from a packed file, read by a fresh
process (`worker.measure`). *A killed run ends like an undisturbed one*: each step starts from the packed
bytes of the step before, and the artifact holds nothing that differs from run to run, no times, no ids.
"""

import copy
import importlib
import time
from pathlib import Path
from typing import Any

import torch

import models
from app.classes import Alignment, TeacherClasses, align
from app.errors import Problem
from app.spec.base import Split
from app.spec.job import JobSpec
from app.spec.steps.base import StepSpec
from models import Network
from worker.datasets import ImageData
from worker.ensemble import score_ensemble
from worker.measure import device_name, open_data
from worker.measuring import Measuring
from worker.messages import Line, Stops
from worker.run import Run, Stop, Stopped, Teacher
from worker.stages import Stages, write_whole

# The uploader's own figure may come from other code and another split; beyond this it is another network or
# preprocessing.
_DECLARED_TOLERANCE = 0.02
_LABELLED: tuple[Split, ...] = ("train", "val", "test")
_UNLABELED: Split = "unlabeled"


def compress(order: dict[str, Any], line: Line, stops: Stops) -> dict[str, Any]:
    """Do a compress order; returns the last word: a result, or what there was when it was asked to stop.

    Raises Problem.
    """
    job = _Compression(order, line, stops)
    try:
        return job.run()
    except Stopped as stopped:
        return job.stopped(stopped)


class _Compression:
    def __init__(self, order: dict[str, Any], line: Line, stops: Stops) -> None:
        self.order = order
        self.spec = JobSpec.model_validate(order["spec"])
        self.line = line
        self.stops = stops
        self.device = choose_device(order["device"])
        self.work_dir = Path(order["work_dir"])
        self.stages = Stages(self.work_dir / "stages")
        self.records: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self.step = 0

    # ---- the story

    def run(self) -> dict[str, Any]:
        torch.set_num_threads(self.order["num_threads"])
        self._prepare()
        self._measure_teachers()
        model = self.teachers[0].network if len(self.teachers) == 1 else None
        for number, step in enumerate(self.spec.steps, 1):
            self.step = number
            if (record := self.stages.finished(number)) is None:
                record = self._do_step(number, step, model)
            else:
                self.line.send(
                    {"type": "log", "level": "info", "message": f"step {number} was finished already"}
                )
            self._note(record)
            self._warn_of_leaks(record)
            self.records.append(record)
            model = models.load(self.stages.path(number)).to(self.device)
        return {"type": "result", "result": self._result(), "artifacts": self._artifacts()}

    def stopped(self, stopped: Stopped) -> dict[str, Any]:
        """What is worth keeping: after a cancel the finished stages and the best network of the step under
        way.
        """
        word: dict[str, Any] = {"type": "stopped", "stop": stopped.stop}
        if stopped.stop == "preempt":
            return word  # the work folder has it all
        artifacts = self._artifacts(finished=False)
        if stopped.model is not None:
            artifacts.append(self._keep_best(stopped.model))
        elif artifacts:
            artifacts[-1] |= {"kind": "best_so_far", "name": "best-so-far.pt"}
        return word | {"result": self._result(), "artifacts": artifacts}

    # ---- teachers

    def _prepare(self) -> None:
        paths = self.order["data"] | {"cache_dir": self.order["cache_dir"]}
        networks = [models.load(teacher["path"]) for teacher in self.order["teachers"]]
        self.alignment = self._align(open_data(paths).class_names, networks)
        self.data: ImageData = open_data(
            paths, class_names=self.alignment.class_names, num_threads=self.order["num_threads"]
        )
        self.splits = [split for split in _LABELLED if self.data.has(split)]
        self.teachers = [
            self._teacher(teacher["id"], network, outputs)
            for teacher, network, outputs in zip(
                self.order["teachers"], networks, self.alignment.orders, strict=True
            )
        ]
        self.measuring = Measuring(
            paths=paths,
            class_names=self.alignment.class_names,
            splits=self.splits,
            num_threads=self.order["num_threads"],
            device=str(self.device),
            stops=self.stops,
        )

    def _align(self, data_names: list[str], networks: list[Network]) -> Alignment:
        known = []
        for teacher, network in zip(self.order["teachers"], networks, strict=True):
            assert network.num_classes is not None
            known.append(TeacherClasses(teacher["id"], network.num_classes, network.class_names))
        return align(data_names, known)

    def _teacher(self, ident: str, network: Network, outputs: list[int]) -> Teacher:
        assert network.preprocessing is not None  # its inspection saw to that
        network.to(self.device).eval().requires_grad_(False)
        return Teacher(ident, network, network.preprocessing, torch.tensor(outputs, device=self.device))

    def _measure_teachers(self) -> None:
        """Stage 0: each teacher as it was uploaded; several also as the ensemble that steps learn from."""
        self._phase("measuring the teacher" if len(self.teachers) == 1 else "measuring the teachers")
        members = [self._teacher_record(index) for index in range(len(self.teachers))]
        record: dict[str, Any] = {"step": 0, "method": "teacher"}
        if len(members) == 1:
            record |= {**members[0], "teachers": members}
        else:
            record |= self._ensemble_record(members)
        self._note(record)
        self.line.send({"type": "stage", **record})
        self.records.append(record)

    def _teacher_record(self, index: int) -> dict[str, Any]:
        teacher = self.order["teachers"][index]
        measured = self.measuring.measure(
            Path(teacher["path"]),
            outputs=self.alignment.orders[index],
            logits=self._teacher_logits(index),
            kept=self.stages.path(0, f"-{index}.json"),
        )
        self._compare_with_declared(teacher, measured["splits"])
        # The uploaded file is what the user has; ours holds the same tensors in another form.
        return {"id": teacher["id"], **measured, "size_bytes": teacher["size_bytes"]}

    def _compare_with_declared(self, teacher: dict[str, Any], splits: dict[str, Any]) -> None:
        declared = teacher["declared_accuracy"]
        measured = {split: splits[split]["accuracy"] for split in ("val", "test") if split in splits}
        if declared is None or not measured:
            return
        if min(abs(accuracy - declared) for accuracy in measured.values()) > _DECLARED_TOLERANCE:
            found = " and ".join(f"{accuracy:.4f} on {split}" for split, accuracy in measured.items())
            self._warn(
                f"Teacher {teacher['id']} was declared with an accuracy of {declared:.4f}, but here it has "
                f"{found}. Its preprocessing or the order of its classes may not be those of its training."
            )

    def _ensemble_record(self, members: list[dict[str, Any]]) -> dict[str, Any]:
        first = next((step for step in self.spec.steps if hasattr(step, "combine")), None)
        combine, weights = getattr(first, "combine", "mean_probability"), getattr(first, "weights", None)
        logits = [torch.load(self._teacher_logits(index), weights_only=True) for index in range(len(members))]
        scores = {
            split: score_ensemble(
                [member[split] for member in logits], self.data.labels(split), combine, weights
            )
            for split in self.splits
        }
        totals = {
            name: sum(member[name] for member in members) for name in ("size_bytes", "parameters", "macs")
        }
        return {"combine": combine, "splits": scores, **totals, "latency_ms": None, "teachers": members}

    # ---- steps

    def _do_step(self, number: int, step: StepSpec, model: Network | None) -> dict[str, Any]:
        self._check_stop()
        self._phase(f"step {number} of {len(self.spec.steps)}: {step.method}")
        started = time.monotonic()
        run = Run(
            device=self.device,
            seed=self.spec.seed,
            teachers=self.teachers,
            data=self.data,
            step=number,
            work_dir=self._step_folder(number),
            reporter=_Overall(self.line, len(self.spec.steps)),
            checkpoint_seconds=self.order["checkpoint_seconds"],
            stop_requested=self._stop_requested,
        )
        made = importlib.import_module(f"worker.steps.{step.method}").apply(model, step, run)
        seconds = time.monotonic() - started
        write_whole(self.stages.path(number), self._pack(made, number))
        self._phase(f"measuring step {number} of {len(self.spec.steps)}")
        is_last = number == len(self.spec.steps)
        measured = self._embed_and_verify(number) if is_last else self._measure_stage(number)
        record = {"step": number, "method": step.method, **measured, "seconds": seconds}
        self._flag_leaks(record, number)
        self.stages.keep(number, record)
        self.line.send({"type": "stage", **record})
        return record

    def _step_folder(self, number: int) -> Path:
        folder = self.work_dir / f"step-{number}"
        folder.mkdir(exist_ok=True)
        return folder

    def _pack(self, network: Network, number: int, metrics: dict[str, Any] | None = None) -> bytes:
        network = copy.deepcopy(network).to("cpu").eval()  # a step may have handed back the teacher itself
        return models.pack(
            network,
            preprocessing=network.preprocessing,
            class_names=self.alignment.class_names,
            steps=[step.model_dump(mode="json") for step in self.spec.steps[:number]],
            metrics=metrics,
            digests={
                "network": models.network_digest(network),
                "splits": self._digests(),
                "teachers": [teacher["sha256"] for teacher in self.order["teachers"]],
            },
        )

    def _digests(self) -> dict[str, str]:
        return {split: self.data.digest(split) for split in self._all_splits()}

    def _all_splits(self) -> list[Split]:
        return [split for split in (*_LABELLED, _UNLABELED) if self.data.has(split)]

    def _measure_stage(self, number: int) -> dict[str, Any]:
        logits = self.stages.path(number, ".logits")
        measured = self.measuring.measure(self.stages.path(number), outputs=self._identity(), logits=logits)
        measured["agreement"] = self._agreement(torch.load(logits, weights_only=True))
        return measured

    def _identity(self) -> list[int]:
        return list(range(len(self.alignment.class_names)))

    def _agreement(self, logits: dict[str, torch.Tensor]) -> dict[str, float]:
        """The share of images to which the network and the (first) teacher give the same answer."""
        teacher = torch.load(self._teacher_logits(0), weights_only=True)
        return {
            split: (logits[split].argmax(1) == teacher[split].argmax(1)).double().mean().item()
            for split in self.splits
        }

    def _embed_and_verify(self, number: int) -> dict[str, Any]:
        """The answer: the network with its metrics inside.

        They are taken in this process, then a fresh one measures the file.

        Raises Problem VERIFY_MISMATCH when the two disagree.
        """
        path = self.stages.path(number)
        before = self.measuring.measure_here(path, outputs=self._identity())
        embedded = {
            "splits": {
                split: {key: score[key] for key in ("accuracy", "num_correct", "num_images")}
                for split, score in before["splits"].items()
            },
            "parameters": before["parameters"],
            "macs": before["macs"],
        }
        write_whole(path, self._pack(models.load(path), number, embedded))
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
        trained = {split for step in self.spec.steps[:number] for split in step.trained_splits}
        for split, score in record["splits"].items():
            score["leaked"] = split in trained

    def _warn_of_leaks(self, record: dict[str, Any]) -> None:
        leaked = [split for split in ("val", "test") if record["splits"].get(split, {}).get("leaked")]
        if leaked:
            self._warn(
                f"Step {record['step']} was trained on {' and '.join(leaked)}: its accuracy there says "
                "nothing about other photos."
            )

    # ---- what is left behind

    def _keep_best(self, network: Network) -> dict[str, Any]:
        """The best network of a step that did not end, measured when there is time for it."""
        path = self.work_dir / "best-so-far.pt"
        write_whole(path, self._pack(network, self.step))
        seconds = self.order["cancel_grace_seconds"] / 2
        measured = self.measuring.measure_within(seconds, path, outputs=self._identity())
        if measured is None:
            self._warn("There was no time to measure the best network so far.")
        return self._artifact(self.step, "best_so_far", "best-so-far.pt", path, measured or {})

    def _artifacts(self, *, finished: bool = True) -> list[dict[str, Any]]:
        last = len(self.spec.steps) if finished else -1
        found = []
        for record in self.records[1:]:
            number = record["step"]
            kind = "final" if number == last else "stage"
            name = "final.pt" if number == last else f"step-{number}-{record['method']}.pt"
            found.append(self._artifact(number, kind, name, self.stages.path(number), record))
        return found

    def _artifact(
        self, step: int, kind: str, name: str, path: Path, metrics: dict[str, Any]
    ) -> dict[str, Any]:
        file = str(path.relative_to(self.work_dir))
        return {"step": step, "kind": kind, "name": name, "file": file, "metrics": metrics}

    def _result(self) -> dict[str, Any]:
        digests = self._digests()
        return {
            "stages": self.records,
            "splits": {
                split: {"digest": digests[split], "num_images": self.data.num_images(split)}
                for split in self._all_splits()
            },
            "warnings": self.warnings,
            "environment": self._environment(),
            "seed": self.spec.seed,
        }

    def _environment(self) -> dict[str, Any]:
        precision = {getattr(step, "precision", "fp32") for step in self.spec.steps}
        return {
            "torch": torch.__version__,
            "device": device_name(self.device),
            "num_threads": self.order["num_threads"],
            "precision": sorted(precision),
            "cpu": device_name(torch.device("cpu")),
        }

    # ---- small things

    def _teacher_logits(self, index: int) -> Path:
        return self.stages.path(0, f"-{index}.logits")

    def _stop_requested(self) -> Stop | None:
        stop = self.stops.requested()
        return stop if stop in ("cancel", "preempt") else None  # type: ignore[return-value]

    def _check_stop(self) -> None:
        if (stop := self._stop_requested()) is not None:
            raise Stopped(stop)

    def _phase(self, phase: str) -> None:
        self.line.send({"type": "phase", "phase": phase})

    def _warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)
            self.line.send({"type": "log", "level": "warning", "message": message})

    def _note(self, record: dict[str, Any]) -> None:
        """A stage's numbers as metrics; after a crash they are sent again and replace themselves."""
        for split, score in record["splits"].items():
            self._metric(record["step"], split, "accuracy", score["accuracy"], "1")
            self._metric(record["step"], split, "loss", score["loss"], "nat")
        for name, unit in (("size_bytes", "byte"), ("parameters", "1"), ("macs", "1")):
            self._metric(record["step"], "", name, record[name], unit)
        for split, share in record.get("agreement", {}).items():
            self._metric(record["step"], split, "agreement", share, "1")
        if record["latency_ms"]:
            self._metric(record["step"], "", "latency_ms", record["latency_ms"]["median"], "ms")

    def _metric(self, step: int, split: str, name: str, value: float, unit: str) -> None:
        message = {"step": step, "epoch": -1, "split": split, "name": name, "value": value, "unit": unit}
        self.line.send({"type": "metric", **message})


class _Overall:
    """Adds to a step's progress how far the whole job is."""

    def __init__(self, line: Line, num_steps: int) -> None:
        self._line = line
        self._num_steps = num_steps

    def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "progress":
            share = message["done"] / message["total"] if message["total"] else 0.0
            fraction = (message["step"] - 1 + share) / self._num_steps
            message = {**message, "num_steps": self._num_steps, "fraction": fraction}
        self._line.send(message)


def choose_device(asked: str) -> torch.device:
    """ "auto" is the GPU where there is one.

    Raises Problem 422 when a GPU is asked for and this worker has none.
    """
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked == "cuda" and not torch.cuda.is_available():
        raise Problem(
            422,
            "DEVICE_UNAVAILABLE",
            "The job asks for device 'cuda' and this worker has none: use 'auto' or 'cpu'.",
        )
    return torch.device(asked)
