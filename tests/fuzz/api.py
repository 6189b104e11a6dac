"""The OpenAPI against the running service: schemathesis with all its checks, stateful, on both databases.

    python -m tests.fuzz api --max-examples 200

What is excluded, and why, is in `schemathesis.toml` beside this file.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import select

from app import db
from app.database.migrate import upgrade
from app.db import reading
from app.planning import architectures
from app.settings import Settings
from app.tables import Job
from tests.app.conftest import CATALOGUE, Service, serve
from tests.servers import Postgres, embedded_postgres_url

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
PHASES = "examples,coverage,fuzzing,stateful"


def run(
    service: Service, *options: str, max_examples: int, phases: str = PHASES, seed: int | None = None
) -> tuple[int, str]:
    """schemathesis' exit code and report: 0 when no check failed. `options` are further ones of its own."""
    service.worker.answers["architecture"] = lambda spec: {"layers": [], "parameters": 1, "macs": 1}
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run"]
    command += [f"http://127.0.0.1:{service.port}/openapi.json", "--checks", "all", "--phases", phases]
    command += ["--max-examples", str(max_examples), "--continue-on-failure", "--no-color"]
    command += [] if seed is None else ["--seed", str(seed)]
    command += ["--header", f"Authorization: Bearer {_key(service)}", *options]
    with _jobs_end(service):
        service.job()
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tempfile.gettempdir())
    # Otherwise all that was tried since was tried at a closed door.
    assert service.client.get("/v1/usage").status_code == 200
    return done.returncode, done.stdout + done.stderr


def _key(service: Service) -> str:
    """A key with every right, so that what needs one is tried too."""
    secret = service.key_of("default")
    service.client.headers["Authorization"] = f"Bearer {secret}"
    return secret


@contextlib.contextmanager
def _jobs_end(service: Service) -> Iterator[None]:
    """Every job succeeds at once, with an artifact: there is something to list and to download."""
    over = threading.Event()

    def finish_all() -> None:
        while not over.wait(0.05):
            with reading() as session:
                queued = select(Job.id).where(Job.kind == "compress", Job.state == "queued")
                waiting = session.scalars(queued).all()
            for job_id in waiting:
                # It may have been cancelled since we looked.
                with contextlib.suppress(AssertionError):
                    service.worker.finish(job_id)

    thread = threading.Thread(target=finish_all)
    thread.start()
    yield
    over.set()
    thread.join()


@contextlib.contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database of this kind."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/fewbytes.db"
        return
    with embedded_postgres_url() as url:
        server = Postgres(url)
        yield server.url_of(server.emptied_database())
        server.close()


def _fuzz(kind: str, *, max_examples: int, phases: str, seed: int | None) -> int:
    with tempfile.TemporaryDirectory() as name, _database(kind, Path(name)) as url:
        upgrade(url)
        db.configure(url)
        catalogue = Path(name) / "architectures.json"
        catalogue.write_text(json.dumps(CATALOGUE))
        architectures.PATH = catalogue
        settings = Settings(
            data_dir=Path(name) / "data", BROKER_URL="", inspect_wait_seconds=5.0, requests_per_minute=0
        )
        for service in serve(settings):
            code, report = run(service, max_examples=max_examples, phases=phases, seed=seed)
        db.configure(None)
    print(f"==> {kind}\n{report}")
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--max-examples", type=int, default=200, help="of each operation")
    parser.add_argument("--databases", default="sqlite,postgresql")
    parser.add_argument("--phases", default=PHASES)
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    options = {"max_examples": given.max_examples, "phases": given.phases, "seed": given.seed}
    return max(_fuzz(kind, **options) for kind in given.databases.split(","))


if __name__ == "__main__":
    sys.exit(main())
