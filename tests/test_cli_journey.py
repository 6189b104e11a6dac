"""The whole way by the command line: upload, submit, watch, fetch, compare, sweep, cancel, against `fewbytes up`."""

import csv
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import ROOT, Service, wait_for
from tests.worker import tiny

STUDENT = f"{{architecture: report/final, image_size: {tiny.SIDE}}}"
JOB = f"""\
name: small
teachers: [big]
dataset: tones
device: cpu
steps:
  - {{method: distill, student: {STUDENT}, epochs: 4, batch_size: 16, learning_rate: 1e-3}}
  - {{method: quantize, scheme: minmax}}
"""
SWEEP = f"""\
name: bits
job:
  teachers: [big]
  dataset: tones
  device: cpu
  steps:
    - {{method: distill, student: {STUDENT}, epochs: 3, batch_size: 16}}
    - {{method: quantize, scheme: minmax}}
axes:
  - {{name: bits, field: /steps/1/bits, values: [8, 4]}}
"""


class Commands:
    """`fewbytes` in processes of their own, in a folder of their own."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.folder = folder
        self.service = service
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.environment = {
            **os.environ,
            "FEWBYTES_URL": service.card()["url"],
            "PYTHONPATH": path,
            "COLUMNS": "140",
        }

    def run(
        self, *arguments: str, code: int = 0, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments],
            cwd=self.folder,
            env=self.environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def out(self, *arguments: str) -> str:
        return self.run(*arguments).stdout.strip()

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return name


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("up") / "data", {})
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def fewbytes(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """With the teacher `big` and the data set `tones`, uploaded and registered by the command line."""
    commands = Commands(service, tmp_path_factory.mktemp("work"))
    tiny.write_photos(commands.folder / "photos.zip")
    tiny.write_teacher(commands.folder / "teacher.pt")
    fields = {"preprocessing": tiny.PREPROCESSING, "class_names": list(tiny.CLASSES)}
    commands.write("teacher.json", json.dumps(fields))
    dataset = commands.out("upload", "photos.zip", "--as", "dataset", "--name", "tones")
    assert "2 classes; train 48, val 24, test 24" in dataset
    teacher = commands.out(
        *("upload", "teacher.pt", "--as", "teacher", "--name", "big"),
        *("--architecture", tiny.TEACHER, "--spec", "teacher.json", "-q"),
    )
    assert teacher.startswith("tch_")
    return commands


@pytest.fixture(scope="module")
def job_id(fewbytes: Commands) -> str:
    """A job that was submitted and watched to its end."""
    done = fewbytes.run("submit", fewbytes.write("job.yaml", JOB), "--watch")
    lines = done.stdout.splitlines()
    assert any("running: step 1 of 2: distill" in line for line in lines)
    assert any("step 1 distill done: test accuracy" in line for line in lines)
    assert [line.split()[:2] for line in lines[-3:]] == [
        ["0", "teacher"],
        ["1", "distill"],
        ["2", "quantize"],
    ]
    found = re.search(r"(job_\w+) succeeded", done.stderr)
    assert found
    return found[1]


def test_an_answer_is_what_the_job_made(fewbytes: Commands, job_id: str) -> None:
    """Fetched with its digest checked; shown with its stages; as JSON it is the service's own."""
    fewbytes.run("get", job_id, "-o", "student.pt")
    size = (fewbytes.folder / "student.pt").stat().st_size
    shown = fewbytes.out("get", job_id)
    assert "(small) succeeded" in shown
    assert f"{size:,}" in shown
    job = json.loads(fewbytes.out("get", job_id, "--json"))
    assert job["result"]["stages"][-1]["size_bytes"] == size
    assert job_id in fewbytes.out("list", "-q")
    assert "step 1" in fewbytes.run("logs", job_id).stdout or fewbytes.out(
        "logs", job_id, "-f"
    ) == fewbytes.out("logs", job_id)


def test_a_sweep_runs_to_its_table(fewbytes: Commands) -> None:
    spec = fewbytes.write("sweep.yaml", SWEEP)
    assert "jobs" in fewbytes.out("sweep", spec, "--validate")
    done = fewbytes.run("sweep", spec, "--watch")
    found = re.search(r"(swp_\w+) succeeded", done.stderr)
    assert found
    sweep_id = found[1]
    assert "2 succeeded" in done.stdout
    fewbytes.run("get", sweep_id, "-o", "bits.csv")
    rows = list(csv.DictReader(io.StringIO((fewbytes.folder / "bits.csv").read_text())))
    assert [row["bits"] for row in rows] == ["8", "4"]
    assert int(rows[0]["size_bytes"]) > int(rows[1]["size_bytes"])
    fewbytes.run("get", sweep_id, "-o", "bits.html")
    assert "<html" in (fewbytes.folder / "bits.html").read_text()
    jobs = [row["job_id"] for row in rows]
    assert [
        row["job_id"] for row in json.loads(fewbytes.out("compare", *jobs, "--format", "json"))["rows"]
    ] == jobs


def test_on_a_terminal_a_job_is_a_picture_and_ctrl_c_only_ends_the_watching(fewbytes: Commands) -> None:
    """The bar moves; after Ctrl-C the job still runs, and what to type next is said."""
    ident = fewbytes.out("submit", "job.yaml", "-q", "--set", "steps.0.epochs=2000")
    terminal, line = pty.openpty()
    # Tests that run in the background of a shell are deaf to SIGINT, and so is what they start.
    hearing = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from app.cli import main; main()"
    command = [sys.executable, "-c", hearing, "watch", ident]
    environment = {**fewbytes.environment, "TERM": "xterm"}
    with subprocess.Popen(
        command, stdin=line, stdout=line, stderr=line, env=environment, cwd=fewbytes.folder
    ) as process:
        os.close(line)
        try:
            seen = read_until(terminal, r"step 1 of 2, epoch [\d.]+ of 2000, about .* left in it", 60)
            process.send_signal(signal.SIGINT)
            said = read_until(terminal, r"fewbytes cancel job_", 20)
            process.wait(20)  # before the terminal is gone: what it writes last would fail
        finally:
            os.close(terminal)
            if process.poll() is None and sys.exc_info()[0] is not None:
                process.kill()  # it would be waited for
    assert "━" in seen
    assert f"Stopped watching; {ident} goes on." in said
    assert process.returncode == 130
    assert fewbytes.service.get(f"/v1/jobs/{ident}")["state"] == "running"
    assert fewbytes.out("cancel", ident).startswith(f"{ident} cancel")
    ended = fewbytes.run("watch", ident, code=1)
    assert f"{ident} was cancelled" in ended.stderr
    wait_for(lambda: fewbytes.service.get(f"/v1/jobs/{ident}")["state"] == "cancelled", 30)
    assert "best-so-far.pt" in fewbytes.out("get", ident)


def read_until(terminal: int, pattern: str, seconds: float) -> str:
    """What the terminal showed until something fits the pattern."""
    seen, give_up = "", time.monotonic() + seconds
    while not re.search(pattern, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)):
        assert time.monotonic() < give_up, seen[-3000:]
        ready, _, _ = select.select([terminal], [], [], 0.2)
        if ready:
            seen += os.read(terminal, 65536).decode(errors="replace")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
