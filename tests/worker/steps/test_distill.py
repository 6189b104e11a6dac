"""Distillation: the student that was asked for, taught by what was asked for."""

import pytest
import torch
from torch import nn

from app.errors import Problem
from app.spec.steps.distill import Distill
from models import as_network
from tests.worker.fakes import PREPROCESSING, MemoryData, make_run, stop_at
from worker.run import Stopped, Teacher
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
