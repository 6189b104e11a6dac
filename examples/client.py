"""What the demo and the benchmarks do over HTTP: start the service, upload, register, submit, follow, download."""

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
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent


def say(text: str) -> None:
    print(f"\n==> {text}", flush=True)


def curl(text: str) -> None:
    print(f"    $ curl {text}", flush=True)


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


def connect(url: str, timeout: float = 600) -> httpx.Client:
    """A client of the service; with the access key in FEWBYTES_KEY, where there is one."""
    key = os.environ.get("FEWBYTES_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=url, headers=headers, timeout=timeout)


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


def trained_teacher(client: httpx.Client, photos: Path, dataset: dict, work: Path) -> Path:
    """A checkpoint from examples/train_teacher.py on the data set's own train split, with a .json beside it that
    registers it; trained once a data set."""
    folder = work / "photos"
    unpack(photos, client, dataset, folder)
    file = work / f"teacher-{dataset['report']['splits']['train']['digest'][:12]}.pt"
    if file.exists():
        print(f"    {os.path.relpath(file)} is there from an earlier run; delete it to train anew")
        return file
    unfinished = file.with_name("unfinished.pt")
    subprocess.run(
        [sys.executable, ROOT / "examples/train_teacher.py", folder, "--out", unfinished], check=True
    )
    unfinished.with_suffix(".json").replace(file.with_suffix(".json"))
    unfinished.replace(file)
    return file


def submitted(client: httpx.Client, spec: dict) -> dict[str, Any]:
    """POST a job and follow it to its end; stop where it does not succeed."""
    curl(f"{client.base_url}/v1/jobs --json '{json.dumps(spec)}'")
    job = check(client.post("/v1/jobs", json=spec)).json()
    curl(f"{client.base_url}/v1/jobs/{job['id']}")
    job = follow(client, job)
    if job["state"] != "succeeded":
        error = job["error"] or {"code": job["state"].upper(), "detail": "it was cancelled"}
        sys.exit(f"The job ended as {job['state']}: {error['code']}: {error['detail']}")
    return job
