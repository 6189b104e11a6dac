"""What is picked out of results in the database is what the results say."""

import time
from typing import Any

import pytest
from sqlalchemy import event, text

from app import db
from app.access import tenancy, tenants
from app.access.tenants import DEFAULT
from app.analysis import reads
from app.analysis.table import rows
from app.errors import Problem
from app.sweeps.reads import Child
from app.tables import Metric
from tests.app.analysis.made import child, result, stage, stored

KINDS: Any = ("answers", "stages", "iterations")

PRUNE = stage(
    2,
    "prune",
    details={
        "start": {"parameters": 100, "macs": 200, "accuracy": 0.5},
        "iterations": [{"iteration": 1, "parameters": 90, "epochs": 1.0, "accuracy_after": 0.25}],
        "not_prunable": {"head": "it is the output"},
    },
)
SEEDS = [{"seed": n, "stages": [stage(1, "distill", size_bytes=100 + n), PRUNE]} for n in range(2)]


def some_jobs() -> list[Child]:
    """Of every kind that there is: pruned, of two seeds, cancelled, failed, queued, odd."""
    several = child(2, {"n": 1}, result=result(*SEEDS[0]["stages"], seeds=SEEDS), point=1)
    several.job.spec = {**several.job.spec, "seeds": 2}
    return [
        child(1, {"n": 0}, result=result(stage(1, "distill"), PRUNE)),
        several,
        child(3, {"n": 2}, result=result(stage(1, "train")), state="cancelled", point=2),
        child(4, {"n": 3}, state="failed", error={"code": "DIVERGED", "detail": "NaN."}, point=3),
        child(5, {"n": 4}, state="queued", point=4),
        child(6, {"n": 5}, result={"metrics": {}}, point=5),
        child(7, {"n": 6}, result=result(reused_from="job_1", stages=[]), point=6),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_picked_results_give_the_rows_of_whole_ones(database: str, kind: Any) -> None:
    """In JSON of SQLite and of PostgreSQL, to the last digit."""
    children = some_jobs()
    with tenancy.transaction(DEFAULT) as session:
        stored(session, children)
    with tenancy.reading(DEFAULT) as session:
        gathered = reads.gather(session, children, kind)
    assert gathered.rows(kind) == rows(children, kind)
    assert gathered.reasons() == {"job_4": "NaN."}
    assert gathered.discordances()["job_1"] == PRUNE["against_teacher"]


def test_large_parts_of_results_are_not_read(database: str) -> None:
    """Confusion, details and layers of a thousand jobs would be megabytes."""
    children = some_jobs()[:2]
    with tenancy.transaction(DEFAULT) as session:
        stored(session, children)
    with tenancy.reading(DEFAULT) as session:
        found = reads.gather(session, children).results["job_1"]
        several = reads.gather(session, children).results["job_2"]
        with_iterations = reads.gather(session, children, "iterations").results["job_1"]
    assert found is not None
    assert with_iterations is not None
    assert several is not None
    for picked in [*found["stages"], *several["stages"], *several["seeds"][1]["stages"]]:
        assert not picked.keys() & {"confusion", "details", "attachments"}
    assert with_iterations["stages"][2]["details"].keys() == {"start", "iterations"}
    assert found["environment"]["fewbytes"] == "0.1.0"
    assert found["splits"]["test"]["digest"] == "t" * 64


def test_best_epochs_are_the_workers_own_note(database: str) -> None:
    """Also those of the job that a stage was taken over from; of val, and of the whole step."""
    trained = {"method": "train", "best_k": 5}
    own = child(1, {"n": 0}, result=result(stage(1, "train")), steps=[trained])
    taken = child(
        2, {"n": 1}, result=result(stage(1, "train", shared_from="job_3")), steps=[trained], point=1
    )
    source = child(3, {}, result=result(stage(1, "train")))

    def note(job_id: str, value: float, **changes: Any) -> Metric:
        known = {"seed": 0, "step": 1, "epoch": -1, "split": "val", "name": reads.BEST_EPOCHS}
        return Metric(job_id=job_id, value=value, **(known | changes))

    with tenancy.transaction(DEFAULT) as session:
        stored(session, [own, taken, source])
        session.flush()
        session.add_all(
            [
                *(note("job_1", 0.71), note("job_3", 0.73), note("job_1", 0.1, split="wild")),
                *(note("job_1", 0.2, epoch=3), note("job_1", 0.3, step=2)),
                note("job_1", 0.4, name="best_accuracy"),
            ]
        )
    with tenancy.reading(DEFAULT) as session:
        found = reads.gather(session, [own, taken]).rows()
    assert [row["val_accuracy_best5"] for row in found] == [0.71, 0.73]


# ---- any jobs


def test_named_jobs_are_points_in_the_order_asked(database: str) -> None:
    """By name, or by id where the name is another's too."""
    children = [child(n, {}) for n in range(1, 5)]
    for each, name in zip(children, ("small", "twin", "twin", None), strict=True):
        each.job.name = name
    with tenancy.transaction(DEFAULT) as session:
        stored(session, children)
    with tenancy.reading(DEFAULT) as session:
        found = reads.named_jobs(session, ["job_4", "job_3", "job_2", "job_1"])
    names = [(each.point, each.params["job"]) for each in found]
    assert names == [(0, "job_4"), (1, "job_3"), (2, "job_2"), (3, "small")]


def test_a_job_of_another_tenant_is_none(database: str) -> None:
    with tenancy.transaction(DEFAULT) as session:
        stored(session, [child(1, {})])
    with db.transaction() as session:
        stranger = tenants.make(session, "stranger").id
    with tenancy.reading(stranger) as session, pytest.raises(Problem, match="NOT_FOUND"):
        reads.named_jobs(session, ["job_1"])


def test_an_inspection_is_no_job_to_compare(sqlite_database: str) -> None:
    inspection = child(1, {})
    inspection.job.kind = "inspect"
    with tenancy.transaction(DEFAULT) as session:
        stored(session, [inspection])
    with tenancy.reading(DEFAULT) as session, pytest.raises(Problem, match="NOT_FOUND"):
        reads.named_jobs(session, ["job_1"])


# ---- speed


def test_a_thousand_rows_take_few_statements(sqlite_database: str) -> None:
    """And little time, though the results have 40 MB: about 0.2 s on a quiet core."""
    whole = result(stage(1, "distill", confusion={"val": [[7] * 90] * 90}), PRUNE)
    steps = [{"method": "distill"}, {"method": "prune"}]
    children = [child(n, {"alpha": n // 10}, point=n // 10, seed=n % 10, steps=steps) for n in range(1000)]
    with tenancy.transaction(DEFAULT) as session:
        stored(session, children)
    with db.transaction() as session:
        session.execute(text("UPDATE jobs SET result = :result"), {"result": db.dumps(whole)})
    statements: list[str] = []
    event.listen(db.engine(), "before_cursor_execute", lambda *args: statements.append(args[2]))
    with tenancy.reading(DEFAULT) as session:
        found = reads.named_jobs(session, [each.job.id for each in children])
        started = time.perf_counter()
        made = reads.gather(session, found).rows()
        seconds = time.perf_counter() - started
    assert [row["size_bytes"] for row in made] == [1_000_000] * 1000
    assert 0 < len(statements) <= 8
    assert seconds < 3, "ten times what it takes"
    print(f"{seconds:.3f} s")  # noqa: T201
