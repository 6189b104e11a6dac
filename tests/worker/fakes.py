"""What a step is given, small enough for a test: a reporter that remembers, data in memory."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from worker.run import Run, Stop, Teacher


class ListReporter:
    """Keeps every message."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)

    def values(self, name: str, split: str = "") -> list[float]:
        return [
            m["value"]
            for m in self.messages
            if m["type"] == "metric" and m["name"] == name and m["split"] == split
        ]

    def logs(self) -> list[str]:
        return [m["message"] for m in self.messages if m["type"] == "log"]


class MemoryData:
    """Pictures of one bright colour per class on noise: learnable in a few steps. Implements
    worker.run.Data."""

    def __init__(self, num_classes: int = 3, seed: int = 0, **num_images: int) -> None:
        self.class_names = [f"class {n}" for n in range(num_classes)]
        generator = torch.Generator().manual_seed(seed)
        self._labels: dict[str, torch.Tensor] = {}
        self._pictures: dict[str, torch.Tensor] = {}
        for split, count in (num_images or {"train": 24, "val": 9, "test": 9}).items():
            labels = torch.arange(count) % num_classes
            pictures = torch.randint(0, 100, (count, 3, 64, 64), generator=generator, dtype=torch.uint8)
            for index, label in enumerate(labels.tolist()):
                pictures[index, label % 3] += 30 * (1 + label // 3) + 50
            self._labels[split] = torch.full_like(labels, -1) if split == "unlabeled" else labels
            self._pictures[split] = pictures

    def has(self, split: str) -> bool:
        return split in self._labels

    def num_images(self, split: str) -> int:
        return len(self._labels[split])

    def digest(self, split: str) -> str:
        return hashlib.sha256(self._pictures[split].numpy().tobytes()).hexdigest()

    def labels(self, split: str) -> torch.Tensor:
        return self._labels[split]

    def paths(self, split: str) -> list[str]:
        return [f"{split}/{index:03}.png" for index in range(self.num_images(split))]

    def images(self, split: str, preprocessing: dict[str, Any]) -> torch.Tensor:
        size = preprocessing["crop"] or preprocessing["resize"]
        height, width = size if isinstance(size, list) else (size, size)
        shrunk = torch.nn.functional.interpolate(
            self._pictures[split].float(), size=(height, width), mode="area"
        )
        return shrunk.round().to(torch.uint8)


PREPROCESSING = {
    "resize": [32, 32],
    "crop": None,
    "interpolation": "bilinear",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
}


def make_run(
    work_dir: Path, *, data: MemoryData | None = None, teachers: list[Teacher] | None = None, **changes: Any
) -> Run:
    fields: dict[str, Any] = {
        "device": torch.device("cpu"),
        "seed": 0,
        "teachers": teachers or [],
        "data": data or MemoryData(),
        "step": 1,
        "work_dir": work_dir,
        "reporter": ListReporter(),
        **changes,
    }
    return Run(**fields)


def stop_at(call: int, stop: Stop) -> Any:
    """A `stop_requested` that answers `stop` on its 1-based `call`-th call and after."""
    calls = 0

    def stop_requested() -> Stop | None:
        nonlocal calls
        calls += 1
        return stop if calls >= call else None

    return stop_requested
