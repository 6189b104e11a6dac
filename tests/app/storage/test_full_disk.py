"""A full or failing disk under the service: said as it is, nothing half done, and everything works afterwards."""

import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from app import db
from app.database.migrate import upgrade
from app.scheduling import queue
from app.settings import Settings, settings
from app.starting import embedded
from app.storage import collector
from app.storage.objects import Storage
from app.storage.uploads import Parts
from tests.app.conftest import Service, serve
from tests.faulty_disk import FAULTS, FaultyDisk, every_fault, fill, free_bytes, small_disk
from tests.servers import Broker
from tests.service import wait_for

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- each write point, failing at each of its calls


def test_an_object_is_whole_or_not_there(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)

    def check(folder: Path, store: Storage) -> None:
        assert files_of(folder) in ({}, {SHA256: CONTENT})

    faults = every_fault(tmp_path / "disks", Storage, lambda _, store: store.put_file(source), check)
    assert faults >= 14


def test_an_upload_keeps_what_surely_arrived(tmp_path: Path) -> None:
    """Its length is always a beginning of what was sent."""

    def prepare(folder: Path) -> Parts:
        parts = Parts(folder)
        parts.begin("upl_1")
        with parts.append("upl_1") as part:
            part.write(CONTENT[:1000])
        return parts

    def act(folder: Path, parts: Parts) -> None:
        with parts.append("upl_1") as part:
            part.write(CONTENT[part.start :])

    def check(folder: Path, parts: Parts) -> None:
        (content,) = files_of(folder).values()
        assert len(content) >= 1000
        assert CONTENT.startswith(content)

    assert every_fault(tmp_path, prepare, act, check) >= 4


def test_bytes_that_could_not_be_synced_are_sent_again(tmp_path: Path) -> None:
    """They may be lost by the next power cut, however long the file seems."""
    parts = Parts(tmp_path)
    parts.begin("upl_1")
    with parts.append("upl_1") as part:
        part.write(b"sure")
    with (
        FaultyDisk(tmp_path, 2, errno.EIO).inserted(),
        pytest.raises(OSError, match="Input/output"),
        parts.append("upl_1") as part,
    ):
        part.write(b"unsure")
    assert parts.offset("upl_1") == 4


def test_the_services_card_is_whole_and_a_failure_stops_nothing(tmp_path: Path) -> None:
    def prepare(folder: Path) -> embedded._Service:
        service = embedded._Service("http://127.0.0.1:1", folder)
        service.write_card()
        return service

    def act(folder: Path, service: embedded._Service) -> None:
        service.card_is_late, service.write_at = True, 0.0
        service.tend()

    def check(folder: Path, service: embedded._Service) -> None:
        assert set(files_of(folder)) == {"service.json"}
        assert json.loads((folder / "service.json").read_text())["url"] == "http://127.0.0.1:1"

    assert every_fault(tmp_path, prepare, act, check) >= 4
    service = prepare(tmp_path)
    service.card_is_late = True
    with FaultyDisk(tmp_path, 1).inserted():
        service.tend()  # raises nothing
    assert service.card_is_late


def test_the_mark_of_a_data_folder_is_whole_or_not_there(sqlite_database: str, tmp_path: Path) -> None:
    def act(folder: Path, _: object) -> None:
        list(collector.collect(Settings(data_dir=folder)))

    def check(folder: Path, _: object) -> None:
        assert [len(content) for content in files_of(folder).values()] in ([], [32])

    assert every_fault(tmp_path / "disks", lambda folder: None, act, check) >= 6


# ---- over HTTP


@pytest.fixture
def quiet(sqlite_service: Service) -> Service:
    """With folders that are there already, so that every fault is met by the request."""
    sqlite_service.upload("first.bin", b"first")
    return sqlite_service


def test_an_upload_on_a_failing_disk_is_507_and_the_next_try_works(quiet: Service) -> None:
    objects = quiet.settings.resolved_data_dir / "objects"
    counting = FaultyDisk(quiet.settings.resolved_data_dir)
    with counting.inserted():
        assert quiet.client.put("/v1/files/a.bin", content=CONTENT).status_code == 201
    for error in FAULTS:
        for fail_at in range(1, counting.num_calls + 1):
            before = files_of(objects)
            with FaultyDisk(quiet.settings.resolved_data_dir, fail_at, error).inserted():
                answer = quiet.client.put("/v1/files/b.bin", content=CONTENT[::-1])
            if answer.status_code != 201:  # a folder that was there already
                problem = answer.json()
                assert (answer.status_code, problem["code"]) == (507, "INSUFFICIENT_STORAGE"), answer.text
                assert problem["retryable"]
                assert answer.headers["retry-after"]
                assert quiet.client.get("/v1/files/b.bin").status_code == 404
                assert set(files_of(objects)) <= {*before, hashlib.sha256(CONTENT[::-1]).hexdigest()}
                assert quiet.client.put("/v1/files/b.bin", content=CONTENT[::-1]).status_code == 201
            assert quiet.client.delete("/v1/files/b.bin").status_code == 204


def test_without_room_nothing_is_begun(quiet: Service) -> None:
    """Before the body is read: a request that waits for 100 Continue is not asked for it."""
    quiet.settings.min_free_bytes = 1 << 60
    put = quiet.client.put("/v1/files/a.bin", content=CONTENT)
    form = quiet.client.post("/v1/files", files={"file": ("a.bin", CONTENT)})
    upload = quiet.client.post("/v1/uploads", json={"name": "a.bin", "size_bytes": 10})
    for answer in (put, form, upload):
        assert (answer.status_code, answer.json()["code"]) == (507, "INSUFFICIENT_STORAGE")
        assert str(1 << 60) in answer.json()["detail"]
    quiet.settings.min_free_bytes = 0
    assert quiet.client.put("/v1/files/a.bin", content=CONTENT).status_code == 201
    too_large = quiet.client.post("/v1/uploads", json={"name": "a.bin", "size_bytes": 1 << 50})
    assert too_large.json()["code"] == "FILE_TOO_LARGE"  # however full the disk is


def test_what_a_request_declares_must_fit_too(quiet: Service) -> None:
    free = free_bytes(quiet.settings.resolved_data_dir)
    quiet.settings.min_free_bytes = free - (512 << 10)  # leaves half a mebibyte, more or less
    big = quiet.client.post("/v1/uploads", json={"name": "a.bin", "size_bytes": 1 << 20})
    assert big.status_code == 507


def test_a_resumable_upload_goes_on_when_there_is_room_again(quiet: Service) -> None:
    begun = quiet.client.post(
        "/v1/uploads", json={"name": "a.bin", "size_bytes": len(CONTENT), "sha256": SHA256}
    )
    path = begun.headers["location"]
    part = {"Content-Range": f"bytes 0-999/{len(CONTENT)}"}
    assert quiet.client.put(path, content=CONTENT[:1000], headers=part).status_code == 204
    folder = quiet.settings.resolved_data_dir / "uploads"

    def put_rest() -> int:
        offset = int(quiet.client.head(path).headers["upload-offset"])
        rest = {"Content-Range": f"bytes {offset}-{len(CONTENT) - 1}/{len(CONTENT)}"}
        return quiet.client.put(path, content=CONTENT[offset:], headers=rest).status_code

    with FaultyDisk(folder, 1).inserted():  # half of it is written, then the disk is full
        assert put_rest() == 507
    offset = int(quiet.client.head(path).headers["upload-offset"])
    assert 1000 < offset < len(CONTENT)
    assert put_rest() == 201
    assert quiet.client.get("/v1/files/a.bin").json()["sha256"] == SHA256


def test_an_upload_that_is_complete_but_finds_no_room_is_finished_by_a_later_look(quiet: Service) -> None:
    begun = quiet.client.post("/v1/uploads", json={"name": "a.bin", "size_bytes": len(CONTENT)})
    path = begun.headers["location"]
    objects = quiet.settings.resolved_data_dir / "objects"
    with FaultyDisk(objects, 2, errno.EIO).inserted():  # the first is the sync of the part
        assert quiet.client.put(path, content=CONTENT).status_code == 507
    quiet.settings.min_free_bytes = 1 << 60
    waiting = quiet.client.get(path)
    assert (waiting.status_code, waiting.headers["upload-offset"]) == (200, str(len(CONTENT)))
    quiet.settings.min_free_bytes = 0
    assert quiet.client.get(path).json()["file"]["sha256"] == SHA256


# ---- a real disk, small and full


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[Service]:
    """A service whose database and files are on a disk of 6 MiB."""
    with small_disk(tmp_path / "disk", 6 << 20) as disk:
        url = f"sqlite:///{disk / 'fewbytes.db'}"
        upgrade(url)
        db.configure(url)
        try:
            yield from serve(
                Settings(data_dir=disk, BROKER_URL="", min_free_bytes=0, max_file_bytes=64 << 20)
            )
        finally:
            db.configure(None)


def test_a_service_on_a_full_disk_says_so_and_recovers(cramped: Service) -> None:
    client, disk = cramped.client, cramped.settings.resolved_data_dir
    spec = cramped.job_spec()
    job = client.post("/v1/jobs", json=spec).json()["id"]
    big = os.urandom(8 << 20)
    declared = client.put("/v1/files/big.bin", content=big)
    streamed = client.put("/v1/files/big.bin", content=iter([big]))  # says nothing of its size
    for answer in (declared, streamed):
        assert (answer.status_code, answer.json()["code"]) == (507, "INSUFFICIENT_STORAGE")
    assert list((disk / "objects" / "partial").iterdir()) == []
    filler = fill(disk)
    answers = [client.post("/v1/jobs", json=spec) for _ in range(30)]
    refused = [answer for answer in answers if answer.status_code != 202]
    assert refused, "the database found room on a full disk"
    for answer in refused:
        assert (answer.status_code, answer.json()["code"]) == (503, "DATABASE_UNAVAILABLE"), answer.text
        assert answer.headers["retry-after"]
        assert answer.json()["retryable"]
    filler.unlink()
    accepted = [job, *(answer.json()["id"] for answer in answers if answer.status_code == 202)]
    assert client.post("/v1/jobs", json=spec).status_code == 202
    assert client.put("/v1/files/small.bin", content=CONTENT).status_code == 201
    stored = [item["id"] for item in client.get("/v1/jobs", params={"page_size": 100}).json()["items"]]
    assert set(accepted) <= set(stored)
    assert len(stored) == len(accepted) + 1  # and none that was refused


def test_a_broker_on_a_full_disk_refuses_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot write its log; the outbox keeps what it could not announce, and tries again."""
    with small_disk(tmp_path / "disk", 1 << 20) as disk, contextlib.ExitStack() as ended:
        broker = Broker(disk, unix_socket=False)
        ended.callback(broker.kill)
        broker.client().config_set("appendonly", "yes")
        # A first rewrite that met the full disk would be tried again after a minute, not after a second.
        wait_for(lambda: not broker.client().info("persistence")["aof_rewrite_in_progress"], 60)
        monkeypatch.setattr(settings(), "broker_url", broker.url)
        queue.reset()
        ended.callback(queue.reset)
        queue.send("job_1", "compress")
        filler = fill(disk)
        assert not sends_within(5, wanted=False)
        filler.unlink()
        assert sends_within(60, wanted=True)  # it looks again once a second, on a quiet machine


def sends_within(seconds: float, *, wanted: bool) -> bool:
    """Send until it does as wanted; whether the last one was taken."""
    give_up = time.monotonic() + seconds
    taken = not wanted
    while taken != wanted and time.monotonic() < give_up:
        try:
            queue.send("job_2", "compress")
            taken = True
        except (BrokerError, RedisError, OSError):
            taken = False
        time.sleep(0.01)
    return taken
