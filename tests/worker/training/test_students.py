"""The network a step trains, from each of its four sources."""

import copy

import pytest
import torch
from torch import Tensor

from app.errors import Problem
from app.spec.networks import Student
from app.spec.steps.quantize import Quantize
from models import Network, as_network, encode, pack
from models.architectures import create_network
from models.channels import distinct_widths
from tests.worker.fakes import PREPROCESSING, MemoryData, make_run
from worker.run import Run, Teacher
from worker.steps import quantize
from worker.training.students import build_student

SIZED = {**PREPROCESSING, "resize": [64, 64], "mean": [0.3] * 3}


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    network = create_network("report/final", num_classes=3, seed=7).eval().requires_grad_(False)
    network.preprocessing = SIZED
    return Teacher("tch_1", network, SIZED, torch.tensor([0, 1, 2]))


def run_with(tmp_path, *teachers: Teacher, **changes) -> Run:
    return make_run(tmp_path, teachers=list(teachers), **changes)


def graph_of(network: Network) -> dict:
    return copy.deepcopy(network.graph)


def assert_trainable(network: Network) -> None:
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not network.encoded


def tensors_equal(a: Network, b: Network) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(left, right) for left, right in pairs)


def rectangle(height: int, width: int, num_classes: int = 3, channels: int = 3) -> Network:
    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(channels, num_classes)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(images.mean((2, 3)))

    return as_network(Flat().eval(), torch.rand(1, channels, height, width))


class TestGraph:
    def test_its_weights_are_new_and_the_seeds(self, tmp_path, teacher):
        student = Student(graph=graph_of(teacher.network))
        first = build_student(student, None, run_with(tmp_path, teacher))
        torch.manual_seed(77)
        second = build_student(student, None, run_with(tmp_path, teacher))
        other = build_student(student, None, run_with(tmp_path, teacher, seed=1))
        assert first.graph == teacher.network.graph
        assert tensors_equal(first, second)
        assert not tensors_equal(first, other)
        assert not tensors_equal(first, teacher.network)
        assert_trainable(first)

    def test_it_sees_what_the_first_teacher_sees_at_its_own_size(self, tmp_path, teacher):
        run = run_with(tmp_path, teacher)
        same = build_student(Student(graph=graph_of(teacher.network)), None, run)
        assert same.preprocessing == SIZED
        smaller = build_student(Student(graph=graph_of(rectangle(32, 32))), None, run)
        assert smaller.preprocessing == {**SIZED, "resize": [32, 32]}
        own = {**SIZED, "resize": [16, 48]}
        wide = build_student(Student(graph=graph_of(rectangle(16, 48)), preprocessing=own), None, run)
        assert wide.preprocessing == own

    def test_tensors_of_no_layer_are_warned_about(self, tmp_path, teacher):
        graph = graph_of(rectangle(64, 64))
        graph["parameters"]["token"] = [3]
        graph["nodes"][-1:-1] = [
            {"name": "token", "op": "tensor", "target": "token"},
            {"name": "sum", "op": "function", "target": "add", "args": [{"node": "head"}, {"node": "token"}]},
        ]
        graph["nodes"][-1]["args"] = [{"node": "sum"}]
        run = run_with(tmp_path, teacher)
        assert not build_student(Student(graph=graph), None, run).token.any()
        assert any("token of student.graph" in message for message in run.reporter.logs())

    @pytest.mark.parametrize(
        ("network", "says"),
        [
            (rectangle(64, 64, num_classes=5), "5 outputs"),
            (rectangle(64, 64, channels=1), "[1, 64, 64]"),
            (rectangle(16, 48), "16x48"),
        ],
    )
    def test_one_that_does_not_fit_the_data_is_refused(self, tmp_path, teacher, network, says):
        with pytest.raises(Problem, match="STUDENT_IMPOSSIBLE") as problem:
            build_student(Student(graph=graph_of(network)), None, run_with(tmp_path, teacher))
        assert says in problem.value.detail

    def test_one_that_is_no_graph_is_refused_with_the_place(self, tmp_path, teacher):
        graph = graph_of(teacher.network)
        graph["nodes"][1]["target"] = "nowhere"
        with pytest.raises(Problem, match="STUDENT_IMPOSSIBLE") as problem:
            build_student(Student(graph=graph), None, run_with(tmp_path, teacher))
        assert "nowhere" in problem.value.detail

    def test_preprocessing_of_another_size_is_refused(self, tmp_path, teacher):
        student = Student(graph=graph_of(teacher.network), preprocessing={**SIZED, "resize": [32, 32]})
        with pytest.raises(Problem, match="STUDENT_IMPOSSIBLE") as problem:
            build_student(student, None, run_with(tmp_path, teacher))
        assert "32x32" in problem.value.detail
        assert "64x64" in problem.value.detail


class TestTeacher:
    def test_its_graph_gets_new_weights_and_the_teacher_keeps_its_own(self, tmp_path, teacher):
        before = copy.deepcopy(teacher.network)
        student = build_student(Student(teacher=0), None, run_with(tmp_path, teacher))
        assert student.graph == teacher.network.graph
        assert not tensors_equal(student, teacher.network)
        assert tensors_equal(before, teacher.network)
        assert student.preprocessing == SIZED
        assert_trainable(student)

    def test_width_keeps_a_share_of_every_layers_channels(self, tmp_path, teacher):
        """Half of report/final with three classes, by hand: 27,432 in seven convolutions, 288 in their norms, 1,539 in
        the head."""
        pytest.importorskip("models.channels", reason="narrowing is not there yet")
        student = build_student(Student(teacher=0, width=0.5), None, run_with(tmp_path, teacher))
        assert sum(parameter.numel() for parameter in student.parameters()) == 27_432 + 288 + 1_539
        assert student.num_classes == 3
        assert student.preprocessing == SIZED
        assert_trainable(student)

    def test_a_position_beyond_the_teachers_is_refused(self, tmp_path, teacher):
        with pytest.raises(Problem, match="STUDENT_IMPOSSIBLE") as problem:
            build_student(Student(teacher=1), None, run_with(tmp_path, teacher))
        assert "the job has 1" in problem.value.detail


class TestPrevious:
    def test_it_is_a_copy_that_can_be_trained(self, tmp_path, teacher):
        model = copy.deepcopy(teacher.network)
        model.encoded = {"fc.weight": encode(torch.ones(2, 2), {"name": "fp16"})}
        student = build_student(Student(previous=True), model, run_with(tmp_path, teacher))
        assert tensors_equal(student, model)
        assert student is not model
        assert student.preprocessing == SIZED
        assert_trainable(student)
        assert model.encoded

    def test_where_there_is_none_it_is_refused(self, tmp_path, teacher):
        with pytest.raises(Problem, match="STUDENT_IMPOSSIBLE") as problem:
            build_student(Student(previous=True), None, run_with(tmp_path, teacher))
        assert "several teachers" in problem.value.detail


def test_a_built_in_one_is_the_architecture_with_the_seeds_weights(tmp_path, teacher):
    """As before there were other sources: to the bit."""
    run = run_with(tmp_path, teacher, seed=3, data=MemoryData(num_classes=5, train=10))
    student = build_student(Student(architecture="report/final", image_size=32), None, run)
    expected = create_network("report/final", num_classes=5, image_size=32, seed=3)
    assert tensors_equal(student, expected)
    assert student.preprocessing == {**SIZED, "resize": [32, 32]}


def test_width_narrows_a_built_in_one_too(tmp_path, teacher):
    """By hand as for the teacher's graph; the weights are the seed's, whatever torch's own state is."""
    student = Student(architecture="report/final", width=0.5)
    run = run_with(tmp_path, teacher)
    first = build_student(student, None, run)
    torch.manual_seed(77)
    second = build_student(student, None, run_with(tmp_path, teacher))
    other = build_student(student, None, run_with(tmp_path, teacher, seed=1))
    assert sum(parameter.numel() for parameter in first.parameters()) == 27_432 + 288 + 1_539
    assert tensors_equal(first, second)
    assert not tensors_equal(first, other)
    assert run.details["student"] == {
        "width": 0.5,
        "parameters": 29_259,
        "estimated_bytes": None,
        "budget": None,
    }


class TestBudget:
    """`described` is what a pipeline would put beside the network."""

    described = {"steps": [{"method": "distill"}], "digests": {"network": "0123456789abcdef" * 4}}

    def build(self, tmp_path, teacher, **fields) -> tuple[Network, Run]:
        run = run_with(tmp_path, teacher, packed_with=self.described)
        return build_student(
            Student.model_validate({"architecture": "report/final", **fields}), None, run
        ), run

    def stored(self, network: Network, run: Run, **fields) -> int:
        """Bytes of the file after a quantize step, with weights that no distribution makes larger."""
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for tensor in network.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.01)
        quantized = quantize.apply(network, Quantize(method="quantize", **fields), run)
        return len(
            pack(
                quantized,
                preprocessing=network.preprocessing,
                class_names=run.data.class_names,
                **self.described,
            )
        )

    @pytest.mark.parametrize(
        ("bits", "scheme"), [(4, {"bits": 4}), (8, {"bits": 8}), (16, {"scheme": "fp16"})]
    )
    def test_the_file_keeps_to_it_and_the_next_wider_one_would_not(self, tmp_path, teacher, bits, scheme):
        """Of every width there is, one after the other; fp16 of numbers between 0 and 1 deflates a little."""
        limit = 20_000
        network, run = self.build(tmp_path, teacher, budget={"bytes": limit, "bits": bits})
        widths = distinct_widths(teacher.network)
        wider = widths[widths.index(run.details["student"]["width"]) + 1]
        too_wide, _ = self.build(tmp_path, teacher, width=wider)
        assert self.stored(network, run, **scheme) <= run.details["student"]["estimated_bytes"] <= limit
        assert self.stored(too_wide, run, **scheme) > limit * (0.9 if bits == 16 else 0.98)

    def test_what_is_said_builds_the_same_network_again(self, tmp_path, teacher):
        network, run = self.build(tmp_path, teacher, budget={"bytes": 30_000})
        said = run.details["student"]
        again, _ = self.build(tmp_path, teacher, width=said["width"])
        assert tensors_equal(network, again)
        assert network.preprocessing == again.preprocessing
        assert said["parameters"] == sum(parameter.numel() for parameter in network.parameters())
        assert said["budget"] == {"bytes": 30_000, "bits": 8}
        assert_trainable(network)

    def test_more_than_enough_leaves_the_architecture_as_it_is(self, tmp_path, teacher):
        network, run = self.build(tmp_path, teacher, budget={"bytes": 10**7})
        assert tensors_equal(network, create_network("report/final", num_classes=3, seed=0))
        assert run.details["student"]["width"] == 1

    def test_the_smallest_file_is_named_and_can_be_had(self, tmp_path, teacher):
        with pytest.raises(Problem, match="BUDGET_TOO_SMALL") as problem:
            self.build(tmp_path, teacher, budget={"bytes": 1_000})
        assert problem.value.status == 422
        smallest = int(problem.value.detail.partition("can have ")[2].partition(":")[0].replace(",", ""))
        network, _ = self.build(tmp_path, teacher, budget={"bytes": smallest})
        convolutions = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
        assert {layer.out_channels for layer in convolutions} == {1}
        with pytest.raises(Problem, match="BUDGET_TOO_SMALL"):
            self.build(tmp_path, teacher, budget={"bytes": smallest - 1})
