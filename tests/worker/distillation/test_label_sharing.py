"""What teachers said is read from earlier trainings where this one would compute the same bits, and nowhere else."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from models import Network
from tests.worker.distillation.test_teachers import cached, counted, make_images
from tests.worker.fakes import MemoryData, make_run, stop_at
from tests.worker.steps.test_distill import SMALL, _killed_at, make_spec, make_teacher, same
from worker.distillation.label_sharing import LabelSharing
from worker.run import Stopped, Teacher
from worker.shared_files import SharedFiles
from worker.steps import distill

DATA = MemoryData(train=25, val=6)
"""In batches of 8 one image is left over in every epoch, each time another."""


@dataclass
class Taught:
    network: Network
    calls: list[int]
    """How many images its first teacher was asked about, a time."""
    counts: list[dict[str, Any]]


def teach(
    work_dir: Path,
    shared: Path | None,
    *,
    teachers: list[Teacher] | None = None,
    data: MemoryData = DATA,
    seed: int = 0,
    run: dict[str, Any] | None = None,
    **changes: Any,
) -> Taught:
    teachers = teachers or [make_teacher()]
    calls = counted(teachers[0])
    fields = {"student": SMALL, "epochs": 4, "soft_labels": {"views": 2}, **changes}
    files = None if shared is None else SharedFiles(shared)
    made = make_run(work_dir, data=data, teachers=teachers, seed=seed, shared=files, **(run or {}))
    network = distill.apply(None, make_spec(**fields), made)
    return Taught(network, calls, made.details["soft_labels"])


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return tmp_path / "shared"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one training left."""
    folder = tmp_path_factory.mktemp("first")
    teach(folder / "work", folder / "shared")
    return folder / "shared"


@pytest.fixture
def left(first: Path, shared: Path) -> Path:
    return shutil.copytree(first, shared)


def test_the_second_training_asks_nothing_and_ends_with_the_same_bits(shared: Path, tmp_path: Path) -> None:
    alone = teach(tmp_path / "alone", None)
    first = teach(tmp_path / "first", shared)
    second = teach(tmp_path / "second", shared)
    assert same(alone.network, first.network)
    assert same(alone.network, second.network)
    assert sum(alone.calls) == sum(first.calls) >= 2 * 25
    assert second.calls == []
    assert first.counts == alone.counts == [{"teacher": "tch_1", "num_computed": 50, "num_read": 0}]
    assert second.counts == [{"teacher": "tch_1", "num_computed": 0, "num_read": 50}]


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 1.0},
        {"temperature": 2.0},
        {"loss": "dkd"},
        {"standardize_logits": True},
        {"learning_rate": 1e-3},
        {"select": "last"},
        {"student": {"architecture": "report/final", "image_size": 64}},
        {"soft_labels": {"views": 2, "keep": True}},
    ],
)
def test_what_is_made_of_the_answers_does_not_matter(
    left: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    other = teach(tmp_path / "other", left, **changes)
    assert other.counts[0]["num_computed"] == 0
    assert same(other.network, teach(tmp_path / "alone", None, **changes).network)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"batch_size": 6},
        {"augmentation": "strong"},
        {"train_fraction": 0.8},
        {"transfer_splits": ["train", "val"]},
        {"soft_labels": {"views": 3}},
        {"soft_labels": {"views": 2, "dtype": "float16"}},
        {"soft_labels": {"views": 2, "normalise": "zscore"}},
        {"data": MemoryData(train=25, val=6, seed=5)},
        {"teachers": [make_teacher(19.0)]},
        {"teachers": [make_teacher(size=40)]},
        {"teachers": [make_teacher(order=(1, 0, 2))]},
    ],
    ids=lambda changes: "-".join(map(str, changes)),
)
def test_what_decides_an_answer_is_never_mixed(left: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    other = teach(tmp_path / "other", left, **changes)
    assert other.counts[0]["num_read"] == 0
    assert other.counts[0]["num_computed"] > 0


def test_probabilities_are_those_of_one_temperature(shared: Path, tmp_path: Path) -> None:
    cache = {"soft_labels": {"views": 2, "normalise": "temperature"}}
    teach(tmp_path / "first", shared, **cache)
    assert teach(tmp_path / "other", shared, temperature=2.0, **cache).counts[0]["num_read"] == 0
    assert teach(tmp_path / "again", shared, **cache).counts[0]["num_read"] == 50


def test_other_arithmetic_is_another_key(left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert teach(tmp_path / "other", left).counts[0]["num_read"] == 0


def test_a_shorter_training_leaves_a_part(shared: Path, tmp_path: Path) -> None:
    """Two epochs leave an image of each view out; who trains longer asks about those alone, in the batches that it would
    have asked in, and leaves all."""
    alone = teach(tmp_path / "alone", None)
    short = teach(tmp_path / "short", shared, epochs=2)
    left = short.counts[0]["num_computed"]
    assert 0 < left < 50
    long = teach(tmp_path / "long", shared)
    assert long.counts == [{"teacher": "tch_1", "num_computed": 50 - left, "num_read": left}]
    assert 0 < sum(long.calls) < sum(alone.calls)
    assert same(long.network, alone.network)
    assert teach(tmp_path / "third", shared).calls == []


def test_two_at_once_do_not_harm_each_other(shared: Path, tmp_path: Path) -> None:
    """One begins, another begins and ends, the first goes on."""
    alone = teach(tmp_path / "alone", None)
    inner: list[Taught] = []
    questions = iter(range(1000))

    def another_job() -> None:
        if next(questions) == 5:
            inner.append(teach(tmp_path / "inner", shared))

    outer = teach(tmp_path / "outer", shared, run={"stop_requested": another_job})
    assert same(outer.network, alone.network)
    assert same(inner[0].network, alone.network)
    assert outer.counts == inner[0].counts
    assert teach(tmp_path / "third", shared).calls == []


def test_a_training_that_was_stopped_leaves_nothing_and_a_later_attempt_counts_right(
    shared: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        teach(tmp_path / "killed", shared, run={"stop_requested": _killed_at(6)})
    with pytest.raises(Stopped):
        teach(tmp_path / "cancelled", shared, run={"stop_requested": stop_at(6, "cancel")})
    assert not shared.exists()
    teach(tmp_path / "short", shared, epochs=2)
    left = SharedFiles(shared)
    assert [path.suffix for path in shared.iterdir()] == [".labels"]
    with pytest.raises(KeyboardInterrupt):
        teach(tmp_path / "later", shared, run={"stop_requested": _killed_at(9)})
    for path in shared.iterdir():
        left.keep(path.name, b"")  # what was taken was taken
    again = teach(tmp_path / "later", shared)
    assert again.counts[0]["num_computed"] + again.counts[0]["num_read"] == 50
    assert again.counts[0]["num_read"] == 48


def test_a_damaged_file_is_computed_again(shared: Path, tmp_path: Path) -> None:
    first = teach(tmp_path / "first", shared)
    (path,) = shared.iterdir()
    whole = path.read_bytes()
    # Two words change places: the row's own checksum does not see it.
    path.write_bytes(whole[:32] + whole[36:40] + whole[32:36] + whole[40:])
    second = teach(tmp_path / "second", shared)
    assert second.counts == first.counts
    assert same(second.network, first.network)
    assert path.read_bytes() == whole


def test_whose_turn_it_is_belongs_to_the_key(shared: Path, tmp_path: Path) -> None:
    """A teacher that is drawn by lot answers for other batches when the lots are other ones."""
    drawn = {"combine": "random_per_batch"}

    def pair() -> list[Teacher]:
        return [make_teacher(), make_teacher(10.0)]

    alone = teach(tmp_path / "alone", None, teachers=pair(), **drawn)
    first = teach(tmp_path / "first", shared, teachers=pair(), **drawn)
    second = teach(tmp_path / "second", shared, teachers=pair(), **drawn)
    assert second.calls == []
    assert same(first.network, alone.network)
    assert same(second.network, alone.network)
    other = teach(tmp_path / "other", shared, teachers=pair(), weights=[1, 3], **drawn)
    assert [count["num_read"] for count in other.counts] == [0, 0]
    # Both are asked about every batch here, so each may be read wherever it was asked alone.
    together = teach(tmp_path / "both", shared, teachers=pair())
    assert [count["num_read"] for count in together.counts] == [0, 0]
    assert teach(tmp_path / "one", shared).calls == []


def test_answers_about_parts_of_batches_are_not_left(shared: Path, tmp_path: Path) -> None:
    """Memory was short: the last bits may be others."""
    images = make_images(views=1)
    sharing = LabelSharing(SharedFiles(shared), "light")
    targets = cached([make_teacher()], images, tmp_path, views=1, sharing=sharing)
    for step in range(images.steps_per_epoch):
        batch = images.batch(step, "light")
        for rows in (slice(0, 4), slice(4, 8)):
            targets(batch.part(rows))
    assert targets.leave_for_others()
    assert not shared.exists()
