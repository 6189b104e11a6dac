"""A process of the version before, in the SQL of its tables: what a migration must not disturb."""

import threading
import time
from typing import Any

from sqlalchemy import Engine, text

BEFORE = "0005"


class OldProcess:
    """What a process of revision 0005 does all day, in that revision's SQL: submit, claim, beat, record, finish."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self._name, self._count = engine, name, 0
        self.done: list[str] = []
        self.waits: list[float] = []
        self.failure: BaseException | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> "OldProcess":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            while not self._ending.is_set():
                self._one_job()
        except BaseException as error:
            self.failure = error

    def _one_job(self) -> None:
        self._count += 1
        job = f"job_{self._name}{self._count}"
        now = {"id": job, "now": time.time(), "worker": self._name}
        self._do(
            "INSERT INTO jobs (id, kind, queue, priority, labels, spec, fingerprint, state, paused, version, last_seq, "
            "attempt, failures, created_at, tenant_id) VALUES (:id, 'compress', 'compress', 0, '{}', '{}', 'f', 'queued', "
            "false, 1, 1, 0, 0, :now, 'ten_default')",
            "INSERT INTO events (job_id, seq, at, type, data) VALUES (:id, 1, :now, 'state', '{}')",
            **now,
        )
        self._do(
            "UPDATE jobs SET state = 'running', attempt = attempt + 1, lease_owner = :worker, lease_until = :now + 20, "
            "next_attempt_at = NULL, version = version + 1, last_seq = last_seq + 1 WHERE id = :id AND state = 'queued' AND "
            "paused = false",
            "INSERT INTO attempts (job_id, n, worker, started_at) VALUES (:id, 1, :worker, :now)",
            "INSERT INTO events (job_id, seq, at, type, data) VALUES (:id, 2, :now, 'state', '{}')",
            **now,
        )
        for _ in range(2):
            self._do(
                "UPDATE jobs SET lease_until = :now + 20 WHERE id = :id AND attempt = 1",
                **now,
            )
        self._do(
            "UPDATE attempts SET ended_at = :now, outcome = 'succeeded', detail = 'It is done.' "
            "WHERE job_id = :id AND n = 1",
            "UPDATE jobs SET state = 'succeeded', result = '{}', passed = NULL, version = version + 1, "
            "last_seq = last_seq + 1 WHERE id = :id AND state = 'running' AND attempt = 1",
            "INSERT INTO artifacts "
            "(id, job_id, step, kind, name, sha256, size_bytes, metrics, receipt, created_at, tenant_id) "
            "VALUES ('art_' || :id, :id, 1, 'final', 'a', 's', 1, '{}', '{}', :now, 'ten_default')",
            "INSERT INTO events (job_id, seq, at, type, data) VALUES (:id, 3, :now, 'state', '{}')",
            **now,
        )
        self.done.append(job)

    def _do(self, *statements: str, **values: Any) -> None:
        began = time.monotonic()
        with self._engine.begin() as connection:
            for statement in statements:
                used = {key: value for key, value in values.items() if f":{key}" in statement}
                changed = connection.execute(text(statement), used)
                assert changed.rowcount == 1, statement
        self.waits.append(time.monotonic() - began)
