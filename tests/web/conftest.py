"""Fixtures of the page's tests: a browser, a service with a real worker, and one that holds what a test puts there."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from app import db
from app.settings import Settings
from tests.app.conftest import Service as Prepared
from tests.app.conftest import serve
from tests.service import Service, wait_for
from tests.web import chromium
from tests.web.chromium import Visitor, visiting
from tests.worker import tiny

# A machine that runs other tests beside these is slow at times; what holds, holds at once.
expect.set_options(timeout=15_000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, help="leave pictures of the page in this folder")


@pytest.fixture(scope="session")
def screenshots(request: pytest.FixtureRequest) -> Path | None:
    folder: Path | None = request.config.getoption("--screenshots", default=None)
    return folder


# As long as this package: its driver keeps an event loop in this thread, where other tests run their own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The system's Chromium; without one the tests are skipped, but never where all must run."""
    path = chromium.find()
    if path is None and os.environ.get("CI") == "true":
        pytest.fail(chromium.HOW_TO_GET_ONE)
    if path is None:
        pytest.skip(chromium.HOW_TO_GET_ONE)
    with chromium.started(path) as found:
        yield found


@pytest.fixture(scope="module")
def prepared(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """The API, and a worker that accepts every teacher and data set and leaves jobs alone: a test says what becomes of them."""
    folder = tmp_path_factory.mktemp("prepared")
    shutil.copy(sqlite_template, folder / "fewbytes.db")
    db.configure(f"sqlite:///{folder / 'fewbytes.db'}")
    yield from serve(Settings(data_dir=folder / "data", BROKER_URL="", inspect_wait_seconds=10.0))
    db.configure(None)


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`fewbytes up`, as a user starts it: one for all files, which leave each other's jobs alone."""
    service = Service(tmp_path_factory.mktemp("up") / "data", {})
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="package")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A teacher and photos, as a user has them on disk."""
    folder = tmp_path_factory.mktemp("files")
    return {
        "teacher": tiny.write_teacher(folder / "teacher.pt"),
        "photos": tiny.write_photos(folder / "photos.zip"),
    }


@pytest.fixture(scope="package")
def registered(running: Service, files: dict[str, Path]) -> dict[str, Any]:
    """Both on the service: the beginning of a job."""
    for file in files.values():
        assert running.http.put(f"/v1/files/{file.name}", content=file.read_bytes()).status_code == 201
    bodies: dict[str, dict[str, Any]] = {
        "/v1/teachers": {
            "file": "teacher.pt",
            "name": "tiny teacher",
            "architecture": tiny.TEACHER,
            "preprocessing": tiny.PREPROCESSING,
            "class_names": list(tiny.CLASSES),
        },
        "/v1/datasets": {"file": "photos.zip", "name": "light and dark"},
    }
    made = {path: running.post(path, body)["id"] for path, body in bodies.items()}
    for path, ident in made.items():
        wait_for(lambda at=f"{path}/{ident}": running.get(at)["state"] == "ready", 60)
    return {"teachers": [made["/v1/teachers"]], "dataset": made["/v1/datasets"], "device": "cpu", "seed": 3}


@pytest.fixture
def visitor(browser: Browser, running: Service) -> Iterator[Visitor]:
    """At the service with a real worker."""
    with visiting(browser, str(running.http.base_url).rstrip("/")) as found:
        yield found
        found.check()


@pytest.fixture
def guest(browser: Browser, prepared: Prepared) -> Iterator[Visitor]:
    """At the service that holds what the test puts there."""
    with visiting(browser, f"http://127.0.0.1:{prepared.port}") as found:
        yield found
        found.check()
