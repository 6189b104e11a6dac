"""What teachers say: live, drawn by lot, from a table, from a cache."""

import copy

import pytest
import torch
import torch.nn.functional as F

from app.errors import Problem
from app.spec.steps.distill import SoftLabelCache
from models import layer_table
from tests.worker.fakes import PREPROCESSING, MemoryData
from tests.worker.steps.test_distill import make_teacher
from worker.distillation.teachers import TeacherTargets
from worker.ensemble import score_ensemble
from worker.run import TableTeacher, Teacher
from worker.training.batches import TrainingImages
from worker.training.losses import standardized

CPU = torch.device("cpu")
TEMPERATURE = 4.0


def make_images(data: MemoryData | None = None, splits=("train",), batch_size: int = 8, **changes):
    return TrainingImages(data or MemoryData(), splits, batch_size=batch_size, seed=0, device=CPU, **changes)


def make_targets(teachers, images, **changes) -> TeacherTargets:
    fields = {"temperature": TEMPERATURE, "combine": "mean_probability", "weights": None, **changes}
    return TeacherTargets(teachers, images, **fields)


def counted(teacher: Teacher) -> list[int]:
    """From now on the list grows by the number of images whenever the teacher runs."""
    calls: list[int] = []
    logits = teacher.logits
    teacher.logits = lambda images: (calls.append(len(images)), logits(images))[1]
    return calls


def table_of(values: torch.Tensor, data: MemoryData, kind: str = "logits", split: str = "train", **changes):
    rows = {path: row for row, path in enumerate(data.paths(split))}
    return TableTeacher("tch_9", values, kind, rows, torch.arange(3), **changes)


class TestSeveral:
    def test_one_is_drawn_for_each_batch_by_its_weight(self):
        """Of 400 batches about 300; a binomial's four standard deviations are 35. The same ones on every call."""
        targets = make_targets(
            [make_teacher(), make_teacher(3.0)], make_images(), combine="random_per_batch", weights=[1, 3]
        )
        drawn = [targets.drawn(step) for step in range(400)]
        assert abs(sum(drawn) - 300) < 35
        assert drawn == [targets.drawn(step) for step in range(400)]

    def test_only_the_drawn_one_runs_and_its_answer_is_the_target(self):
        teachers = [make_teacher(), make_teacher(3.0)]
        images = make_images()
        targets = make_targets(teachers, images, combine="random_per_batch")
        calls = [counted(teacher) for teacher in teachers]
        steps = list(range(6))
        for step in steps:
            batch = images.batch(step, "light")
            drawn = targets.drawn(step)
            alone = make_targets([teachers[drawn]], images)
            before = [len(each) for each in calls]
            target = targets(batch)
            ran = [len(each) - old for each, old in zip(calls, before, strict=True)]
            assert ran == [int(position == drawn) for position in range(2)]
            assert torch.equal(target, alone(batch))
        assert {targets.drawn(step) for step in steps} == {0, 1}

    @pytest.mark.parametrize("combine", ["mean_probability", "mean_logit", "random_per_batch"])
    def test_the_target_is_what_the_ensemble_is_measured_by(self, combine):
        """At temperature 1 its accuracy and cross-entropy are the pipeline's own; of a random teacher, in expectation."""
        data = MemoryData(train=24)
        generator = torch.Generator().manual_seed(3)
        members = [torch.randn(24, 3, generator=generator) * 3 for _ in range(3)]
        tables = [table_of(values, data) for values in members]
        weights = [1.0, 2.0, 0.5]
        score = score_ensemble(members, data.labels("train"), combine, weights)
        images = make_images(data, batch_size=24)
        batch = next(images.plain())
        if combine == "random_per_batch":
            draws = [make_targets([table], images, temperature=1.0)(batch) for table in tables]
            target = sum(w / sum(weights) * p for w, p in zip(weights, draws, strict=True))
        else:
            target = make_targets(tables, images, temperature=1.0, combine=combine, weights=weights)(batch)
        assert (target.argmax(1) == data.labels("train")).double().mean().item() == score["accuracy"]
        assert F.nll_loss(target.log(), data.labels("train")).item() == pytest.approx(score["loss"], rel=1e-5)

    def test_standardised_members_are_standardised_one_by_one(self):
        images = make_images()
        batch = images.batch(0, "none")
        teachers = [make_teacher(), make_teacher(-3.0)]
        target = make_targets(teachers, images, standardize=True)(batch)
        members = [teacher.logits(images.pixels(batch, teacher.preprocessing)) for teacher in teachers]
        expected = sum(F.softmax(standardized(each) / TEMPERATURE, 1) / 2 for each in members)
        torch.testing.assert_close(target, expected)

    def test_the_macs_are_those_that_run(self):
        teachers = [make_teacher(), make_teacher(3.0, size=24)]
        macs = [layer_table(teacher.network)["macs"] for teacher in teachers]
        assert macs[0] == 4 * macs[1]
        images = make_images()
        assert make_targets(teachers, images).macs_in(10) == sum(macs)
        half = make_targets(teachers, images, combine="random_per_batch")
        assert half.macs_in(10) == round(sum(macs) / 2)
        assert make_targets(teachers, images, speaking=False).macs_in(10) == 0


class TestTable:
    def test_its_rows_are_the_targets_in_the_datas_order(self):
        """Its columns are another order of the classes."""
        data = MemoryData(train=6)
        values = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
        table = table_of(values, data)
        table.order = torch.tensor([2, 0, 1])
        images = make_images(data, batch_size=6)
        batch = images.batch(0, "light")
        target = make_targets([table], images)(batch)
        assert torch.equal(target, F.softmax(values[batch.indices_N][:, [2, 0, 1]] / TEMPERATURE, 1))

    def test_probabilities_are_softened_from_their_own_temperature(self):
        """Taken at T = 2 and used at T = 4 they are what the logits would have been."""
        data = MemoryData(train=6)
        logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
        images = make_images(data, batch_size=6)
        batch = images.batch(0, "none")
        table = table_of(F.softmax(logits / 2, 1), data, "probabilities", temperature=2.0)
        torch.testing.assert_close(
            make_targets([table], images)(batch), make_targets([table_of(logits, data)], images)(batch)
        )

    def test_a_probability_of_0_stays_0(self):
        data = MemoryData(train=2)
        table = table_of(torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]]), data, "probabilities")
        images = make_images(data, batch_size=2)
        batch = next(images.plain())
        target = make_targets([table], images, temperature=1.0)(batch)
        torch.testing.assert_close(target, table.values_RC)

    def test_it_teaches_beside_a_network(self):
        data = MemoryData()
        images = make_images(data)
        teacher = make_teacher()
        values = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
        batch = images.batch(0, "none")
        both = make_targets([teacher, table_of(values, data)], images, weights=[3, 1])(batch)
        alone = make_targets([teacher], images)(batch)
        expected = 0.75 * alone + 0.25 * F.softmax(values[batch.indices_N] / TEMPERATURE, 1)
        torch.testing.assert_close(both, expected)

    def test_of_blended_images_it_blends_the_labels(self):
        """As mixup does with labels; a part of the batch gets its rows of it."""
        data = MemoryData(train=8)
        values = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
        images = make_images(data, batch_size=8, mixup=1.0)
        batch = images.batch(0, "none")
        targets = make_targets([table_of(values, data)], images)
        p = F.softmax(values / TEMPERATURE, 1)[batch.indices_N]
        share = batch.mixup.share
        expected = share * p + (1 - share) * p[batch.mixup.partner_N]
        torch.testing.assert_close(targets(batch), expected)
        torch.testing.assert_close(targets(batch.part(slice(2, 5))), expected[2:5])

    def test_images_without_a_row_are_named(self):
        data = MemoryData(train=6, unlabeled=4)
        table = table_of(torch.zeros(6, 3), data)
        with pytest.raises(Problem) as problem:
            make_targets([table], make_images(data, ["train", "unlabeled"]))
        assert (problem.value.status, problem.value.code) == (422, "SOFT_LABELS_MISSING")
        assert "4 of 10 images of train and unlabeled" in problem.value.detail
        assert "'unlabeled/000.png'" in problem.value.detail


def cached(teachers, images, folder, *, views=2, normalise="none", dtype="float32", **changes):
    cache = SoftLabelCache(views=views, normalise=normalise, dtype=dtype)
    return make_targets(teachers, images, cache=cache, folder=folder, **changes)


class TestCache:
    def test_each_view_of_each_image_is_asked_once(self, tmp_path):
        """24 images, 2 views, 5 epochs: 48 instead of 120."""
        images = make_images(views=2)
        teacher = make_teacher()
        targets, calls = cached([teacher], images, tmp_path), counted(teacher)
        for step in range(5 * images.steps_per_epoch):
            targets(images.batch(step, "strong"))
        assert sum(calls) == 2 * 24
        # 2 of 5 epochs.
        assert targets.macs_in(5) == round(layer_table(teacher.network)["macs"] * 2 / 5)

    @pytest.mark.parametrize("normalise", ["none", "temperature"])
    @pytest.mark.parametrize("combine", ["mean_probability", "mean_logit", "random_per_batch"])
    def test_it_says_what_the_live_teacher_says_on_the_same_view(self, tmp_path, normalise, combine):
        """In every epoch, on the first hearing and from the file."""
        images = make_images(views=2)
        teachers = [make_teacher(2.0), make_teacher(-1.0)]
        remembered = cached(teachers, images, tmp_path, normalise=normalise, combine=combine)
        live = make_targets(teachers, images, combine=combine)
        for step in range(4 * images.steps_per_epoch):
            batch = images.batch(step, "light")
            torch.testing.assert_close(remembered(batch), live(batch))
            torch.testing.assert_close(
                remembered.log_probabilities(remembered.listen(batch)),
                live.log_probabilities(live.listen(batch)),
            )

    def test_zscore_keeps_the_pattern_alone(self, tmp_path):
        """A teacher whose logits are ten times as large says the same."""
        images = make_images(views=1)
        batch = images.batch(0, "light")
        targets = [
            cached([make_teacher(sharpness)], images, tmp_path / str(sharpness), normalise="zscore")(batch)
            for sharpness in (2.0, 20.0)
        ]
        torch.testing.assert_close(*targets)
        heard = cached([make_teacher()], images, tmp_path / "a", normalise="zscore").listen(batch)
        (members_NC,) = heard.members_NC
        torch.testing.assert_close(members_NC.mean(1), torch.zeros(8), atol=1e-6, rtol=0)
        torch.testing.assert_close(members_NC.std(1), torch.ones(8))

    def test_half_precision_keeps_three_decimals_in_half_the_bytes(self, tmp_path):
        images = make_images(views=1)
        batch = images.batch(0, "light")
        teacher = make_teacher()
        half = cached([teacher], images, tmp_path / "half", dtype="float16")
        whole = cached([teacher], images, tmp_path / "whole")
        first, again = half(batch), half(batch)
        assert torch.equal(first, again)  # the first hearing went through half precision as well
        torch.testing.assert_close(first, whole(batch), atol=2e-3, rtol=0)
        (small,), (large,) = ((tmp_path / name).iterdir() for name in ("half", "whole"))
        assert 2 * small.stat().st_size == large.stat().st_size

    def test_a_new_attempt_goes_on_with_the_file(self, tmp_path):
        """The second never asks: not for what the first has heard, and to the bit what it heard."""
        images = make_images(views=1)
        steps = range(images.steps_per_epoch)
        first = cached([make_teacher()], images, tmp_path)
        heard = [first(images.batch(step, "light")) for step in steps]
        teacher = make_teacher()
        again, calls = cached([teacher], images, tmp_path), counted(teacher)
        for step, target in zip(steps, heard, strict=True):
            assert torch.equal(again(images.batch(step, "light")), target)
        assert calls == []

    def test_a_row_that_was_torn_is_asked_again(self, tmp_path):
        """A machine that goes down may leave half a row: its checksum is wrong, the others stay."""
        images = make_images(views=1)
        batch = images.batch(0, "light")
        before = cached([make_teacher()], images, tmp_path)(batch)
        (path,) = tmp_path.iterdir()
        content = bytearray(path.read_bytes())
        image = int(batch.indices_N[3])
        content[image * 4 * 4 : image * 4 * 4 + 4] = bytes(4)  # 3 classes and the checksum, 4 bytes each
        path.write_bytes(content)
        teacher = make_teacher()
        again, calls = cached([teacher], images, tmp_path), counted(teacher)
        assert torch.equal(again(batch), before)
        assert calls == [8]

    @pytest.mark.parametrize("change", ["seed", "temperature", "teacher", "data", "views"])
    def test_another_training_never_meets_this_ones_file(self, tmp_path, change):
        images = make_images(views=1)
        cached([make_teacher()], images, tmp_path)(images.batch(0, "light"))
        teacher = make_teacher()
        fields = {}
        if change == "seed":
            fields["seed"] = 1
        elif change == "temperature":
            fields["temperature"] = 2.0
        elif change == "teacher":
            teacher = copy.copy(teacher)
            teacher.id = "tch_2"
        elif change == "data":
            images = make_images(MemoryData(seed=5), views=1)
        else:
            fields["views"] = 3
        other, calls = cached([teacher], images, tmp_path, **{"views": 1, **fields}), counted(teacher)
        other(images.batch(0, "light"))
        assert calls == [8]


class TestNumberedViews:
    def test_a_view_depends_on_image_and_number_alone(self):
        """Epochs 0 and 2 show the same two views of two, in another order of images; epoch 1 shows another."""
        images = make_images(views=2)
        preprocessing = {**PREPROCESSING}

        def by_image(epoch: int) -> dict[int, torch.Tensor]:
            seen = {}
            for step in range(images.steps_per_epoch):
                batch = images.batch(epoch * images.steps_per_epoch + step, "strong")
                assert batch.view_number == epoch % 2
                pixels = images.pixels(batch, preprocessing)
                seen |= dict(zip(batch.indices_N.tolist(), pixels, strict=True))
            return seen

        first, second, third = by_image(0), by_image(1), by_image(2)
        assert list(first) != list(third)
        for image, pixels in first.items():
            torch.testing.assert_close(pixels, third[image])
            assert not torch.equal(pixels, second[image])

    def test_a_part_keeps_its_rows_of_the_view(self):
        images = make_images(views=2)
        batch = images.batch(0, "strong")
        part = batch.part(slice(3, 6))
        assert part.view_number == batch.view_number
        assert part.step == batch.step
        assert torch.equal(part.view.crop_N4, batch.view.crop_N4[3:6])


def test_plain_labels_of_an_ensemble_give_its_target(tmp_path):
    """The temperature times the log-probabilities: softened again they are the target; of one teacher, its own logits."""
    images = make_images()
    teachers = [make_teacher(2.0), make_teacher(-1.0)]
    plain = make_targets(teachers, images, weights=[1, 3]).plain_logits()
    pixels = [images.pixels(batch, teachers[0].preprocessing) for batch in images.plain()]
    members = [torch.cat([teacher.logits(each) for each in pixels]) for teacher in teachers]
    p, q = (F.softmax(each / TEMPERATURE, 1) for each in members)
    torch.testing.assert_close(F.softmax(plain / TEMPERATURE, 1), 0.25 * p + 0.75 * q)
    assert torch.equal(make_targets(teachers[:1], images).plain_logits(), members[0])
