"""A teacher: its tensors, its graph, its table of soft labels, checked before anybody may use it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import models
from app.errors import Problem
from app.planning import architectures
from app.spec.networks import Preprocessing
from app.spec.resources import TeacherSpec
from models import GraphError, Network
from models.architectures import (
    UnknownArchitectureError,
    create_network,
    create_skeleton,
    find,
)
from models.torchvision_zoo import AUXILIARY_HEADS
from worker.catalogue import names_digest
from worker.checkpoints import Checkpoint, read_admitted
from worker.distillation.soft_labels import SoftLabels, read_document, read_table, write_soft_labels
from worker.gate import Admitted
from worker.stages import write_whole

_MAX_SHOWN = 10

# The course's notebooks call the two halves of its student so or so.
_SPELLINGS = (
    {"convolution.": "cnn.", "linear.": "fc."},
    {"cnn.": "convolution.", "fc.": "linear."},
)

Shapes = dict[str, list[int]]


def inspect(order: dict[str, Any], admitted: Admitted | None, canonical: Path) -> dict[str, Any]:
    """Make the artifact of an admitted checkpoint, or of a table of soft labels, and a report on it.

    `canonical` is the file that the gate wrote; without `admitted` the upload is a table in CSV. Raises Problem 422.
    """
    torch.set_num_threads(order["num_threads"])
    spec = TeacherSpec.model_validate(order["spec"])
    file, work_dir = Path(order["file"]), Path(order["work_dir"])
    if admitted is None:
        return _soft_labels(spec, read_table(file), file, work_dir)
    if admitted.kind == "soft_labels":
        labels = read_document(admitted.document | load_file(canonical))
        return _soft_labels(spec, labels, file, work_dir)
    checkpoint = read_admitted(admitted, canonical)
    _check_finite(checkpoint.tensors)
    _check_variances(checkpoint.tensors)
    preprocessing = _preprocessing(spec, checkpoint)
    network = _network(spec, checkpoint, preprocessing)
    class_names = spec.class_names or checkpoint.class_names
    if class_names is not None and len(class_names) != network.num_classes:
        raise Problem(
            422,
            "SHAPE_MISMATCH",
            f"The network has {network.num_classes} outputs, but {len(class_names)} class_names were given: "
            "name each output once, in order.",
        )
    _check_forward(network)
    packed = models.pack(network, preprocessing=preprocessing, class_names=class_names)
    write_whole(work_dir / "teacher.pt", packed)
    table = models.layer_table(network)
    report = {
        "architecture": spec.architecture.architecture
        if spec.architecture and checkpoint.graph is None
        else None,
        "parameters": table["parameters"],
        "macs": table["macs"],
        "layers": table["rows"],
        "input_shape": list(network.input_shape),
        "num_classes": network.num_classes,
        "class_names": class_names,
        "preprocessing": preprocessing,
        "size_bytes": file.stat().st_size,
        "warnings": checkpoint.warnings,
    }
    files = {"artifact": "teacher.pt", "tensors": canonical.name}
    return {"type": "result", "result": {"report": report}, "files": files}


def _soft_labels(spec: TeacherSpec, labels: SoftLabels, file: Path, work_dir: Path) -> dict[str, Any]:
    """A teacher that is only a table: what it said about each picture."""
    if spec.class_names is not None:
        if len(spec.class_names) != len(labels.class_names):
            raise Problem(
                422,
                "SHAPE_MISMATCH",
                f"The table has {len(labels.class_names)} classes, but {len(spec.class_names)} class_names were "
                "given: name each column once, in order.",
            )
        labels = replace(labels, class_names=list(spec.class_names))
    write_soft_labels(work_dir / "teacher.pt", labels)
    ignored = [name for name in ("architecture", "preprocessing", "key_map") if getattr(spec, name)]
    report = {
        "soft_labels": {"rows": len(labels.paths), "kind": labels.kind, "temperature": labels.temperature},
        "architecture": None,
        "parameters": 0,
        "macs": 0,
        "layers": [],
        "input_shape": None,
        "num_classes": len(labels.class_names),
        "class_names": labels.class_names,
        "preprocessing": None,
        "size_bytes": file.stat().st_size,
        "warnings": [f"`{name}` was ignored: the file is a table of soft labels." for name in ignored],
    }
    return {
        "type": "result",
        "result": {"report": report},
        "files": {"artifact": "teacher.pt", "tensors": None},
    }


# ---- a teacher's parts


def _check_variances(tensors: dict[str, torch.Tensor]) -> None:
    """A negative variance passes as a weight, and a network with it may still answer finite numbers."""
    negative = [
        name for name, tensor in tensors.items() if name.endswith("running_var") and bool((tensor < 0).any())
    ]
    if negative:
        raise Problem(
            422,
            "NOT_FINITE",
            f"{len(negative)} batch norms have a negative running_var: {_some(negative)}. The network answers NaN: "
            "upload a checkpoint from before.",
        )


def _check_finite(tensors: dict[str, torch.Tensor]) -> None:
    broken = [
        name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if broken:
        raise Problem(
            422,
            "NOT_FINITE",
            f"{len(broken)} tensors hold NaN or infinity: {_some(broken)}. "
            "The training diverged; upload a checkpoint from before.",
        )


def _preprocessing(spec: TeacherSpec, checkpoint: Checkpoint) -> dict[str, Any]:
    if spec.preprocessing is not None:
        return spec.preprocessing.model_dump()
    if checkpoint.preprocessing is not None:
        try:
            return Preprocessing.model_validate(checkpoint.preprocessing).model_dump()
        except ValueError as error:
            raise Problem(
                422, "CHECKPOINT_UNREADABLE", f"The file's preprocessing breaks a rule: {error}"
            ) from None
    raise Problem(
        422,
        "PREPROCESSING_MISSING",
        "How photos become the network's input is part of the teacher: give `preprocessing` with resize, "
        "crop, mean and std as in its training.",
        errors=[
            {
                "pointer": "/preprocessing",
                "code": "MISSING",
                "detail": "It is neither in the request nor in the file.",
                "hint": '{"resize": 256, "crop": 224}',
            }
        ],
    )


def _network(spec: TeacherSpec, checkpoint: Checkpoint, preprocessing: dict[str, Any]) -> Network:
    """The network with the checkpoint's tensors, each exactly where its name says."""
    height, width = Preprocessing.model_validate(preprocessing).input_size
    if checkpoint.graph is not None:
        network = _from_graph(spec, checkpoint, height, width)
    else:
        network = _from_architecture(spec, checkpoint, height, width)
    _check_types(network, checkpoint.tensors)
    network.load_state_dict(checkpoint.tensors)
    network.encoded = checkpoint.encoded
    return network.eval()


def _check_types(network: Network, tensors: dict[str, torch.Tensor]) -> None:
    """`load_state_dict` would cast whatever comes, complex to real and integers to weights, without a word.

    Only from one float to another and from one integer to another it may. Raises Problem DTYPE_MISMATCH.
    """
    differing = [
        f"{name} is {_type(tensors[name])}, not {_type(own)}"
        for name, own in network.state_dict().items()
        if _sort(tensors[name]) != _sort(own)
    ]
    if differing:
        raise Problem(
            422,
            "DTYPE_MISMATCH",
            f"{len(differing)} tensors have other types than the network's: {_some(differing)}. Weights are float16, "
            "bfloat16, float32 or float64, counters integers: convert them and save again.",
        )


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _sort(tensor: torch.Tensor) -> str:
    if tensor.is_floating_point():
        return "float"
    return "bool" if tensor.dtype == torch.bool else "integer"


def _from_graph(spec: TeacherSpec, checkpoint: Checkpoint, height: int, width: int) -> Network:
    assert checkpoint.graph is not None
    if spec.architecture is not None:
        checkpoint.warnings.append("`architecture` was ignored: the file brings its own graph.")
    if spec.key_map:
        checkpoint.warnings.append("`key_map` was ignored: the file brings its own graph with its names.")
    try:
        network = models.build(checkpoint.graph)
    except GraphError as error:
        raise Problem(422, "CHECKPOINT_UNREADABLE", f"The file's graph breaks a rule: {error}") from None
    if tuple(network.input_shape) != (3, height, width):
        raise Problem(
            422,
            "SHAPE_MISMATCH",
            f"The network in the file takes {list(network.input_shape)}, the preprocessing gives "
            f"{[3, height, width]}: change crop or resize.",
        )
    return network


def _from_architecture(spec: TeacherSpec, checkpoint: Checkpoint, height: int, width: int) -> Network:
    if spec.architecture is None:
        raise Problem(
            422,
            "UNKNOWN_ARCHITECTURE",
            "The file holds tensors only and the request names no architecture. "
            + (
                _did_you_mean(checkpoint, height)
                or "If it is none of the built-in ones, run trace_network.py."
            ),
        )
    if height != width:
        raise Problem(
            422,
            "SHAPE_MISMATCH",
            f"The preprocessing gives {height}x{width} pixels, and built-in architectures take squares: "
            "trace_network.py takes any shape.",
        )
    name, options = spec.architecture.architecture, spec.architecture.options
    _rename(spec.key_map, checkpoint)
    _take_known_spelling(name, options, height, checkpoint)
    _leave_out_auxiliary_heads(name, checkpoint)
    _count_batches_from_zero(name, options, height, checkpoint)
    num_classes = _num_classes(name, options, height, checkpoint.tensors)
    if num_classes is None:
        num_classes = len(spec.class_names or checkpoint.class_names or []) or 1000
    network = create(name, options, num_classes=num_classes, image_size=height)
    _check_keys(name, _shapes(network), checkpoint, height)
    return network


def _rename(key_map: dict[str, str], checkpoint: Checkpoint) -> None:
    """Replace the longest prefix of `key_map` that a tensor's name has.

    Raises Problem KEYS_COLLIDE when two tensors end with one name.
    """
    new_names: dict[str, str] = {}
    for name in checkpoint.tensors:
        fitting = [prefix for prefix in key_map if name.startswith(prefix)]
        longest = max(fitting, key=len, default="")
        new_names[name] = key_map[longest] + name[len(longest) :] if fitting else name
    taken: dict[str, str] = {}
    for old, new in new_names.items():
        if new in taken:
            raise Problem(
                422,
                "KEYS_COLLIDE",
                f"key_map gives {taken[new]!r} and {old!r} the same name {new!r}: change one of its prefixes.",
            )
        taken[new] = old
    checkpoint.rename(new_names)


def _take_known_spelling(name: str, options: dict[str, Any], image_size: int, checkpoint: Checkpoint) -> None:
    """Students of the course are saved under two spellings; take the other one where it fits and this does not."""
    wanted = _skeleton(name, options, 2, image_size).keys()
    if wanted == checkpoint.tensors.keys():
        return
    for spelling in _SPELLINGS:
        tried = Checkpoint(dict(checkpoint.tensors), encoded=dict(checkpoint.encoded))
        _rename(spelling, tried)
        if tried.tensors.keys() == wanted:
            checkpoint.tensors, checkpoint.encoded = tried.tensors, tried.encoded
            renamed = ", ".join(f"{old!r} as {new!r}" for old, new in spelling.items())
            checkpoint.warnings.append(f"The file's names were read in another spelling: {renamed}.")
            return


def _leave_out_auxiliary_heads(name: str, checkpoint: Checkpoint) -> None:
    auxiliary = [key for key in checkpoint.tensors if str(key).startswith(AUXILIARY_HEADS.get(name, ()))]
    for key in auxiliary:
        del checkpoint.tensors[key]
    if auxiliary:
        checkpoint.warnings.append(
            f"{len(auxiliary)} tensors of {name}'s auxiliary heads were left out: they serve its training only."
        )


def _count_batches_from_zero(
    name: str, options: dict[str, Any], image_size: int, checkpoint: Checkpoint
) -> None:
    """Files from before PyTorch 0.4.1 have no counters of batches, torchvision's own ResNets among them."""
    wanted = _skeleton(name, options, 2, image_size).keys()
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    if checkpoint.tensors.keys() == wanted - counters:
        checkpoint.tensors |= {key: torch.tensor(0) for key in counters}


def create(name: str, options: dict[str, Any], *, num_classes: int, image_size: int) -> Network:
    try:
        return create_network(name, num_classes=num_classes, image_size=image_size, seed=0, **options)
    except UnknownArchitectureError as error:
        raise Problem(422, "UNKNOWN_ARCHITECTURE", f"{error}.") from None
    except ValueError as error:
        raise Problem(422, "ARCHITECTURE_IMPOSSIBLE", f"{error}.") from None


def _num_classes(
    name: str, options: dict[str, Any], image_size: int, tensors: dict[str, torch.Tensor]
) -> int | None:
    """The number of classes in the file: two skeletons that differ only there show which tensor's shape tells
    it.
    """
    two, three = (_skeleton(name, options, num_classes, image_size) for num_classes in (2, 3))
    for key, shape in two.items():
        for axis, size in enumerate(shape):
            if three[key][axis] != size and key in tensors and tensors[key].dim() == len(shape):
                return int(tensors[key].shape[axis])
    return None


def _skeleton(name: str, options: dict[str, Any], num_classes: int, image_size: int | None) -> Shapes:
    try:
        return _shapes(create_skeleton(name, num_classes=num_classes, image_size=image_size, **options))
    except UnknownArchitectureError as error:
        raise Problem(422, "UNKNOWN_ARCHITECTURE", f"{error}.") from None
    except ValueError as error:
        raise Problem(422, "ARCHITECTURE_IMPOSSIBLE", f"{error}.") from None


def _shapes(module: torch.nn.Module) -> Shapes:
    return {key: list(value.shape) for key, value in module.state_dict().items()}


def _check_keys(name: str, wanted: Shapes, checkpoint: Checkpoint, image_size: int) -> None:
    """Every tensor of the architecture must be there in its shape, and no other.

    Raises KEYS_MISMATCH, SHAPE_MISMATCH.
    """
    given = {key: list(tensor.shape) for key, tensor in checkpoint.tensors.items()}
    missing, unknown = (
        [key for key in wanted if key not in given],
        [key for key in given if key not in wanted],
    )
    if missing or unknown:
        parts = []
        if missing:
            parts.append(f"{len(missing)} tensors are missing ({_some(missing)})")
        if unknown:
            parts.append(f"{len(unknown)} are unknown to it ({_some(unknown)})")
        raise Problem(
            422,
            "KEYS_MISMATCH",
            f"The checkpoint is no {name}: {' and '.join(parts)}. "
            f"{_did_you_mean(checkpoint, image_size)}".rstrip(),
        )
    differing = [f"{key} is {given[key]}, not {wanted[key]}" for key in wanted if given[key] != wanted[key]]
    if differing:
        raise Problem(
            422,
            "SHAPE_MISMATCH",
            f"{len(differing)} tensors have other shapes than those of {name}: {_some(differing)}. "
            f"{_did_you_mean(checkpoint, image_size)}".rstrip(),
        )


def _did_you_mean(checkpoint: Checkpoint, image_size: int) -> str:
    """A built-in architecture, with default options, whose tensors have exactly these names and shapes."""
    given = {key: list(tensor.shape) for key, tensor in checkpoint.tensors.items()}
    digest = names_digest(given)
    for name, entry in architectures.catalogue().items():
        # Building all of them takes seconds; those of one family that have the same names are few.
        if entry["tensor_names_sha256"] != digest:
            continue
        try:
            num_classes = _num_classes(name, {}, _size_for(name, image_size), checkpoint.tensors)
            if num_classes and _skeleton(name, {}, num_classes, _size_for(name, image_size)) == given:
                return f"Did you mean {name}?"
        except Problem:  # this one cannot be built at this size, so it is not the one
            continue
    return ""


def _size_for(name: str, image_size: int) -> int:
    """Most architectures take any size; the others only their own, which then decides the shapes."""
    architecture = find(name)
    fits = (
        image_size >= architecture.minimum_image_size and image_size % architecture.image_size_multiple == 0
    )
    return image_size if fits else architecture.image_size


@torch.inference_mode()
def _check_forward(network: Network) -> None:
    """Two images of noise: an infinite running mean or a negative variance shows only in what the network
    answers.
    """
    noise = torch.rand(2, *network.input_shape, generator=torch.Generator().manual_seed(0))
    logits_NC = network(noise)
    if not logits_NC.isfinite().all():
        raise Problem(
            422,
            "NOT_FINITE",
            "The network answers NaN or infinity to ordinary images, although all its tensors are finite.",
        )


def _some(items: list[str]) -> str:
    return ", ".join(items[:_MAX_SHOWN]) + (
        f", … and {len(items) - _MAX_SHOWN} more" if len(items) > _MAX_SHOWN else ""
    )
