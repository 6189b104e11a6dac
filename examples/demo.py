"""The main job from end to end, as a user does it: photos, a teacher, one POST, a file that is small.

    make demo                       2,624 photos of solar cells (PyPI: elpv-dataset)
    make demo DATA=photos.zip       your own: <class>/*.jpg, or train|val|test/<class>/*.jpg

Everything goes over HTTP; each step prints the curl that does the same.
"""

import argparse
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
# Student epochs are chosen so that the whole demo stays below ten minutes on two cores, whatever the number of photos.
STUDENT_IMAGES = 11_000
STAGE_TITLES = {"teacher": "teacher", "distill": "student", "quantize": "student, stored in 8 bits"}


def say(text: str) -> None:
    print(f"\n==> {text}", flush=True)


def curl(text: str) -> None:
    print(f"    $ curl {text}", flush=True)


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


class Service:
    """`fewbytes up`, unless one already answers."""

    def __init__(self, url: str, data_dir: Path) -> None:
        self.url, self.process = url, None
        try:
            httpx.get(f"{url}/healthz", timeout=2).raise_for_status()
            say(f"Using the service that already runs at {url}")
            return
        except httpx.HTTPError:
            pass
        say(f"Starting the service: fewbytes up --data-dir {os.path.relpath(data_dir)}")
        data_dir.mkdir(parents=True, exist_ok=True)
        port = str(httpx.URL(url).port)
        self.log = (data_dir / "service.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "up", "--data-dir", str(data_dir), "--port", port],
            cwd=ROOT,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                sys.exit(
                    f"The service ended with status {self.process.returncode}; its log is {self.log.name}"
                )
            try:
                httpx.get(f"{url}/readyz", timeout=2).raise_for_status()
                print(f"    ready at {url} (log: {os.path.relpath(self.log.name)})")
                return
            except httpx.HTTPError:
                time.sleep(0.1)
        self.stop()
        sys.exit(f"The service did not become ready within 60 s; its log is {self.log.name}")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=60)


def check(response: httpx.Response) -> httpx.Response:
    """Say what the service said, and stop, when it refused."""
    if response.is_error:
        response.read()
        problem = response.json()
        sys.exit(
            f"{response.request.method} {response.request.url} → {problem['status']} {problem['code']}: {problem['detail']}"
        )
    return response


def upload(client: httpx.Client, path: Path, name: str) -> None:
    curl(f"-T {os.path.relpath(path)} {client.base_url}/v1/files/{name}")
    with path.open("rb") as file:
        check(
            client.put(
                f"/v1/files/{name}", content=file, headers={"Content-Length": str(path.stat().st_size)}
            )
        )


def register(client: httpx.Client, kind: str, body: dict) -> dict:
    """POST a teacher or a data set and wait until it was looked at."""
    curl(
        f"{client.base_url}/v1/{kind} --json '{json.dumps(body)[:150]}{'…' if len(json.dumps(body)) > 150 else ''}'"
    )
    record = check(client.post(f"/v1/{kind}", json=body)).json()
    while record["state"] == "inspecting":
        time.sleep(1)
        record = check(client.get(f"/v1/{kind}/{record['id']}")).json()
    if record["state"] != "ready":
        sys.exit(f"refused: {record['error']['code']}: {record['error']['detail']}")
    return record


def unpack(photos: Path, client: httpx.Client, dataset: dict, folder: Path) -> None:
    """Lay the training and validation photos out as folders, split as the service split them.

    A teacher trained on its own idea of a split would have seen the service's test photos.
    """
    marker = folder / "dataset.json"
    report = json.dumps(dataset["report"]["splits"], sort_keys=True)
    if marker.exists() and marker.read_text() == report:
        return
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(photos) as archive:
        for split in ("train", "val"):
            listing = check(
                client.get(f"/v1/datasets/{dataset['id']}/files", params={"split": split, "format": "csv"})
            ).text
            for number, row in enumerate(csv.DictReader(io.StringIO(listing))):
                target = folder / split / row["label"] / f"{number:06}{Path(row['path']).suffix.lower()}"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(row["path"]))
    marker.write_text(report)


def follow(client: httpx.Client, job: dict) -> dict:
    """Print progress until the job is over."""
    terminal = {"succeeded", "failed", "cancelled"}
    shown = ""
    while job["state"] not in terminal:
        response = client.get(f"/v1/jobs/{job['id']}", params={"wait": 5}, timeout=30)
        job = check(response).json()
        progress = job["progress"] or {}
        line = job["state"]
        if job["state"] not in terminal:
            line += f": {job['phase'] or 'waiting for a worker'}"
        if job["state"] not in terminal and progress.get("total"):
            line += f", {progress['unit']} {progress['done']:.1f} of {progress['total']:.0f}"
        if job["state"] not in terminal and progress.get("eta_seconds") is not None:
            line += f", about {progress['eta_seconds']:.0f} s left"
        if line != shown:
            print(
                f"\r    {line:<100}" if sys.stdout.isatty() else f"    {line}",
                end="" if sys.stdout.isatty() else "\n",
                flush=True,
            )
            shown = line
        time.sleep(0.2)
    print()
    return job


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
        with httpx.Client(base_url=args.url, timeout=600) as client:
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
    folder = work / "photos"
    unpack(photos, client, dataset, folder)
    teacher_file = work / f"teacher-{splits['train']['digest'][:12]}.pt"
    if teacher_file.exists():
        print(f"    {os.path.relpath(teacher_file)} is there from an earlier run; delete it to train anew")
    else:
        unfinished = teacher_file.with_name("unfinished.pt")
        subprocess.run(
            [sys.executable, ROOT / "examples/train_teacher.py", folder, "--out", unfinished], check=True
        )
        unfinished.with_suffix(".json").replace(teacher_file.with_suffix(".json"))
        unfinished.replace(teacher_file)

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
    curl(f"{client.base_url}/v1/jobs --json '{json.dumps(spec)}'")
    job = check(client.post("/v1/jobs", json=spec)).json()
    curl(f"{client.base_url}/v1/jobs/{job['id']}")
    job = follow(client, job)
    if job["state"] != "succeeded":
        error = job["error"] or {"code": job["state"].upper(), "detail": "it was cancelled"}
        sys.exit(f"The job ended as {job['state']}: {error['code']}: {error['detail']}")

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
