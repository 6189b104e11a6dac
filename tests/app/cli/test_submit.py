"""`fewbytes submit`, as scripts and people type it."""

import json
import threading
import time
from pathlib import Path

import pytest
import yaml

from app import jobs
from app.db import reading, transaction
from app.errors import Problem
from app.tables import Job
from tests.app.cli.conftest import Fewbytes
from tests.app.conftest import Service


@pytest.fixture
def spec(sqlite_service: Service, tmp_path: Path) -> Path:
    """A job in YAML that names teacher and data by name."""
    sqlite_service.teacher(name="big")
    sqlite_service.dataset(name="food")
    path = tmp_path / "job.yaml"
    path.write_text(
        "name: mine\nteachers: [big]\ndataset: food\nsteps:\n- {method: distill, student: student_net, alpha: 0.8}\n"
    )
    return path


def stored(job_id: str) -> Job:
    with reading() as session:
        job = session.get(Job, job_id)
        assert job is not None
        return job


def test_a_spec_in_yaml_becomes_a_job(fewbytes: Fewbytes, spec: Path) -> None:
    """With --quiet standard output has the id alone."""
    done = fewbytes("submit", spec, "--quiet")
    assert (done.exit_code, done.stderr) == (0, "")
    job = stored(done.stdout.strip())
    assert (job.name, job.state) == ("mine", "queued")
    assert job.spec["teachers"][0].startswith("tch_")
    assert job.spec["dataset"].startswith("dst_")


def test_json_and_standard_input_are_the_same(fewbytes: Fewbytes, spec: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(spec.read_text())
    as_json = tmp_path / "job.json"
    as_json.write_text(json.dumps(document))
    outcomes = [
        fewbytes("submit", spec, "-q"),
        fewbytes("submit", as_json, "-q"),
        fewbytes("submit", "-", "-q", input=spec.read_text()),
        fewbytes("submit", "-", "-q", input=as_json.read_text()),
    ]
    specs = [stored(done.stdout.strip()).spec for done in outcomes]
    assert all(spec == specs[0] for spec in specs)


def test_single_fields_are_set(fewbytes: Fewbytes, spec: Path) -> None:
    done = fewbytes(
        "submit", spec, "-q", "--set", "steps.0.alpha=0.5", "--set", "name=other", "--set", "seed=3"
    )
    job = stored(done.stdout.strip())
    assert (job.name, job.spec["seed"], job.spec["steps"][0]["alpha"]) == ("other", 3, 0.5)


def test_without_quiet_it_says_how_to_follow(fewbytes: Fewbytes, spec: Path) -> None:
    done = fewbytes("submit", spec)
    job_id = done.stdout.split()[0]
    assert done.stdout == f"{job_id} queued\n"
    assert f"fewbytes watch {job_id}" in done.stderr


def test_what_the_service_answered_is_printed(fewbytes: Fewbytes, spec: Path) -> None:
    assert json.loads(fewbytes("submit", spec, "--json").stdout)["state"] == "queued"


def test_validating_stores_nothing(fewbytes: Fewbytes, spec: Path) -> None:
    done = fewbytes("submit", spec, "--validate")
    assert done.exit_code == 0
    assert "1 distill" in done.stdout
    assert "256,779" in done.stdout
    assert json.loads(fewbytes("submit", spec, "--validate", "--json").stdout)["estimates"]
    assert fewbytes("list", "-q").stdout.count("job_") == 0


def test_once_is_once(fewbytes: Fewbytes, spec: Path) -> None:
    first, again = (fewbytes("submit", spec, "-q", "--idempotency-key", "monday").stdout for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("steps: [", (), "job.yaml: line 1, column 9: not YAML"),
        ("{}", (), "INVALID_SPEC"),
        ("teachers: [huge]\ndataset: food\nsteps: []", (), "NO_SUCH_NAME: There is no teacher 'huge'"),
        ("steps: [{method: distil}]", (), "There is no such method"),
        ("steps: []", ("--set", "steps.0.alpha=1"), "'0' is none of its 0 places"),
        ("preset: alpha", (), "fewbytes sweep takes it"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    fewbytes: Fewbytes, spec: Path, text: str, options: tuple[str, ...], said: str
) -> None:
    """On standard error, with exit code 2; nothing on standard output."""
    spec.write_text(text)
    refused = fewbytes("submit", spec, *options)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert said in refused.stderr


def test_every_fault_of_a_spec_has_a_line(fewbytes: Fewbytes, spec: Path) -> None:
    refused = fewbytes("submit", spec, "--set", "steps.0.alhpa=1", "--set", "seeds=0")
    assert "  /seeds: " in refused.stderr
    assert "  /steps/0/alhpa: " in refused.stderr
    assert "Did you mean alpha?" in refused.stderr


def test_a_file_that_is_not_there(fewbytes: Fewbytes, tmp_path: Path) -> None:
    refused = fewbytes("submit", tmp_path / "none.yaml")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "none.yaml: No such file or directory" in refused.stderr


def test_a_name_that_two_have_is_refused(fewbytes: Fewbytes, spec: Path, sqlite_service: Service) -> None:
    sqlite_service.teacher(name="big")
    refused = fewbytes("submit", spec)
    assert refused.exit_code == 2
    assert "AMBIGUOUS_NAME: 2 teachers are named 'big': tch_" in refused.stderr


def test_without_a_service_it_says_how_to_start_one(fewbytes: Fewbytes, spec: Path) -> None:
    refused = fewbytes("submit", spec, "--url", "http://127.0.0.1:1")
    assert refused.exit_code == 3
    assert "UNREACHABLE: http://127.0.0.1:1 does not answer" in refused.stderr
    assert "fewbytes up" in refused.stderr


def test_a_key_is_sent(fewbytes: Fewbytes, sqlite_service: Service) -> None:
    key = sqlite_service.key_of("default", "write")
    refused = fewbytes("list")
    assert refused.exit_code == 2
    assert "UNAUTHENTICATED" in refused.stderr
    assert fewbytes("list", "--key", key).exit_code == 0


class Trainer:
    """Ends the next job that is queued, after some progress, in a thread."""

    def __init__(self, service: Service, outcome: Problem | None) -> None:
        self.service, self.outcome = service, outcome
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            with reading() as session:
                found = session.query(Job.id).filter(Job.kind == "compress", Job.state == "queued").first()
            if found:
                return self._train(found.id)
            time.sleep(0.05)
        raise AssertionError("no job came")

    def _train(self, job_id: str) -> None:
        claim = self.service.worker.claim(job_id)
        stage = {
            "step": 1,
            "method": "distill",
            "size_bytes": 242_900,
            "parameters": 120_859,
            "macs": 41_888_768,
            "splits": {"val": {"accuracy": 0.875, "loss": 0.3}},
            "latency_ms": {"median": 4.25},
        }
        with transaction() as session:
            jobs.record(session, claim, phase="step 1 of 1: distill", events=[("stage", stage)])
        time.sleep(0.5)
        with transaction() as session:
            if self.outcome is None:
                jobs.finish(session, claim, {"stages": [stage]}, [self.service.worker.artifact(b"student")])
            else:
                jobs.fail(session, claim, self.outcome)


def test_watching_ends_with_the_job_and_its_stages(
    fewbytes: Fewbytes, spec: Path, sqlite_service: Service
) -> None:
    """Without a terminal: a line for each new state, phase and stage, then the table."""
    trainer = Trainer(sqlite_service, None)
    done = fewbytes("submit", spec, "--watch")
    trainer.thread.join()
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.endswith("running: step 1 of 1: distill") for line in lines)
    assert any("step 1 distill done: val accuracy 87.5 %, bytes 242,900" in line for line in lines)
    assert any(line.endswith("(mine) succeeded") for line in lines)
    assert lines[-1].split() == [
        "1",
        "distill",
        "-",
        "87.5",
        "%",
        "242,900",
        "120,859",
        "41,888,768",
        "4.25",
        "ms",
    ]
    assert "fewbytes get job_" in done.stderr


def test_a_failed_job_fails_the_command(fewbytes: Fewbytes, spec: Path, sqlite_service: Service) -> None:
    trainer = Trainer(
        sqlite_service, Problem(422, "BUDGET_TOO_SMALL", "It cannot be so small.", retryable=True)
    )
    done = fewbytes("submit", spec, "--watch")
    trainer.thread.join()
    assert done.exit_code == 1
    assert "failed: BUDGET_TOO_SMALL: It cannot be so small." in done.stderr
    assert "fewbytes retry job_" in done.stderr


def test_quietly_watching_prints_the_id_alone(
    fewbytes: Fewbytes, spec: Path, sqlite_service: Service
) -> None:
    trainer = Trainer(sqlite_service, None)
    done = fewbytes("submit", spec, "--watch", "--quiet")
    trainer.thread.join()
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("job_")
    assert len(done.stdout.split()) == 1
