"""The report's trends on real photos: distillation, rewinding, 8 bits, the naive cast, 4 bits with training.

    python -m benchmarks.real_photos --photos clothing10-128.zip
    python -m benchmarks.real_photos --photos photos.zip --teacher teacher.pt --epochs 30 --seeds 5 --only distil lr_rewind

Each arm is one job over HTTP with several seeds; the service measures every stage from its packed bytes. A finished arm is
kept in the work folder and not run again. The photos of docs/results.md are Clothing-10, CC0, made from
https://github.com/alexeygrigorev/clothing-dataset-small (3,781 photos, 10 classes); any zip of class folders will do.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import httpx

from examples.client import ROOT, Service, connect, register, say, submitted, trained_teacher, upload

STUDENT = "report/final"


def arms(epochs: int) -> dict[str, list[dict]]:
    """The steps of each job."""
    scratch = {"method": "train", "student": STUDENT, "epochs": epochs}
    distil = {"method": "distill", "student": STUDENT, "epochs": epochs, "alpha": 0.8, "temperature": 4.0}
    # The speed mode: each photo in so many views, three times each; the teacher, the costly part, runs once a view.
    cached = distil | {"soft_labels": {"views": max(1, epochs // 3)}}
    quarter = {"method": "prune", "criterion": "l2", "target": {"ratio": 0.25}}
    retrain = {"epochs": epochs, "schedule": "cosine"}
    rewind_to = epochs // 3
    return {
        "distil": [distil],
        "stored": [
            cached,
            {"method": "quantize", "scheme": "minmax", "bits": 8},
            {
                "method": "qat",
                "bits": 4,
                "granularity": "channel",
                "epochs": max(2, epochs // 3),
                "learning_rate": 1e-3,
            },
        ],
        "lr_rewind": [
            scratch,
            quarter | {"recover": "lr_rewind", "schedule_from_epoch": rewind_to, "training": retrain},
            {"method": "quantize", "scheme": "cast"},
        ],
        "finetune": [
            scratch,
            quarter | {"recover": "finetune", "training": retrain | {"epochs": epochs - rewind_to}},
        ],
    }


def spread(stage: dict, split: str) -> str:
    """Mean and standard deviation over the seeds, in per cent."""
    accuracy = stage["splits"][split]["accuracy"]
    return f"{accuracy['mean']:.1%} ± {100 * (accuracy['std'] or 0):.1f}"


def pooled(stage: dict, sizes: dict[str, int]) -> list[float]:
    """A seed's accuracy on val and test together: the two are small."""
    splits = [split for split in ("val", "test") if split in stage["splits"]]
    total = sum(sizes[split] for split in splits)
    values = [stage["splits"][split]["accuracy"]["values"] for split in splits]
    return [
        sum(value * sizes[split] for value, split in zip(seed, splits, strict=True)) / total
        for seed in zip(*values, strict=True)
    ]


def rows(results: dict[str, dict]) -> list[list[str]]:
    table = [["arm", "stage", "val", "test", "bytes", "parameters", "epochs trained"]]
    for name, result in results.items():
        chosen = {stage["step"]: stage for stage in result["stages"]}
        for stage in result["summary"]:
            cost = chosen[stage["step"]]["cost"]
            table.append(
                [
                    name,
                    stage["method"],
                    *(spread(stage, split) if split in stage["splits"] else "-" for split in ("val", "test")),
                    f"{stage['size_bytes']['mean']:,.0f}",
                    f"{stage['parameters']['mean']:,.0f}",
                    f"{cost['epochs']:.0f}",
                ]
            )
    return table


def claims(results: dict[str, dict], num_classes: int) -> list[str]:
    """The sentences that the benchmark is for, each with its number."""
    sizes = {split: info["num_images"] for split, info in next(iter(results.values()))["splits"].items()}

    def stage(arm: str, step: int) -> list[float] | None:
        if arm not in results:
            return None
        return next(pooled(row, sizes) for row in results[arm]["summary"] if row["step"] == step)

    def difference(what: str, left: list[float] | None, right: list[float] | None) -> list[str]:
        if left is None or right is None:
            return []
        gaps = [100 * (a - b) for a, b in zip(left, right, strict=True)]
        error = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else float("nan")
        return [
            f"{what}: {statistics.mean(gaps):+.2f} ± {error:.2f} points (mean and standard error over seeds)"
        ]

    said = difference("distilled - scratch", stage("distil", 1), stage("lr_rewind", 1))
    said += difference("distilled from cached views - scratch", stage("stored", 1), stage("lr_rewind", 1))
    said += difference(
        "learning-rate rewind - small constant rate", stage("lr_rewind", 2), stage("finetune", 2)
    )
    said += difference("8-bit min-max - fp32", stage("stored", 2), stage("stored", 1))
    said += difference("4-bit per channel with QAT - fp32", stage("stored", 3), stage("stored", 1))
    if (cast := stage("lr_rewind", 3)) is not None:
        said.append(f"naive cast: {statistics.mean(cast):.1%}, chance is {1 / num_classes:.1%}")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a zip: [train|val|test/]<class>/*.jpg")
    parser.add_argument(
        "--teacher",
        type=Path,
        help="a checkpoint of examples/train_teacher.py with its .json; trained if left out",
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="some of: " + ", ".join(arms(12)))
    parser.add_argument("--work", type=Path, default=ROOT / "data" / "benchmark")
    parser.add_argument(
        "--url", default="http://127.0.0.1:8124", help="the service; started there when nothing answers"
    )
    args = parser.parse_args()
    started = time.monotonic()
    args.work.mkdir(parents=True, exist_ok=True)
    service = Service(args.url, args.work)
    try:
        with connect(args.url) as client:
            results, num_classes = run(client, args)
    finally:
        service.stop()
    say(f"Done in {time.monotonic() - started:.0f} s on {os.cpu_count()} cores, {platform.machine()}")
    environment = next(iter(results.values()))["environment"]
    print(json.dumps(environment))
    print()
    for row in rows(results):
        print("| " + " | ".join(row) + " |")
    print()
    for claim in claims(results, num_classes):
        print(f"* {claim}")


def run(client: httpx.Client, args: argparse.Namespace) -> tuple[dict[str, dict], int]:
    upload(client, args.photos, "photos.zip")
    dataset = register(client, "datasets", {"file": "photos.zip"})
    file = args.teacher or trained_teacher(client, args.photos, dataset, args.work)
    upload(client, file, "teacher.pt")
    teacher = register(
        client, "teachers", {"file": "teacher.pt", **json.loads(file.with_suffix(".json").read_text())}
    )
    results = {}
    for name, steps in arms(args.epochs).items():
        if args.only and name not in args.only:
            continue
        kept = args.work / f"{name}-{args.epochs}-epochs-{args.seeds}-seeds.json"
        if not kept.exists():
            say(f"Arm {name}, {args.seeds} seeds")
            spec = {
                "name": name,
                "teachers": [teacher["id"]],
                "dataset": dataset["id"],
                "steps": steps,
                "seeds": args.seeds,
            }
            kept.write_text(json.dumps(submitted(client, spec)["result"]))
        results[name] = json.loads(kept.read_text())
    if not results:
        sys.exit(f"--only {' '.join(args.only)}: there is no such arm")
    return results, len(dataset["report"]["class_names"])


if __name__ == "__main__":
    main()
