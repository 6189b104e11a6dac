"""`fewbytes get`, `list`, `logs`, `upload`, `cancel` and the like."""

import json
from pathlib import Path
from typing import Any

import pytest

from app import jobs
from app.db import transaction
from app.errors import Problem
from tests.app.cli.conftest import Fewbytes
from tests.app.conftest import Service

STAGE: dict[str, Any] = {
    "step": 1,
    "method": "distill",
    "size_bytes": 242_900,
    "parameters": 120_859,
    "macs": 41_888_768,
    "splits": {"val": {"accuracy": 0.875}, "test": {"accuracy": 1.0, "leaked": True}},
    "latency_ms": None,
}


@pytest.fixture
def job_id(sqlite_service: Service) -> str:
    """A job that has succeeded."""
    ident = sqlite_service.job(name="mine", labels={"team": "a"})
    claim = sqlite_service.worker.claim(ident)
    hostile = "an image called \x1b[31mred\x1b[0m [bold]x[/bold]"
    with transaction() as session:
        jobs.record(session, claim, events=[("log", {"level": "warning", "message": hostile})])
        jobs.finish(
            session,
            claim,
            {
                "stages": [STAGE],
                "warnings": ["The data set is small."],
                "gates": [{"gate": "max_bytes", "limit": 300_000, "value": 242_900, "passed": True}],
            },
            [sqlite_service.worker.artifact(b"student")],
        )
    return ident


# ---- get


def test_a_job_is_shown_with_stages_files_and_warnings(fewbytes: Fewbytes, job_id: str) -> None:
    shown = fewbytes("get", job_id).stdout
    assert f"{job_id} (mine) succeeded" in shown
    assert "87.5 %" in shown
    assert "100.0 % (trained on)" in shown
    assert "final.pt" in shown
    assert "warning: The data set is small." in shown
    assert "limit max_bytes 300,000: 242,900, met" in shown


def test_a_failed_job_says_why(fewbytes: Fewbytes, sqlite_service: Service) -> None:
    ident = sqlite_service.job()
    claim = sqlite_service.worker.claim(ident)
    errors = [{"pointer": "/steps/0", "code": "X", "detail": "Too small.", "hint": "Ask for more."}]
    with transaction() as session:
        jobs.fail(session, claim, Problem(422, "NO_ROOM", "It cannot be.", errors=errors))
    shown = fewbytes("get", ident)
    assert shown.exit_code == 0
    assert "failed: NO_ROOM: It cannot be." in shown.stderr
    assert "/steps/0: Too small. Ask for more." in shown.stderr


def test_all_of_it_is_json(fewbytes: Fewbytes, job_id: str, sqlite_service: Service) -> None:
    """What the service answered, field by field."""
    shown = json.loads(fewbytes("get", job_id, "--json").stdout)
    assert shown == sqlite_service.client.get(f"/v1/jobs/{job_id}").json()


def test_an_answer_is_fetched(fewbytes: Fewbytes, job_id: str, tmp_path: Path) -> None:
    target = tmp_path / "student.pt"
    done = fewbytes("get", job_id, "-o", target)
    assert done.exit_code == 0, done.stderr
    assert target.read_bytes() == b"student"
    assert done.stdout == ""
    assert "student.pt: 7 B" in done.stderr


def test_others_are_shown_and_fetched(fewbytes: Fewbytes, sqlite_service: Service, tmp_path: Path) -> None:
    teacher, dataset = sqlite_service.teacher(name="big"), sqlite_service.dataset(name="food")
    assert "11,000,000 parameters" in fewbytes("get", teacher).stdout
    assert "classes: cat, dog" in fewbytes("get", dataset).stdout
    listing = tmp_path / "images.csv"
    assert fewbytes("get", dataset, "-o", listing).exit_code == 0
    assert listing.read_text().splitlines()[0] == "path,label"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("get", "something"), 2, "'something' is no id"),
        (("get", "job_none"), 2, "NOT_FOUND: There is no job 'job_none'"),
        (("get", "job_NOT"), 2, "INVALID_PARAMETER"),
        (("watch", "tch_a"), 2, "is no job and no sweep"),
        (("watch", "job_none"), 2, "NOT_FOUND"),
        (("cancel", "tch_a"), 2, "is no job and no sweep"),
        (("logs", "job_none"), 2, "NOT_FOUND"),
        (("list", "teachers", "--state", "ready"), 2, "--state chooses among jobs"),
        (("list", "--label", "a"), 2, "give NAME=VALUE"),
        (("list", "--limit", "0"), 2, "--limit"),
        (("compare", "tch_a"), 2, "'tch_a' is no job"),
        (("compare", "swp_a", "job_b"), 2, "One sweep at a time"),
        (("compare", "job_b", "swp_a"), 2, "'swp_a' is no job"),
        (("sweep",), 2, "Give either a spec or --preset"),
        (("sweep", "x.yaml", "--teacher", "a"), 2, "go with --preset"),
        (("get", "swp_a", "-o", "x.txt"), 2, "give a file that ends in one of .csv"),
    ],
)
def test_what_cannot_be_is_said(fewbytes: Fewbytes, arguments: tuple[str, ...], code: int, said: str) -> None:
    refused = fewbytes(*arguments)
    assert (refused.exit_code, refused.stdout) == (code, "")
    assert said in refused.stderr.replace("\n", " ")


# ---- list


def test_jobs_are_listed_the_newest_first(fewbytes: Fewbytes, job_id: str, sqlite_service: Service) -> None:
    other = sqlite_service.job(name="later")
    assert [line for line in fewbytes("list", "-q").stdout.split() if line.startswith("job_")] == [
        other,
        job_id,
    ]
    shown = fewbytes("list").stdout
    assert "later" in shown
    assert "mine" in shown
    assert fewbytes("list", "--state", "succeeded", "--label", "team=a", "-q").stdout.split() == [job_id]
    assert fewbytes("list", "-n", "1", "-q").stdout.split() == [other]
    assert json.loads(fewbytes("list", "--json", "-n", "1").stdout)[0]["id"] == other


def test_other_things_are_listed_as_well(fewbytes: Fewbytes, sqlite_service: Service) -> None:
    teacher, dataset = sqlite_service.teacher(name="big"), sqlite_service.dataset()
    assert fewbytes("list", "teachers", "-q").stdout.split() == [teacher]
    assert fewbytes("list", "datasets", "-q").stdout.split() == [dataset]
    assert fewbytes("list", "files", "-q").stdout.split() == ["photos.zip", "teacher.pt"]
    assert "big" in fewbytes("list", "teachers").stdout


# ---- logs


def test_a_log_is_printed_without_what_steers_a_terminal(fewbytes: Fewbytes, job_id: str) -> None:
    """Followed or not, it is the same."""
    shown = fewbytes("logs", job_id).stdout
    assert "warning an image called \ufffd[31mred\ufffd[0m [bold]x[/bold]" in shown
    followed = fewbytes("logs", job_id, "-f").stdout
    assert followed.split("warning")[1] == shown.split("warning")[1]


# ---- verbs


def test_a_job_is_paused_resumed_cancelled_and_retried(fewbytes: Fewbytes, sqlite_service: Service) -> None:
    ident = sqlite_service.job()
    assert fewbytes("pause", ident).stdout == f"{ident} paused\n"
    assert fewbytes("resume", ident).stdout == f"{ident} queued\n"
    assert fewbytes("cancel", ident).stdout == f"{ident} cancelled\n"
    assert fewbytes("watch", ident).exit_code == 1
    assert fewbytes("retry", ident, "-q").stdout == f"{ident}\n"
    refused = fewbytes("retry", ident)
    assert refused.exit_code == 2
    assert ident in refused.stderr


# ---- upload


def test_a_file_is_uploaded_and_registered(
    fewbytes: Fewbytes, sqlite_service: Service, tmp_path: Path
) -> None:
    photos, teacher, fields = (tmp_path / name for name in ("photos.zip", "net.pt", "net.json"))
    photos.write_bytes(b"photos")
    teacher.write_bytes(b"weights")
    fields.write_text('{"class_names": ["cat", "dog"]}')
    done = fewbytes("upload", photos, "--as", "dataset", "--name", "food", "--set", "layout=flat")
    assert done.exit_code == 0, done.stderr
    dataset = done.stdout.split()[0]
    assert "2 classes; train 4, val 4, test 4" in done.stdout
    assert sqlite_service.client.get(f"/v1/datasets/{dataset}").json()["spec"]["layout"] == "flat"
    done = fewbytes(
        *(
            "upload",
            teacher,
            "--as",
            "teacher",
            "--name",
            "big",
            "--architecture",
            "student_net",
            "--spec",
            fields,
        ),
        *("--set", "preprocessing.resize=64", "--set", "preprocessing.crop=64", "-q"),
    )
    assert done.exit_code == 0, done.stderr
    row = sqlite_service.client.get(f"/v1/teachers/{done.stdout.strip()}").json()
    assert row["name"] == "big"
    assert row["spec"]["class_names"] == ["cat", "dog"]
    assert row["spec"]["preprocessing"]["resize"] == 64


def test_a_file_alone_is_uploaded(fewbytes: Fewbytes, sqlite_service: Service, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"bytes")
    assert fewbytes("upload", path, "--file-name", "b.bin").stdout == "b.bin  5 bytes\n"
    assert sqlite_service.client.get("/v1/files/b.bin").json()["size_bytes"] == 5


def test_what_is_wrong_with_a_file_is_said(
    fewbytes: Fewbytes, sqlite_service: Service, tmp_path: Path
) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"bytes")
    sqlite_service.worker.answers["teacher"] = lambda spec: Problem(422, "NOT_A_CHECKPOINT", "It is none.")
    refused = fewbytes("upload", path, "--as", "teacher", "--architecture", "student_net")
    assert refused.exit_code == 2
    assert "NOT_A_CHECKPOINT: It is none. (It stays readable as /v1/teachers/tch_" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--name", "x"), "go with --as"),
        (("--as", "dataset", "--architecture", "x"), "--architecture goes with --as teacher"),
        (("--as", "model"), "--as"),
        (("--as", "teacher", "--set", "x"), "give FIELD=VALUE"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    fewbytes: Fewbytes, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"bytes")
    refused = fewbytes("upload", path, *arguments)
    assert refused.exit_code == 2
    assert said in refused.stderr
