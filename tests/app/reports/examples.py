"""Results as the worker leaves them, made up so that every number in a report has one place that it can come from."""

import math
import random
from typing import Any

CLASSES = ["apple pie", "bread", "soup"]


def counts_of(num_classes: int, per_class: int, right: float, seed: int) -> list[list[int]]:
    """A confusion matrix whose classes have `per_class` images each."""
    chance = random.Random(seed)
    matrix = []
    for true in range(num_classes):
        row = [0] * num_classes
        for _ in range(per_class):
            hit = chance.random() < right
            row[true if hit else chance.randrange(num_classes)] += 1
        matrix.append(row)
    return matrix


def confusion_of(counts: list[list[int]]) -> dict[str, Any]:
    return {
        "num_images": [sum(row) for row in counts],
        "num_correct": [row[k] for k, row in enumerate(counts)],
        "counts": counts,
    }


def score_of(counts: list[list[int]]) -> dict[str, Any]:
    right, total = sum(row[k] for k, row in enumerate(counts)), sum(map(sum, counts))
    return {
        "accuracy": right / total,
        "num_correct": right,
        "num_images": total,
        "loss": 0.5,
        "leaked": False,
    }


def layers_of(count: int, parameters: int = 100) -> list[dict[str, Any]]:
    return [
        {
            "name": f"block{k}.conv",
            "type": "Conv2d",
            "output_shape": [8, 16, 16],
            "parameters": parameters * (k + 1),
            "macs": 1000 * (count - k),
            "size_bytes": 4 * parameters * (k + 1),
        }
        for k in range(count)
    ]


def stage(
    step: int, method: str, counts: dict[str, list[list[int]]], size_bytes: int, **more: Any
) -> dict[str, Any]:
    return {
        "step": step,
        "method": method,
        "splits": {split: score_of(matrix) for split, matrix in counts.items()},
        "confusion": {split: confusion_of(matrix) for split, matrix in counts.items()},
        "size_bytes": size_bytes,
        "parameters": size_bytes // 4,
        "macs": 40 * size_bytes,
        "latency_ms": {
            "median": 4.25,
            "p10": 4.0,
            "p90": 5.5,
            "n": 50,
            "device": "a processor",
            "num_threads": 2,
        },
        **more,
    }


def step_stage(
    step: int, method: str, counts: dict[str, list[list[int]]], size_bytes: int, **more: Any
) -> dict[str, Any]:
    return stage(
        step,
        method,
        counts,
        size_bytes,
        **{
            "seconds": 319.0,
            "cost": {"epochs": 5.0, "seconds": 300.0, "macs": 2_500_000_000_000},
            "details": {},
            "attachments": {},
            "agreement": dict.fromkeys(counts, 0.75),
            "against_teacher": {"test": {"num_images": 100, "num_only_teacher": 6, "num_only_network": 2}},
            "layers": layers_of(4),
        }
        | more,
    )


def result(num_classes: int = 3, per_class: int = 20, num_layers: int = 4, **more: Any) -> dict[str, Any]:
    """Of distill and quantize, with val and test."""

    def of(right: float, seed: int) -> dict[str, list[list[int]]]:
        return {
            split: counts_of(num_classes, per_class, right, seed + k)
            for k, split in enumerate(("val", "test"))
        }

    names = CLASSES if num_classes == 3 else [f"class number {k}" for k in range(num_classes)]
    teacher = stage(0, "teacher", of(0.95, 1), 13_770_553, class_names=names)
    teacher["teachers"] = [
        {"id": "tch_1", **{k: teacher[k] for k in ("splits", "size_bytes", "parameters", "macs")}}
    ]
    stages = [
        teacher,
        step_stage(1, "distill", of(0.8, 11), 426_789, layers=layers_of(num_layers)),
        step_stage(2, "quantize", of(0.75, 21), 113_250, layers=layers_of(num_layers, 25)),
    ]
    splits = {split: {"digest": "d" * 64, "num_images": num_classes * per_class} for split in ("val", "test")}
    environment = {
        "fewbytes": "0.1.0",
        "python": "3.11.2",
        "torch": "2.14.1",
        "device": "a processor",
        "num_threads": 2,
        "precision": ["fp32"],
        "cpu": "a processor",
    }
    return {
        "stages": stages,
        "splits": splits,
        "warnings": [],
        "environment": environment,
        "seed": 0,
        "gates": [],
        "passed": None,
    } | more


def sensitivity(num_layers: int = 4) -> dict[str, Any]:
    rows = [
        {
            "layer": f"block{k}.conv",
            "parameters": 100 * (k + 1),
            "quantized": {"accuracy": 0.75 - 0.01 * k, "divergence": 0.002 * k},
            "pruned": None if k == num_layers - 1 else {"accuracy": 0.75 - 0.02 * k, "divergence": 0.01 * k},
        }
        for k in range(num_layers)
    ]
    return {"split": "val", "num_images": 60, "accuracy": 0.75, "bits": 4, "share": 0.25, "layers": rows}


def pruning() -> dict[str, Any]:
    """The details of a prune step of three iterations."""
    rows = [
        {
            "iteration": k,
            "parameters": 1000 - 100 * k,
            "macs": 90_000 - 9000 * k,
            "removed": 8,
            "accuracy_before": 0.8 - 0.1 * k,
            "accuracy_after": 0.8 - 0.02 * k,
            "epochs": 1.0,
            "seconds": 2.0,
            "trained_macs": 10**9,
        }
        for k in (1, 2, 3)
    ]
    return {"start": {"parameters": 1000, "macs": 90_000, "accuracy": 0.8}, "iterations": rows}


def curves(step: int, epochs: int, seed: int = 0) -> list[dict[str, Any]]:
    """Metrics of each epoch, as a trainer notes them."""
    found = []
    for epoch in range(1, epochs + 1):
        rise = 1 - math.exp(-epoch / 5)
        found += [
            {
                "seed": seed,
                "step": step,
                "epoch": epoch,
                "split": "train",
                "name": "train_loss",
                "value": 2 - 1.5 * rise,
            },
            {
                "seed": seed,
                "step": step,
                "epoch": epoch,
                "split": "val",
                "name": "cross_entropy",
                "value": 2 - rise,
                "unit": "nat",
            },
            {
                "seed": seed,
                "step": step,
                "epoch": epoch,
                "split": "val",
                "name": "accuracy",
                "value": 0.3 + 0.4 * rise,
            },
        ]
    return found


def answer(right: int, size_bytes: int = 1000, **more: Any) -> dict[str, Any]:
    """The result of one step that gets so many of 100 test images right; the teacher gets 90."""

    def counts(hits: int) -> list[list[int]]:
        return [[hits - hits // 2, 50 - hits + hits // 2], [50 - hits // 2, hits // 2]]

    teacher = stage(
        0, "teacher", {"val": counts(80), "test": counts(90)}, 100_000, class_names=["cat", "dog"]
    )
    answered = step_stage(1, "distill", {"val": counts(right), "test": counts(right)}, size_bytes, **more)
    found = result()
    return found | {"stages": [teacher, answered]}
