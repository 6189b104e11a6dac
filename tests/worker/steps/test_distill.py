"""Distillation: the student that was asked for, taught by what was asked for."""

import pytest
import torch
from torch import nn

from app.errors import Problem
from app.spec.steps.distill import Distill
from models import Network, as_network
from tests.worker.fakes import PREPROCESSING, MemoryData, make_run, stop_at
from worker.distillation.soft_labels import read_soft_labels
from worker.run import Stopped, TableTeacher, Teacher
from worker.steps import distill
from worker.training import students


class Oracle(nn.Module):
    """Knows MemoryData's classes: the brightest colour, at any size."""

    def __init__(self, sharpness: float = 20.0) -> None:
        super().__init__()
        self.colours = nn.Conv2d(3, 3, 1, bias=False)
        self.sharpness = sharpness
        with torch.no_grad():
            self.colours.weight.copy_(torch.eye(3).view(3, 3, 1, 1))

    def forward(self, images):
        return self.colours(images).mean(dim=(2, 3)) * self.sharpness


def make_teacher(sharpness: float = 20.0, size: int = 48, order: tuple[int, ...] = (0, 1, 2)) -> Teacher:
    network = as_network(Oracle(sharpness).eval(), torch.rand(1, 3, size, size))
    return Teacher("tch_1", network, {**PREPROCESSING, "resize": [size, size]}, torch.tensor(order))


def make_spec(**changes) -> Distill:
    fields = {"student": "report/final", "epochs": 2, "batch_size": 8, "warmup_epochs": 0, **changes}
    return Distill(method="distill", **fields)


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_the_student_is_the_asked_architecture_with_the_datas_classes(tmp_path):
    """120,859 parameters with eleven classes (report D1): the head alone depends on the classes."""
    data = MemoryData(num_classes=11, train=22, val=11)
    student = distill.apply(
        None, make_spec(alpha=0, epochs=1), make_run(tmp_path, data=data, teachers=[make_teacher()])
    )
    assert sum(parameter.numel() for parameter in student.parameters()) == 120_859
    assert student.input_shape == (3, 64, 64)
    assert student.preprocessing == {**PREPROCESSING, "resize": [64, 64]}


def test_options_size_and_preprocessing_reach_the_student(tmp_path):
    teacher = make_teacher()
    student = distill.apply(
        None,
        make_spec(student={"architecture": "report/final", "image_size": 32}, epochs=1),
        make_run(tmp_path / "a", teachers=[teacher]),
    )
    assert student.input_shape == (3, 32, 32)
    assert student.preprocessing["resize"] == [32, 32]
    own = {"resize": 40, "crop": 32, "interpolation": "bicubic", "mean": [0.1] * 3, "std": [0.2] * 3}
    student = distill.apply(
        None,
        make_spec(student={"architecture": "report/final", "preprocessing": own}, epochs=1),
        make_run(tmp_path / "b", teachers=[teacher]),
    )
    assert student.input_shape == (3, 32, 32)
    assert student.preprocessing == own


def test_soft_labels_alone_teach(tmp_path):
    """alpha 1 on images without labels: only the teacher can know the classes; order says which output is
    which."""
    data = MemoryData(unlabeled=96, val=30)
    shuffled = Oracle()
    with torch.no_grad():
        shuffled.colours.weight.copy_(shuffled.colours.weight[[1, 2, 0]])
    network = as_network(shuffled.eval(), torch.rand(1, 3, 48, 48))
    teacher = Teacher("tch_1", network, {**PREPROCESSING, "resize": [48, 48]}, torch.tensor([2, 0, 1]))
    run = make_run(tmp_path, data=data, teachers=[teacher])
    student = {"architecture": "report/final", "image_size": 32}
    distill.apply(None, make_spec(student=student, alpha=1, transfer_splits=["unlabeled"], epochs=6), run)
    assert run.reporter.values("best_accuracy", "val")[0] > 0.8


def test_alpha_0_never_runs_a_teacher(tmp_path):
    """Two teachers that disagree leave the same student, and one that cannot run at all does no harm."""
    broken = Teacher(
        "tch_2", make_teacher().network, {**PREPROCESSING, "resize": [48, 48]}, torch.tensor([99])
    )
    first = distill.apply(None, make_spec(alpha=0), make_run(tmp_path / "a", teachers=[make_teacher()]))
    second = distill.apply(None, make_spec(alpha=0), make_run(tmp_path / "b", teachers=[broken]))
    assert same(first, second)


def test_alpha_1_never_reads_a_label(tmp_path):
    """The same pictures with and without labels, select last as val would choose by its own."""
    labelled, bare = MemoryData(train=24), MemoryData(train=24)
    bare._labels["train"] = torch.full((24,), -1)
    spec = make_spec(alpha=1, select="last")
    first = distill.apply(None, spec, make_run(tmp_path / "a", data=labelled, teachers=[make_teacher()]))
    second = distill.apply(None, spec, make_run(tmp_path / "b", data=bare, teachers=[make_teacher()]))
    assert same(first, second)


@pytest.mark.parametrize("combine", ["mean_probability", "mean_logit"])
def test_an_ensemble_with_all_weight_on_one_member_is_that_member(tmp_path, combine):
    other = make_teacher(sharpness=-3.0)
    alone = distill.apply(
        None, make_spec(combine=combine), make_run(tmp_path / "a", teachers=[make_teacher()])
    )
    single = distill.apply(
        None, make_spec(combine=combine, weights=[0.3]), make_run(tmp_path / "b", teachers=[make_teacher()])
    )
    together = distill.apply(
        None,
        make_spec(combine=combine, weights=[2, 0]),
        make_run(tmp_path / "c", teachers=[make_teacher(), other]),
    )
    both = distill.apply(
        None, make_spec(combine=combine), make_run(tmp_path / "d", teachers=[make_teacher(), other])
    )
    assert same(alone, single)
    assert same(alone, together)
    assert not same(alone, both)


def test_the_teacher_sees_the_students_view_at_its_own_size(tmp_path):
    """Seen through a spy: 48 pixels for the teacher, 64 for the student, the same mirrored and turned
    pictures."""
    seen = []
    teacher = make_teacher()
    logits = teacher.logits
    teacher.logits = lambda images: (seen.append(images.clone()), logits(images))[1]
    student_inputs = []
    create = students.create_network

    def create_spied(*arguments, **options):
        network = create(*arguments, **options)
        network.register_forward_pre_hook(lambda module, inputs: student_inputs.append(inputs[0].clone()))
        return network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(students, "create_network", create_spied)
        with pytest.raises(Stopped):
            distill.apply(
                None,
                make_spec(augmentation="strong"),
                make_run(tmp_path, teachers=[teacher], stop_requested=stop_at(2, "cancel")),
            )
    theirs, ours = seen[-1], student_inputs[-1]
    assert theirs.shape == (8, 3, 48, 48)
    assert ours.shape == (8, 3, 64, 64)
    shrunk = nn.functional.interpolate(ours, size=(12, 12), mode="area")
    difference = (nn.functional.interpolate(theirs, size=(12, 12), mode="area") - shrunk).abs().mean()
    others = (nn.functional.interpolate(theirs.roll(1, 0), size=(12, 12), mode="area") - shrunk).abs().mean()
    assert difference < others / 3


def test_teachers_are_left_as_they_were(tmp_path):
    teacher = make_teacher()
    distill.apply(None, make_spec(epochs=1), make_run(tmp_path, teachers=[teacher]))
    assert all(tensor.is_contiguous() for tensor in teacher.network.state_dict().values())
    assert all(parameter.grad is None for parameter in teacher.network.parameters())
    assert not teacher.network.training


@pytest.mark.parametrize(
    ("student", "code", "says"),
    [
        ("no/such", "STUDENT_IMPOSSIBLE", "no/such"),
        ({"architecture": "report/final", "image_size": 9}, "STUDENT_IMPOSSIBLE", "image_size 9"),
        ({"architecture": "report/final", "options": {"wings": 2}}, "STUDENT_IMPOSSIBLE", "wings"),
        ({"architecture": "report/final", "options": {"seed": 2}}, "STUDENT_IMPOSSIBLE", "seed"),
        (
            {"architecture": "report/final", "preprocessing": {"resize": [32, 64]}},
            "STUDENT_INPUT_NOT_SQUARE",
            "32x64",
        ),
    ],
)
def test_a_student_that_cannot_be_is_refused(tmp_path, student, code, says):
    with pytest.raises(Problem) as problem:
        distill.apply(None, make_spec(student=student), make_run(tmp_path, teachers=[make_teacher()]))
    assert (problem.value.status, problem.value.code) == (422, code)
    assert says in problem.value.detail


SMALL = {"architecture": "report/final", "image_size": 32}


def _taught_by_soft_labels(work_dir, **changes):
    """On images without labels; the run with what it noted, and the student."""
    data = MemoryData(unlabeled=48, val=30)
    run = make_run(work_dir, data=data, teachers=[make_teacher(), make_teacher(10.0)])
    spec = {"student": SMALL, "alpha": 1, "transfer_splits": ["unlabeled"], "epochs": 4, "select": "last"}
    return run, distill.apply(None, make_spec(**spec, **changes), run)


@pytest.fixture(scope="module")
def taught_plainly(tmp_path_factory):
    return _taught_by_soft_labels(tmp_path_factory.mktemp("plain"))[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "dkd"},
        {"loss": "dist"},
        {"standardize_logits": True},
        {"mixup": 1.0},
        {"combine": "random_per_batch"},
        {"hints": [{"student": "features_conv3", "teacher": "colours"}]},
    ],
)
def test_every_way_teaches_and_none_is_secretly_another(tmp_path, taught_plainly, changes):
    run, student = _taught_by_soft_labels(tmp_path, **changes)
    assert run.reporter.values("last_accuracy", "val")[0] > 0.6
    assert not same(student, taught_plainly)


def test_a_class_the_teacher_sees_differently_from_the_label(tmp_path):
    """DKD splits at the label of a labelled image, so that it reads labels even at alpha 1."""
    data, others = MemoryData(train=24), MemoryData(train=24)
    others._labels["train"] = others._labels["train"].roll(1)
    spec = make_spec(loss="dkd", alpha=1, select="last", epochs=1, student=SMALL)
    first = distill.apply(None, spec, make_run(tmp_path / "a", data=data, teachers=[make_teacher()]))
    second = distill.apply(None, spec, make_run(tmp_path / "b", data=others, teachers=[make_teacher()]))
    assert not same(first, second)


class TestHints:
    HINTS = [{"student": "features_conv3", "teacher": "colours", "weight": 3.0}]

    def test_alpha_0_with_hints_runs_only_the_teacher_that_is_watched(self, tmp_path):
        teachers = [make_teacher(), make_teacher()]
        watched, calls = [], []
        teachers[0].logits = lambda images: calls.append(images)
        logits = teachers[1].logits
        teachers[1].logits = lambda *arguments: (watched.append(1), logits(*arguments))[1]
        hints = [{**self.HINTS[0], "teacher_index": 1}]
        run = make_run(tmp_path, teachers=teachers)
        distill.apply(None, make_spec(alpha=0, hints=hints, student=SMALL, epochs=1), run)
        assert len(watched) == 3
        assert calls == []

    def test_the_students_feature_comes_to_tell_the_teachers(self, tmp_path):
        """Hints alone, no labels: the loss that is noted is theirs, and falls."""
        data = MemoryData(train=24)
        run = make_run(tmp_path, data=data, teachers=[make_teacher()])
        spec = make_spec(alpha=0, hints=self.HINTS, epochs=6, augmentation="none", learning_rate=1e-2)
        data._labels["train"] = torch.full((24,), -1)
        distill.apply(None, spec, run)
        losses = run.reporter.values("train_loss", "train")
        assert losses[-1] < losses[0] / 2

    @pytest.mark.parametrize("step", [2, 5])
    def test_a_preempted_run_goes_on_to_the_bit(self, tmp_path, step):
        """With its regressors: the student that comes out has none, and no trace of them."""
        spec = make_spec(hints=self.HINTS, student=SMALL)
        calm = distill.apply(None, spec, make_run(tmp_path / "a", teachers=[make_teacher()]))
        stopped = make_run(tmp_path / "b", teachers=[make_teacher()], stop_requested=stop_at(step, "preempt"))
        with pytest.raises(Stopped):
            distill.apply(None, spec, stopped)
        torch.manual_seed(99)
        resumed = distill.apply(None, spec, make_run(tmp_path / "b", teachers=[make_teacher()]))
        assert same(calm, resumed)
        assert isinstance(resumed, Network)
        alone = distill.apply(
            None, make_spec(student=SMALL), make_run(tmp_path / "c", teachers=[make_teacher()])
        )
        assert list(resumed.state_dict()) == list(alone.state_dict())

    def test_a_cancelled_run_leaves_the_student_alone(self, tmp_path):
        run = make_run(tmp_path, teachers=[make_teacher()], stop_requested=stop_at(5, "cancel"))
        with pytest.raises(Stopped) as stopped:
            distill.apply(None, make_spec(hints=self.HINTS, student=SMALL), run)
        assert isinstance(stopped.value.model, Network)


def _killed_at(call: int):
    """Ends the run at its `call`-th question without a checkpoint."""
    calls = iter(range(1, call))

    def stop_requested() -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    return stop_requested


class TestSoftLabelCache:
    def test_a_killed_run_goes_on_to_the_bit(self, tmp_path):
        """Its file of labels is then ahead of its checkpoint, which is an epoch's. 25 images in batches of 8 leave one
        over in every epoch, each time another: whole batches are asked again."""
        data = MemoryData(train=25, val=6)
        spec = make_spec(student=SMALL, epochs=4, soft_labels={"views": 2, "dtype": "float16"})
        calm = distill.apply(None, spec, make_run(tmp_path / "a", data=data, teachers=[make_teacher()]))
        for step in (3, 6, 5):
            run = make_run(
                tmp_path / "b", data=data, teachers=[make_teacher()], stop_requested=_killed_at(step)
            )
            with pytest.raises(KeyboardInterrupt):
                distill.apply(None, spec, run)
        resumed = distill.apply(None, spec, make_run(tmp_path / "b", data=data, teachers=[make_teacher()]))
        assert same(calm, resumed)

    @pytest.mark.parametrize("normalise", ["none", "temperature", "zscore"])
    def test_kept_labels_are_a_teacher(self, tmp_path, normalise):
        """Without augmentation a student learns the same from the file as from the teacher; z-scores say less."""
        data = MemoryData()
        fields = {"student": SMALL, "augmentation": "none", "epochs": 1, "alpha": 1, "select": "last"}
        run = make_run(tmp_path / "a", data=data, teachers=[make_teacher()])
        cache = {"normalise": normalise, "keep": True}
        first = distill.apply(None, make_spec(**fields, soft_labels=cache), run)
        assert run.attachments == {"soft-labels.pt": "soft_labels"}
        labels = read_soft_labels(tmp_path / "a" / "attachments" / "soft-labels.pt")
        assert labels.class_names == data.class_names
        assert labels.paths == data.paths("train")
        if normalise == "temperature":
            torch.testing.assert_close(labels.values_NC.sum(1), torch.ones(24))
        if normalise == "zscore":
            torch.testing.assert_close(labels.values_NC.mean(1), torch.zeros(24), atol=1e-6, rtol=0)
            torch.testing.assert_close(labels.values_NC.std(1), torch.ones(24))
        table = TableTeacher(
            "tch_2", labels.values_NC, labels.kind, labels.rows, torch.arange(3), labels.temperature
        )
        student = {"architecture": "report/final", "preprocessing": {**PREPROCESSING, "resize": [32, 32]}}
        again = distill.apply(
            None,
            make_spec(**{**fields, "student": student}),
            make_run(tmp_path / "b", data=data, teachers=[table]),
        )
        for ours, theirs in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_a_student_of_tables_alone_needs_a_preprocessing(tmp_path):
    table = TableTeacher("tch_2", torch.zeros(1, 3), "logits", {}, torch.arange(3))
    with pytest.raises(Problem) as problem:
        distill.apply(None, make_spec(), make_run(tmp_path, teachers=[table]))
    assert problem.value.code == "PREPROCESSING_MISSING"


def test_the_student_may_be_the_network_of_the_step_before(tmp_path):
    """It goes on from its weights, on a copy, and is no longer stored as it was."""
    spec = make_spec(student="previous", epochs=1, learning_rate=1e-6, select="last")
    assert spec.needs_model
    run = make_run(tmp_path, teachers=[make_teacher()])
    model = distill.apply(
        None, make_spec(student=SMALL, epochs=1), make_run(tmp_path / "a", teachers=run.teachers)
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = distill.apply(model, spec, run)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    torch.testing.assert_close(after.features.conv1.weight, model.features.conv1.weight, atol=1e-4, rtol=0)
    assert not same(after, model)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "dkd"},
        {"loss": "dist"},
        {"standardize_logits": True},
        {"soft_labels": {"normalise": "zscore"}},
    ],
)
def test_what_says_nothing_about_two_classes_is_refused(tmp_path, changes):
    with pytest.raises(Problem) as problem:
        distill.apply(
            None, make_spec(**changes), make_run(tmp_path, data=MemoryData(2), teachers=[make_teacher()])
        )
    assert (problem.value.status, problem.value.code) == (422, "CLASSES_UNSUITABLE")
