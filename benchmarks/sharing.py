"""What a job saves that shares its teacher's measurement, its soft labels, or its first steps with an earlier one.

    python -m benchmarks.sharing --photos clothing10-64.zip     # docs/sharing.md has what it printed

A service of its own in a temporary folder; the photos are decoded beforehand. Times are those of the attempt, from its
claim to its end, the median of some rounds. "Alone" has nothing to read: what earlier jobs left for others is deleted
before it. The teacher is a ResNet-18 that was never trained, for times do not depend on what it knows.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import torch

from examples.client import Service, check, connect, register, say, upload
from models.architectures import create

_ENDED = ("succeeded", "failed", "cancelled")


class Bench:
    def __init__(self, client: httpx.Client, data_dir: Path, photos: Path, args: argparse.Namespace) -> None:
        self._client = client
        self._shared = data_dir / "cache" / "tenants"
        self._args = args
        upload(client, photos, "photos.zip")
        self._dataset = register(client, "datasets", {"file": "photos.zip"})
        self._teacher = self._registered_teacher(data_dir)
        self._distill: dict[str, Any] = {
            "method": "distill",
            "student": {"architecture": "report/final", "image_size": args.side},
            "epochs": args.epochs,
            "soft_labels": {"views": args.epochs},
        }

    def _registered_teacher(self, folder: Path) -> dict[str, Any]:
        class_names = self._dataset["report"]["class_names"]
        torch.manual_seed(0)
        network = create("resnet18", num_classes=len(class_names), image_size=self._args.side)
        torch.save(network.state_dict(), folder / "teacher.pt")
        upload(self._client, folder / "teacher.pt", "teacher.pt")
        side = self._args.side
        preprocessing = {"resize": [side, side], "mean": [0.5] * 3, "std": [0.25] * 3}
        body = {
            "file": "teacher.pt",
            "architecture": "resnet18",
            "preprocessing": preprocessing,
            "class_names": class_names,
        }
        return register(self._client, "teachers", body)

    # ---- jobs

    def spec(self, *steps: dict[str, Any]) -> dict[str, Any]:
        return {"teachers": [self._teacher["id"]], "dataset": self._dataset["id"], "steps": list(steps)}

    def ended(self, job: dict[str, Any]) -> dict[str, Any]:
        """The whole job, which a list does not have, once it is over."""
        while True:
            job = check(self._client.get(f"/v1/jobs/{job['id']}", params={"wait": 30})).json()
            if job["state"] in _ENDED:
                break
        assert job["state"] == "succeeded", job["error"]
        return job

    def seconds(self, *steps: dict[str, Any], alone: bool) -> float:
        """Of a job with these steps."""
        if alone:
            shutil.rmtree(self._shared, ignore_errors=True)
        return _seconds(self.ended(check(self._client.post("/v1/jobs", json=self.spec(*steps))).json()))

    # ---- what is compared

    def teacher_measured_once(self) -> None:
        step = {"method": "quantize"}
        self._print("teacher's measurement", *self._pairs(step, step))

    def soft_labels_computed_once(self) -> None:
        self._print("and soft labels", *self._pairs(self._distill, {**self._distill, "alpha": 0.5}))

    def first_step_done_once(self) -> None:
        """A sweep of two prunings behind one training: the training is a job of its own."""
        steps = [self._distill, {"method": "prune", "keep_rate": 0.9, "recover": "none"}]
        axis = {"field": "/steps/1/keep_rate", "values": [0.9, 0.8]}
        alone, stages, children = [], [], []
        for _ in range(self._args.rounds):
            alone.append(self.seconds(*steps, alone=True))
            shutil.rmtree(self._shared, ignore_errors=True)
            sweep = check(
                self._client.post("/v1/sweeps", json={"job": self.spec(*steps), "axes": [axis]})
            ).json()
            while sweep["state"] not in _ENDED:
                time.sleep(0.2)
                sweep = check(self._client.get(f"/v1/sweeps/{sweep['id']}")).json()
            jobs = check(self._client.get("/v1/jobs", params={"sweep": sweep["id"]})).json()["items"]
            jobs = [self.ended(job) for job in jobs]
            children += [_seconds(job) for job in jobs if "taken_over" in job["result"]]
            stages += [_seconds(job) for job in jobs if "taken_over" not in job["result"]]
        self._print("and the first step", alone, children)
        print(f"    the job that does the first step for both: {statistics.median(stages):.1f} s")

    def _pairs(self, first: dict[str, Any], second: dict[str, Any]) -> tuple[list[float], list[float]]:
        """Seconds of the second job: alone, and after the first."""
        alone, after = [], []
        for _ in range(self._args.rounds):
            alone.append(self.seconds(second, alone=True))
            self.seconds(first, alone=True)
            after.append(self.seconds(second, alone=False))
        return alone, after

    def _print(self, what: str, alone: list[float], after: list[float]) -> None:
        def told(seconds: list[float]) -> str:
            return f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f}, n = {len(seconds)})"

        print(f"| {what} | {told(alone)} | {told(after)} |", flush=True)


def _seconds(job: dict[str, Any]) -> float:
    attempt = job["attempts"][-1]
    started, ended = (datetime.fromisoformat(attempt[key]) for key in ("started_at", "ended_at"))
    return (ended - started).total_seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a zip: [train|val|test/]<class>/*.jpg")
    parser.add_argument(
        "--side", type=int, default=64, help="pixels of the teacher's and the student's images"
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="teacher, labels, steps; default: all")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fewbytes-") as folder:
        service = Service("http://127.0.0.1:8126", Path(folder))
        try:
            with connect(service.url) as client:
                bench = Bench(client, Path(folder), args.photos, args)
                say("Photos are decoded")
                bench.seconds(bench._distill, alone=True)
                say("What is shared: alone, after another job")
                parts = {
                    "teacher": bench.teacher_measured_once,
                    "labels": bench.soft_labels_computed_once,
                    "steps": bench.first_step_done_once,
                }
                for name, part in parts.items():
                    if not args.only or name in args.only:
                        part()
                job = check(client.get("/v1/jobs", params={"page_size": 1})).json()["items"][0]
                print(json.dumps(bench.ended(job)["result"]["environment"]))
        finally:
            service.stop()


if __name__ == "__main__":
    main()
