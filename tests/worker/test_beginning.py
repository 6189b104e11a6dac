"""A job that begins with the steps of an earlier one ends with the bytes that it would have made alone."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app import jobs as verbs
from app.access import tenancy
from app.access.tenants import DEFAULT
from app.storage import removal
from app.storage.objects import storage
from app.tables import Artifact, Job, Metric
from tests.worker import jobs, tiny
from tests.worker.jobs import Ear
from tests.worker.test_receipts import finish, verify
from worker import earlier_steps
from worker.chain import Chain
from worker.measure import measure
from worker.measuring import Measuring
from worker.messages import Stops
from worker.pipeline import compress
from worker.steps import prune, train

EPOCHS = {"epochs": 2, "batch_size": 8}
TRAIN = {"method": "train", "student": jobs.STUDENT, **EPOCHS, "warmup_epochs": 0}
DISTILL = {**jobs.DISTILL, "soft_labels": {"keep": True}}
TUNED = {"method": "prune", "keep_rate": 0.7, "recover": "finetune", "training": EPOCHS}
REWOUND = {**TUNED, "recover": "weight_rewind", "weights_from_epoch": 1, "schedule_from_epoch": 1}
QUANTIZE = {"method": "quantize"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_photos(tmp_path_factory.mktemp("photos") / "photos.zip", train=8, val=6, test=6)


def _inspected(folder: Path, ident: str, seed: int) -> dict[str, Any]:
    spec = {
        "architecture": tiny.TEACHER,
        "preprocessing": tiny.PREPROCESSING,
        "class_names": list(tiny.CLASSES),
    }
    content = tiny.write_teacher(folder / f"{ident}.pt", seed=seed).read_bytes()
    return jobs.inspected_teacher(folder / ident, content, ident, **spec)


@dataclass
class Ran:
    """A job that was run in this process. `files`: what it left, by name."""

    order: dict[str, Any]
    last: dict[str, Any]
    ear: Ear

    @property
    def files(self) -> dict[str, bytes]:
        folder = Path(self.order["work_dir"])
        return {each["name"]: (folder / each["file"]).read_bytes() for each in self.last["artifacts"]}

    @property
    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = self.last["result"]
        return result


class Bench:
    """Runs jobs on one data set with two teachers."""

    def __init__(self, folder: Path, archive: Path) -> None:
        self.folder = folder
        self.data = jobs.dataset(folder / "data", archive)
        self.teachers = [_inspected(folder, "tch_1", 0), _inspected(folder, "tch_2", 5)]
        self._alone: dict[str, Ran] = {}

    def run(self, work_dir: Path, steps: list[Any], *, num_teachers: int = 1, **order: Any) -> Ran:
        made = jobs.order(work_dir, self.teachers[:num_teachers], self.data, steps) | order
        ear = Ear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Measuring, "_run", lambda _, order, enough: measure({**order, "latency": False}))
            last = compress(made, ear, Stops())
        assert last["type"] == "result"
        return Ran(made, last, ear)

    def alone(self, steps: list[Any], num_teachers: int = 1) -> Ran:
        """The same steps, undisturbed and on their own."""
        key = json.dumps([steps, num_teachers])
        if key not in self._alone:
            work_dir = self.folder / f"alone-{len(self._alone)}"
            self._alone[key] = self.run(work_dir, steps, num_teachers=num_teachers)
        return self._alone[key]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), archive)


def ended(ran: Ran) -> str:
    """The id of the job in the database, whose numbers are there and whose files are in the storage now."""
    ident: str = finish((ran.order, ran.last)).job.id
    noted = {(m["step"], m["epoch"], m["split"], m["name"]): m for m in ran.ear.of("metric")}
    with tenancy.transaction(DEFAULT) as session:
        for metric in noted.values():
            session.add(
                Metric(job_id=ident, **{key: value for key, value in metric.items() if key != "type"})
            )
    return ident


def begun(spec: dict[str, Any], after: str, num_steps: int) -> dict[str, Any] | None:
    """What a worker is told about the beginning of a job with this spec."""
    with tenancy.transaction(DEFAULT) as session:
        ident = verbs.submit(session, kind="compress", spec=spec)[0].id
        session.execute(update(Job).where(Job.id == ident).values(after_job_id=after, begun_steps=num_steps))
    with tenancy.reading(DEFAULT) as session:
        return earlier_steps.begun_by(session, session.scalars(select(Job).where(Job.id == ident)).one())


@pytest.fixture
def go_on(bench: Bench, tmp_path: Path, data_dir: Path, sqlite_database: str) -> Any:
    """Run steps that begin with those of the job `after`."""
    count = iter(range(100))

    def run(steps: list[Any], after: str, num_steps: int, *, num_teachers: int = 1, **order: Any) -> Ran:
        spec = jobs.order(tmp_path / "spec", bench.teachers[:num_teachers], bench.data, steps)["spec"]
        order = {"begun": begun(spec, after, num_steps), **order}
        return bench.run(tmp_path / f"job-{next(count)}", steps, num_teachers=num_teachers, **order)

    return run


def facts(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what differs from run to run, and without who did it."""
    cost = {name: value for name, value in record["cost"].items() if name != "seconds"}
    rest = {key: value for key, value in record.items() if key not in ("seconds", "shared_from", "details")}
    return rest | {"cost": cost}


def assert_same(ran: Ran, alone: Ran) -> None:
    """Every file to the bit, and every number that does not tell time."""
    kept = {name: content for name, content in ran.files.items() if "-epoch-" not in name}
    assert kept == alone.files
    ours, theirs = ran.result["stages"], alone.result["stages"]
    assert [facts(record) for record in ours[1:]] == [facts(record) for record in theirs[1:]]
    assert {m["name"] for m in ran.ear.of("metric") if m["epoch"] == -1} == {
        m["name"] for m in alone.ear.of("metric") if m["epoch"] == -1
    }


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods that are really applied, in order."""
    applied: list[str] = []
    for module in (train, prune):
        honest = module.apply

        def apply(model: Any, spec: Any, run: Any, honest: Any = honest) -> Any:
            applied.append(spec.method)
            return honest(model, spec, run)

        monkeypatch.setattr(module, "apply", apply)
    return applied


# ---- the same bytes


def test_pruning_after_a_shared_training(bench: Bench, go_on: Any, counted: list[str]) -> None:
    alone = bench.alone([TRAIN, TUNED, QUANTIZE])
    stage = ended(bench.alone([TRAIN]))
    counted.clear()
    ran = go_on([TRAIN, TUNED, QUANTIZE], stage, 1)
    assert counted == ["prune"]
    assert_same(ran, alone)
    assert [record.get("shared_from") for record in ran.result["stages"]] == [None, stage, None, None]
    assert [message["step"] for message in ran.ear.of("stage")] == [0, 1, 2, 3]
    assert not ran.result["warnings"]


def test_rewinding_to_an_epoch_of_a_shared_training(bench: Bench, go_on: Any, tmp_path: Path) -> None:
    """The stage's own job goes back nowhere: it keeps the weights because it was asked to, as files."""
    stage = bench.run(tmp_path / "stage", [TRAIN], snapshot_epochs={"1": [1]})
    assert "step-1-epoch-1.pt" in stage.files
    assert_same(go_on([TRAIN, REWOUND], ended(stage), 1), bench.alone([TRAIN, REWOUND]))


def test_rewinding_over_nested_stages(bench: Bench, go_on: Any, tmp_path: Path) -> None:
    """The second stage's job hands the first one's weights on, whose own folder and files may be gone by then."""
    steps = [TRAIN, QUANTIZE, REWOUND, QUANTIZE]
    first = ended(bench.run(tmp_path / "first", steps[:1], snapshot_epochs={"1": [1]}))
    second = go_on(steps[:2], first, 1, snapshot_epochs={"1": [1]})
    between = ended(second)
    with tenancy.transaction(DEFAULT) as session:
        removal.remove(session, first)
    third = go_on(steps[:3], between, 2)
    last = go_on(steps, ended(third), 3)
    assert_same(last, bench.alone(steps))
    assert [record.get("shared_from") for record in last.result["stages"][1:4]][:2] == [first, between]
    assert [(made["job_id"], made["steps"]) for made in last.result["taken_over"]["made_by"]][:2] == [
        (first, [1]),
        (between, [2]),
    ]


def test_a_job_that_takes_over_all_its_steps(bench: Bench, go_on: Any, counted: list[str]) -> None:
    """In the middle of the earlier job its last network has no numbers inside; as an answer it has."""
    longer = ended(bench.alone([TRAIN, TUNED, QUANTIZE]))
    exact = ended(bench.alone([TRAIN, TUNED]))
    alone = bench.alone([TRAIN, TUNED])
    counted.clear()
    for after in (longer, exact):
        ran = go_on([TRAIN, TUNED], after, 2)
        assert_same(ran, alone)
        assert ran.last["artifacts"][-1]["kind"] == "final"
        assert ran.result["own_cost"] == {"epochs": 0, "seconds": 0, "macs": 0}
    assert counted == []


def test_what_steps_offer_beside_their_network_is_taken_over(bench: Bench, go_on: Any) -> None:
    ran = go_on([DISTILL, QUANTIZE], ended(bench.alone([DISTILL])), 1)
    assert "step-1-soft-labels.pt" in ran.files
    assert_same(ran, bench.alone([DISTILL, QUANTIZE]))


def test_a_later_step_decides_how_teachers_are_compared_with(bench: Bench, go_on: Any) -> None:
    """Two teachers, and the stage's job knows nothing of how they will become one."""
    later = {**jobs.DISTILL, "student": {"previous": True}, "combine": "mean_logit", "weights": [1, 20]}
    stage = ended(bench.alone([TRAIN], num_teachers=2))
    ran = go_on([TRAIN, later], stage, 1, num_teachers=2)
    assert_same(ran, bench.alone([TRAIN, later], num_teachers=2))


# ---- what it says of it


def test_a_result_tells_what_was_trained_and_what_was_taken_over(bench: Bench, go_on: Any) -> None:
    alone = bench.alone([TRAIN])
    stage = ended(alone)
    result = go_on([TRAIN, TUNED], stage, 1).result
    cost = alone.result["stages"][1]["cost"]
    assert cost["macs"] > 0
    assert result["taken_over"] == {
        "steps": [1],
        "cost": cost,
        "made_by": [{"job_id": stage, "steps": [1], "environment": alone.result["environment"]}],
    }
    assert result["own_cost"] == result["stages"][2]["cost"]
    assert "taken_over" not in alone.result


def test_receipts_name_who_did_which_steps(bench: Bench, go_on: Any, archive: Path, tmp_path: Path) -> None:
    stage = ended(bench.alone([TRAIN]))
    ran = go_on([TRAIN, QUANTIZE], stage, 1)
    done = finish((ran.order, ran.last))
    for name in ("step-1-train.pt", "final.pt"):
        assert verify(done, name, tmp_path, "--photos", str(archive)) == 0
        receipt = done.artifacts[name].receipt
        assert receipt is not None
        assert receipt["taken_over"] == ran.result["taken_over"]["made_by"]
    with tenancy.reading(DEFAULT) as session:
        receipts = session.scalars(select(Artifact.receipt).where(Artifact.job_id == stage)).all()
    assert receipts
    assert all("taken_over" not in receipt for receipt in receipts if receipt)


def test_another_environment_is_told(bench: Bench, go_on: Any, tmp_path: Path) -> None:
    stage = bench.alone([TRAIN])
    elsewhere = {**stage.result["environment"], "cpu": "Another", "num_threads": 64}
    stage = Ran(stage.order, {**stage.last, "result": {**stage.result, "environment": elsewhere}}, stage.ear)
    (warning,) = go_on([TRAIN, QUANTIZE], ended(stage), 1).result["warnings"]
    assert "num_threads 64 there and 1 here, cpu Another there" in warning


# ---- when it is gone


def _objects(job_id: str, name: str) -> list[Path]:
    with tenancy.reading(DEFAULT) as session:
        named = select(Artifact.sha256).where(Artifact.job_id == job_id, Artifact.name == name)
        return [storage().path(sha256) for sha256 in session.scalars(named)]


def _deleted(job_id: str) -> str:
    with tenancy.transaction(DEFAULT) as session:
        removal.remove(session, job_id)
    return "the job was deleted"


def _emptied(job_id: str) -> str:
    for path in _objects(job_id, "final.pt"):
        path.unlink()
    return "its file final.pt is no longer stored"


def _damaged(job_id: str) -> str:
    for path in _objects(job_id, "final.pt"):
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    return "its file final.pt is damaged"


def _run_again(job_id: str) -> str:
    with tenancy.transaction(DEFAULT) as session:
        session.execute(update(Job).where(Job.id == job_id).values(state="queued"))
    return "the job is queued"


@pytest.mark.parametrize("harm", [_deleted, _emptied, _damaged, _run_again])
def test_what_is_gone_is_done_again(bench: Bench, go_on: Any, harm: Any, counted: list[str]) -> None:
    stage = ended(bench.alone([TRAIN]))
    alone = bench.alone([TRAIN, QUANTIZE])
    why = harm(stage)
    counted.clear()
    ran = go_on([TRAIN, QUANTIZE], stage, 1)
    assert counted == ["train"]
    assert_same(ran, alone)
    (warning,) = ran.result["warnings"]
    assert f"the first step of {stage}, but {why}" in warning
    assert "taken_over" not in ran.result


def test_weights_that_were_not_kept_are_trained_again(bench: Bench, go_on: Any) -> None:
    ran = go_on([TRAIN, REWOUND], ended(bench.alone([TRAIN])), 1)
    assert_same(ran, bench.alone([TRAIN, REWOUND]))
    assert "did not keep the weights of its step 1 after epoch 1" in ran.result["warnings"][0]


@pytest.mark.parametrize(
    ("steps", "other"),
    [([{**TRAIN, "epochs": 1}], {}), ([TRAIN], {"seed": 1}), ([TRAIN], {"num_threads": 2})],
)
def test_a_job_that_began_otherwise_is_not_gone_on_from(
    bench: Bench, sqlite_database: str, data_dir: Path, tmp_path: Path, steps: list[Any], other: Any
) -> None:
    stage = ended(bench.alone([TRAIN]))
    spec = jobs.order(tmp_path / "spec", bench.teachers[:1], bench.data, [*steps, QUANTIZE], **other)["spec"]
    found = begun(spec, stage, 1)
    assert found is not None
    assert "the job has other" in found["gone"]


def test_killed_while_it_takes_over_and_then_the_other_job_is_deleted(
    bench: Bench, go_on: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later of two steps was finished: the first is done again, with the weights that a later one goes back to."""
    steps = [TRAIN, QUANTIZE, REWOUND]
    stage = ended(bench.run(tmp_path / "stage", steps[:2], snapshot_epochs={"1": [1]}))
    honest, adopted = Chain.adopt, []

    def dies_at_the_second(chain: Chain, number: int, *rest: Any) -> Any:
        adopted.append(number)
        if len(adopted) == 2:
            raise KeyboardInterrupt
        return honest(chain, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Chain, "adopt", dies_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            go_on(steps, stage, 2)
    assert adopted == [2, 1]
    gone = {"job_id": stage, "steps": 2, "gone": _deleted(stage)}
    ran = bench.run(tmp_path / "job-0", steps, begun=gone)
    assert ran.files == bench.alone(steps).files
    assert [record.get("shared_from") for record in ran.result["stages"]] == [None, None, stage, None]
    again = bench.run(tmp_path / "job-0", steps, begun=gone)
    assert again.files == ran.files
