"""Sweeps without a server: a teacher and photos as rows, and workers who do nothing but say so."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app import db, jobs
from app.access import tenancy
from app.access.tenants import DEFAULT
from app.errors import Problem
from app.jobs import Claim, NewArtifact
from app.scheduling import schedule
from app.scheduling.schedule import Offer
from app.spec.sweep import SweepSpec
from app.storage.objects import Storage
from app.sweeps import planning, reads, submitting
from app.sweeps.reads import Child, SweepSnapshot
from app.tables import Dataset, Job, Teacher
from tests.app.conftest import dataset_report, teacher_report
from tests.faults.checker import check

TEACHER, PHOTOS = "tch_1", "dst_1"
TRAIN = {"method": "train", "student": "student_net", "epochs": 8}
QUANTIZE = {"method": "quantize"}


def prune(keep_rate: float, **more: Any) -> dict[str, Any]:
    return {"method": "prune", "keep_rate": keep_rate, **more}


@dataclass
class Ground:
    """What a sweep needs, and what happens to it."""

    storage: Storage
    tenant_id: str = DEFAULT
    max_jobs: int = 1000

    def spec(self, *steps: dict[str, Any], axes: list[Any] | None = None, **changes: Any) -> SweepSpec:
        job = {"teachers": [TEACHER], "dataset": PHOTOS, "steps": list(steps) or [TRAIN]}
        job |= changes.pop("job", {})
        return SweepSpec.model_validate({"job": job, "axes": axes or [], **changes})

    def plan(self, spec: SweepSpec) -> planning.PlannedSweep:
        with tenancy.reading(self.tenant_id) as session:
            return planning.plan(session, spec, max_jobs=self.max_jobs)

    def post(self, spec: SweepSpec, key: str | None = None) -> str:
        planned = self.plan(spec)
        with tenancy.transaction(self.tenant_id) as session:
            request = spec.model_dump(mode="json")
            return submitting.submit(session, planned, self.storage, request=request, idempotency_key=key)[
                0
            ].id

    def act(self, verb: Any, *arguments: Any) -> Any:
        with tenancy.transaction(self.tenant_id) as session:
            return verb(session, *arguments)

    def look(self, sweep_id: str) -> SweepSnapshot:
        with tenancy.reading(self.tenant_id) as session:
            return reads.snapshot(session, sweep_id)

    def children(self, sweep_id: str) -> list[Child]:
        with tenancy.reading(self.tenant_id) as session:
            return reads.children(session, sweep_id)

    def jobs(self, sweep_id: str) -> list[Job]:
        """In the order in which they are claimed, had all the same priority."""
        with db.reading() as session:
            found = select(Job).where(Job.sweep_id == sweep_id).order_by(Job.created_at, Job.id)
            return list(session.scalars(found))

    def job(self, job_id: str) -> Job:
        with db.reading() as session:
            return session.scalars(select(Job).where(Job.id == job_id)).one()

    def stages(self, sweep_id: str) -> list[Job]:
        return [job for job in self.jobs(sweep_id) if job.point is None]

    def waits(self, sweep_id: str) -> list[str | None]:
        """What each job of the grid waits for."""
        return [child.job.waits_for for child in self.children(sweep_id)]

    def claim(self, job_id: str | None = None) -> Claim | None:
        """Whichever is next, or this one."""
        with db.transaction() as session:
            if job_id is not None:
                return jobs.claim(session, job_id, worker="w")
            return schedule.claim_next(session, Offer("w", ("compress", "gpu")))

    def finish(self, claim: Claim | None) -> str:
        assert claim is not None
        with self.storage.writer() as writer:
            writer.write(claim.job_id.encode())
            sha256, size_bytes = writer.commit()
        student = NewArtifact(
            step=1, kind="final", name="a.pt", sha256=sha256, size_bytes=size_bytes, metrics={}
        )
        with db.transaction() as session:
            jobs.finish(session, claim, {"stages": []}, [student])
        return claim.job_id

    def fail(self, claim: Claim | None, code: str = "TRAINING_DIVERGED") -> str:
        assert claim is not None
        with db.transaction() as session:
            jobs.fail(session, claim, Problem(422, code, "It is not possible."))
        return claim.job_id

    def finish_all(self) -> list[str]:
        """One worker, until nothing is left; the jobs in the order in which it did them."""
        done = []
        while (claim := self.claim()) is not None:
            done.append(self.finish(claim))
        return done


@pytest.fixture
def ground(database: str, tmp_path: Path) -> Iterator[Ground]:
    """After the test all rows tell the same."""
    yield prepared(Storage(tmp_path / "data"))
    with db.reading() as session:
        assert check(session) == []


def prepared(storage: Storage) -> Ground:
    """Ready rows, as an inspection leaves them."""
    names = ["cat", "dog"]
    with tenancy.transaction(DEFAULT) as session:
        inspection, _ = jobs.submit(session, kind="inspect", spec={"inspect": "teacher", "id": TEACHER})
        common = {"state": "ready", "job_id": inspection.id, "spec": {}, "created_at": 0.0}
        session.add(
            Teacher(
                id=TEACHER,
                file_sha256="0" * 64,
                file_size_bytes=9,
                artifact_sha256="1" * 64,
                report=teacher_report(names),
                **common,
            )
        )
        session.add(Dataset(id=PHOTOS, index_sha256="2" * 64, report=dataset_report(names), **common))
    with db.transaction() as session:
        claim = jobs.claim(session, inspection.id, worker="w")
        assert claim is not None
        jobs.finish(session, claim, {})
    return Ground(storage)
