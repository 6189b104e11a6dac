"""The main job from end to end, as a user does it: photos, a teacher, one POST, a file that is small.

    make demo                       2,624 photos of solar cells (PyPI: elpv-dataset)
    make demo DATA=photos.zip       your own: <class>/*.jpg, or train|val|test/<class>/*.jpg

Everything goes over HTTP; each step prints the curl that does the same.
"""

import argparse
import json
import os
import sys
import time
import zipfile
from pathlib import Path

import httpx

from examples.client import (
    ROOT,
    Service,
    check,
    connect,
    curl,
    register,
    say,
    submitted,
    trained_teacher,
    upload,
)

# Student epochs are chosen so that the whole demo stays below ten minutes on two cores, whatever the number of photos.
STUDENT_IMAGES = 11_000
STAGE_TITLES = {"teacher": "teacher", "distill": "student", "quantize": "student, stored in 8 bits"}


def solar_cells(target: Path) -> Path:
    """A zip of class folders from the photos that the PyPI package elpv-dataset installs (CC BY-NC-SA 4.0)."""
    if target.exists():
        return target
    import elpv_dataset  # only this function needs it

    source = Path(elpv_dataset.__file__).parent / "data"
    temporary = target.with_suffix(".part")
    with zipfile.ZipFile(temporary, "w") as archive, (source / "labels.csv").open() as labels:
        for line in labels:
            path, probability, _ = line.split()
            # The label is the probability that a cell is defective, as experts judged it: 0, 1/3, 2/3 or 1.
            archive.write(source / path, f"defective_{float(probability):.2f}/{Path(path).name}")
    temporary.replace(target)
    return target


def table(job: dict) -> str:
    """The stages of a finished job as text."""
    rows = [["", "test accuracy", "val accuracy", "bytes", "parameters", "MACs", "latency"]]
    for stage in job["result"]["stages"]:
        accuracy = {name: f"{split['accuracy']:.1%}" for name, split in stage["splits"].items()}
        rows.append(
            [
                STAGE_TITLES.get(stage["method"], stage["method"]),
                accuracy.get("test", "-"),
                accuracy.get("val", "-"),
                f"{stage['size_bytes']:,}",
                f"{stage['parameters']:,}",
                f"{stage['macs']:,}",
                f"{stage['latency_ms']['median']:.2f} ms",
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join("    " + line for line in [lines[0], "-" * len(lines[0]), *lines[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--photos", type=Path, help="a zip of class folders; default: the solar cells of elpv-dataset"
    )
    parser.add_argument(
        "--url", default="http://127.0.0.1:8123", help="the service; started there when nothing answers"
    )
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data" / "demo")
    args = parser.parse_args()
    started = time.monotonic()

    if args.photos is not None and not zipfile.is_zipfile(args.photos):
        sys.exit(
            f"{args.photos} is not a zip file. Give a zip of class folders: <class>/*.jpg or train|val|test/<class>/*.jpg"
        )
    args.data_dir.mkdir(parents=True, exist_ok=True)
    photos = args.photos or solar_cells(args.data_dir / "solar-cells.zip")
    service = Service(args.url, args.data_dir)
    try:
        with connect(args.url) as client:
            run(client, photos, args.data_dir, started)
    finally:
        service.stop()


def run(client: httpx.Client, photos: Path, work: Path, started: float) -> None:
    say(f"Uploading the photos: {photos.name}, {photos.stat().st_size:,} bytes")
    upload(client, photos, "photos.zip")
    dataset = register(client, "datasets", {"file": "photos.zip"})
    splits = dataset["report"]["splits"]
    sizes = ", ".join(f"{name} {split['num_images']}" for name, split in splits.items())
    print(f"    {dataset['id']}: {len(dataset['report']['class_names'])} classes; {sizes}")

    say("Training a teacher, with an ordinary PyTorch script: examples/train_teacher.py")
    teacher_file = trained_teacher(client, photos, dataset, work)

    say("Uploading the teacher")
    upload(client, teacher_file, "teacher.pt")
    teacher = register(
        client,
        "teachers",
        {"file": "teacher.pt", **json.loads(teacher_file.with_suffix(".json").read_text())},
    )
    print(
        f"    {teacher['id']}: {teacher['report']['parameters']:,} parameters, {teacher['report']['macs']:,} MACs"
    )

    say("Running the job: distil into report/final, then store in 8 bits")
    epochs = max(2, min(40, round(STUDENT_IMAGES / splits["train"]["num_images"])))
    spec = {
        "name": "demo",
        "teachers": [teacher["id"]],
        "dataset": dataset["id"],
        "steps": [
            {"method": "distill", "student": "report/final", "alpha": 0.8, "epochs": epochs},
            {"method": "quantize", "scheme": "minmax"},
        ],
    }
    job = submitted(client, spec)

    say("Downloading the result and its reader")
    student, reader = work / "student.pt", work / "load_artifact.py"
    for path, target in ((f"/v1/jobs/{job['id']}/download", student), ("/v1/tools/load_artifact.py", reader)):
        curl(f"-L -o {os.path.relpath(target)} {client.base_url}{path}")
        target.write_bytes(check(client.get(path, follow_redirects=True)).content)

    say(
        f"Done in {time.monotonic() - started:.0f} s. Measured from the files' own bytes, loaded in a fresh process:"
    )
    print(table(job))
    for warning in job["result"]["warnings"]:
        print(f"    note: {warning}")
    print(f"\n    {os.path.relpath(student)} ({student.stat().st_size:,} bytes) needs torch and Pillow only:")
    python = os.path.relpath(sys.executable)
    print(f"    $ {python} {os.path.relpath(reader)} {os.path.relpath(student)} info")
    print(f"    $ {python} {os.path.relpath(reader)} {os.path.relpath(student)} classify <image>")
    listing = work / "test.csv"
    if "test" in splits:
        listing.write_text(
            check(
                client.get(f"/v1/datasets/{dataset['id']}/files", params={"split": "test", "format": "csv"})
            ).text
        )
        print(
            f"    $ {python} {os.path.relpath(reader)} {os.path.relpath(student)} evaluate {os.path.relpath(photos)} "
            f"--files {os.path.relpath(listing)}"
        )


if __name__ == "__main__":
    main()
