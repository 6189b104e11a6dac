"""What a job saves that shares its teacher's measurement, its soft labels, or its first steps with an earlier one.

    python -m benchmarks.sharing --photos clothing10-64.zip     # docs/sharing.md has what it printed

On Linux. Trainers and measuring processes are forked from a warm parent, as a worker's are, with one thread; the photos are
decoded beforehand. Told are the median of some rounds from the order to the last word, and the processor time of all these
processes, which says more on a machine that does other work. The teacher is a ResNet-18 that was never trained: times do
not depend on what it knows.
"""

import argparse
import hashlib
import io
import itertools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from models.architectures import create
from tests.worker import jobs
from worker.datasets.image_data import ImageData
from worker.leash import Leash
from worker.supervisor import CHILD, child_environment
from worker.warm_parent import WarmParent

QUANTIZE = {"method": "quantize"}
Times = tuple[float, float]
"""Seconds by the clock, and of processors."""


class Bench:
    def __init__(self, folder: Path, warm: WarmParent, given: argparse.Namespace) -> None:
        self._folder = folder
        self._warm = warm
        self._rounds: int = given.rounds
        self._numbers = itertools.count(1)
        self._data = jobs.dataset(folder / "data", given.photos)
        self._teacher = self._inspected_teacher(given.side)
        self._distill = {
            "method": "distill",
            "student": {"architecture": "report/final", "image_size": given.side},
            "epochs": given.epochs,
            "soft_labels": {"views": given.epochs},
        }

    def _inspected_teacher(self, side: int) -> dict[str, Any]:
        data = ImageData(Path(self._data["index"]), Path(self._data["pack"]), self._folder)
        sizes = {split: data.num_images(split) for split in ("train", "val", "test")}
        print(f"{len(data.class_names)} classes, {sizes} photos of {side} x {side} pixels")
        torch.manual_seed(0)
        network = create("resnet18", num_classes=len(data.class_names), image_size=side)
        content = io.BytesIO()
        torch.save(network.state_dict(), content)
        return jobs.inspected_teacher(
            self._folder / "inspection",
            content.getvalue(),
            architecture="resnet18",
            preprocessing={"resize": [side, side], "mean": [0.5] * 3, "std": [0.25] * 3},
            class_names=data.class_names,
        )

    # ---- one job

    def new_shared(self) -> Path:
        return self._folder / f"shared-{next(self._numbers)}"

    def run(self, steps: list[Any], shared: Path, begun: Any = None) -> tuple[Times, dict[str, Any]]:
        """A job with these steps; its last word, with the folder that its files are in."""
        work_dir = self._folder / f"job-{next(self._numbers)}"
        order = jobs.order(work_dir, [self._teacher], self._data, steps)
        order |= {"do": "compress", "shared_dir": str(shared), "begun": begun}
        before, began = self._processor_seconds(), time.perf_counter()
        leash = Leash(CHILD, order, env=child_environment(1))
        heard: list[dict[str, Any]] = []
        try:
            while leash.exit_code() is None:
                heard += leash.read(0.2)
            heard += leash.rest()
        finally:
            leash.kill()
        seconds = time.perf_counter() - began
        last = next(message for message in reversed(heard) if message["type"] in ("result", "error"))
        assert last["type"] == "result", last
        return (seconds, self._processor_seconds() - before), last | {"folder": work_dir}

    def _processor_seconds(self) -> float:
        """Of all children of the warm parent that have ended."""
        fields = Path(f"/proc/{self._warm.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(int(fields[number]) for number in (13, 14)) / os.sysconf("SC_CLK_TCK")

    # ---- what is compared

    def decode_photos(self) -> None:
        self.run([self._distill], self.new_shared())

    def teacher_measured_once(self) -> None:
        self._compare("teacher's answers", [QUANTIZE], lambda shared: self.run([QUANTIZE], shared))

    def soft_labels_computed_once(self) -> None:
        steps = [self._distill, QUANTIZE]
        first = [{**self._distill, "alpha": 0.5}]
        self._compare("teacher's answers, soft labels", steps, lambda shared: self.run(first, shared))

    def first_step_done_once(self) -> None:
        steps = [self._distill, QUANTIZE]
        self._compare(
            "teacher's answers, the first step",
            steps,
            lambda shared: self.run(steps[:1], shared),
            begins=True,
        )

    def _compare(self, what: str, steps: list[Any], earlier: Any, *, begins: bool = False) -> None:
        """The job alone; and after an earlier one, with whose first step it `begins` or whose labels it reads."""
        alone, after = [], []
        for _ in range(self._rounds):
            times, undisturbed = self.run(steps, self.new_shared())
            alone.append(times)
            shared = self.new_shared()
            _, left = earlier(shared)
            times, last = self.run(steps, shared, _begun(left) if begins else None)
            after.append(times)
            assert _sha256(_answer(last)) == _sha256(_answer(undisturbed)), "another network"
        print(f"| {what} | {_told(alone)} | {_told(after)} |", flush=True)


def _answer(last: dict[str, Any]) -> Path:
    path: Path = last["folder"] / last["artifacts"][-1]["file"]
    return path


def _begun(last: dict[str, Any]) -> dict[str, Any]:
    """What `worker.earlier_steps` would find of this job's one step."""
    path, result = _answer(last), last["result"]
    network = {"what": "network", "step": 1, "name": "final.pt", "path": str(path), "sha256": _sha256(path)}
    made = {"job_id": "job_1", "steps": [1], "environment": result["environment"]}
    return {
        "job_id": "job_1",
        "steps": 1,
        "records": result["stages"][1:],
        "metrics": [],
        "files": [network],
        "made_by": [made],
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _told(times: list[Times]) -> str:
    clock, processor = (statistics.median(each) for each in zip(*times, strict=True))
    return f"{clock:.1f} s, processor {processor:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a zip: [train|val|test/]<class>/*.jpg")
    parser.add_argument(
        "--side", type=int, default=64, help="pixels of the teacher's and the student's images"
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    warm = WarmParent(child_environment(1))
    with tempfile.TemporaryDirectory(prefix="fewbytes-") as folder:
        warm.start()
        try:
            if not warm.ready.wait(120):
                sys.exit("The warm parent does not get ready.")
            bench = Bench(Path(folder), warm, given)
            bench.decode_photos()
            print("| shared | alone | after an earlier job |\n|---|---|---|")
            bench.teacher_measured_once()
            bench.soft_labels_computed_once()
            bench.first_step_done_once()
        finally:
            warm.stop()


if __name__ == "__main__":
    main()
