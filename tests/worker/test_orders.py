"""What a child is told comes from the rows of its job's owner."""

import pytest

from app import db, jobs, tenancy, tenants
from app.errors import Problem
from app.tables import Teacher
from worker import orders

pytestmark = pytest.mark.usefixtures("data_dir")


def claimed(tenant_id: str, teacher_id: str) -> jobs.Claim:
    """An inspection of this teacher, claimed."""
    with tenancy.transaction(tenant_id) as session:
        job, _ = jobs.submit(session, kind="inspect", spec={"inspect": "teacher", "id": teacher_id})
    with db.transaction() as session:
        claim = jobs.claim(session, job.id, worker="w")
    assert claim is not None
    return claim


def test_a_job_gets_nothing_of_another_tenants(sqlite_database: str) -> None:
    """Even if its row named it."""
    with db.transaction() as session:
        owner = tenants.make(session, "owner").id
    theirs = claimed(owner, "tch_1")
    row = {
        "spec": {},
        "state": "inspecting",
        "file_sha256": "0" * 64,
        "file_size_bytes": 1,
        "created_at": 0.0,
    }
    with tenancy.transaction(owner) as session:
        session.add(Teacher(id="tch_1", job_id=theirs.job_id, **row))
    with pytest.raises(Problem, match="OBJECT_MISSING"):  # it is found; only its bytes are not there
        orders.build(theirs)
    with pytest.raises(Problem, match="There is no teacher 'tch_1'"):
        orders.build(claimed(tenants.DEFAULT, "tch_1"))
