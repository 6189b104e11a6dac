"""The network that a step trains, as the spec asks for it: a built-in one, a graph, a teacher's graph with new
weights, or the network of the step before."""

import copy

from app.errors import Problem
from app.spec.networks import Preprocessing, Student, scaled_preprocessing
from models import GraphError, Network, build
from models.architectures import create_network
from models.channels import scaled
from models.initialise import reinitialise
from worker.run import Run
from worker.training.width import describe, widest_within


def build_student(student: Student, model: Network | None, run: Run) -> Network:
    """A network of its own, `preprocessing` set, that gives one output for each class of the run's data, in their order.

    `model`: the network of the step before, or of the one teacher in the first step. All but `previous` begin with
    weights that the run's seed decides; class tokens and the like, which belong to no layer, are a teacher's own, and 0
    in a graph. Where a width or a budget is asked for, `run.details["student"]` says what came of it. Raises Problem 422
    STUDENT_IMPOSSIBLE, BUDGET_TOO_SMALL, or STUDENT_INPUT_NOT_SQUARE for a built-in architecture.
    """
    if student.architecture is not None:
        network = _built_in(student, run)
    elif student.graph is not None:
        network = _of_graph(student, run)
    elif student.teacher is not None:
        network = _of_teacher(student, run)
    else:
        network = _previous(model)
    _check_shapes(network, run)
    network.preprocessing = _preprocessing(student, network, run).model_dump()
    if student.budget is not None:
        return widest_within(
            student.budget, network, run, lambda whole, width: _scaled(whole, width, run.seed)
        )
    if student.width != 1:
        network = _scaled(network, student.width, run.seed)
        describe(run, network, student.width)
    return network


def _built_in(student: Student, run: Run) -> Network:
    assert student.architecture is not None
    image_size = student.image_size
    if student.preprocessing is not None:
        height, width = student.preprocessing.input_size
        if height != width:
            raise Problem(
                422,
                "STUDENT_INPUT_NOT_SQUARE",
                f"The student's preprocessing gives {height}x{width} pixels: students take squares.",
            )
        image_size = height
    if taken := {"name", "num_classes", "image_size", "seed"} & student.options.keys():
        raise _impossible(f"student.options may not hold {sorted(taken)}: the job decides these.")
    try:
        return create_network(
            student.architecture,
            num_classes=len(run.data.class_names),
            image_size=image_size,
            seed=run.seed,
            **student.options,
        )
    except ValueError as error:
        raise _impossible(f"The student cannot be built: {error}") from error


def _of_graph(student: Student, run: Run) -> Network:
    assert student.graph is not None
    try:
        network = build(student.graph)
    except GraphError as error:
        raise _impossible(f"student.graph cannot be built: {error}") from error
    if loose := [*network.graph["parameters"], *network.graph["buffers"]]:
        run.log(
            f"{', '.join(loose[:5])} of student.graph belong to no layer: they begin at 0, as a graph holds no values",
            "warning",
        )
    reinitialise(network, run.seed)
    return network


def _of_teacher(student: Student, run: Run) -> Network:
    assert student.teacher is not None
    if student.teacher >= len(run.teachers):
        raise _impossible(
            f"student.teacher {student.teacher} is the position of a teacher, counted from 0, and the job has "
            f"{len(run.teachers)}: give a smaller one."
        )
    network = _copy(run.network_teacher(student.teacher).network).to("cpu")
    reinitialise(network, run.seed)
    return network


def _scaled(network: Network, width: float, seed: int) -> Network:
    """Layers of another width draw new weights by PyTorch's own defaults; the whole network keeps its."""
    if width == 1:
        return network
    try:
        narrowed = scaled(network, width)
    except ValueError as error:
        raise _impossible(f"student.width {width} cannot be: {error}") from error
    reinitialise(narrowed, seed)
    return narrowed


def _previous(model: Network | None) -> Network:
    if model is None:
        raise _impossible(
            "student 'previous' is the network of the step before, and with several teachers the first step has none: "
            "name an architecture, a graph or one of the teachers."
        )
    return _copy(model)


def _copy(network: Network) -> Network:
    """With every weight free to move: what a teacher or a packed file holds is frozen, or stored in few bits."""
    copied = copy.deepcopy(network)
    copied.encoded = {}
    return copied.requires_grad_(True)


def _check_shapes(network: Network, run: Run) -> None:
    num_classes = len(run.data.class_names)
    if network.num_classes != num_classes:
        raise _impossible(
            f"The student has {network.num_classes} outputs and the data {num_classes} classes: change the graph's last "
            "layer to as many."
        )
    if network.input_shape[0] != 3:
        raise _impossible(
            f"The student's input_shape is {list(network.input_shape)}, and images have 3 channels: give a graph that "
            "takes [3, height, width]."
        )


def _preprocessing(student: Student, network: Network, run: Run) -> Preprocessing:
    """What was given, else what a copied network has, else the first teacher's at this network's size."""
    size = (network.input_shape[1], network.input_shape[2])
    if student.preprocessing is not None:
        if student.preprocessing.input_size != size:
            given = student.preprocessing.input_size
            raise _impossible(
                f"student.preprocessing gives {given[0]}x{given[1]} pixels and the student takes {size[0]}x{size[1]}: "
                "change `crop` or `resize`."
            )
        return student.preprocessing
    if network.preprocessing is not None:
        return Preprocessing(**network.preprocessing)
    teachers = Preprocessing(**run.teachers_preprocessing())
    if teachers.input_size == size:
        return teachers
    if size[0] != size[1]:
        raise _impossible(
            f"The student takes {size[0]}x{size[1]} pixels and the first teacher {teachers.input_size[0]}x"
            f"{teachers.input_size[1]}: nothing says how a picture becomes that, so give student.preprocessing."
        )
    return scaled_preprocessing(teachers, size[0])


def _impossible(detail: str) -> Problem:
    return Problem(422, "STUDENT_IMPOSSIBLE", detail)
