"""What becomes of an uploaded teacher.

The functions are called as the child calls them; one test runs a real child.
"""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

import models
from app.errors import Problem
from models.architectures import create, create_network
from tests.course import course_encode_8bit
from tests.worker import tiny
from worker import verdicts
from worker.distillation.soft_labels import read_soft_labels
from worker.inspections import architectures, uploads
from worker.messages import Line, Stops

LINE = Line(os.open(os.devnull, os.O_WRONLY))


def inspect(content: Any, tmp_path: Path, **spec: Any) -> tuple[dict[str, Any], models.Network]:
    """Upload `content`, have it inspected; the report and the canonical network."""
    file = tmp_path / "upload"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    order = {
        "spec": {"file": "upload", "preprocessing": tiny.PREPROCESSING, **spec},
        "file": str(file),
        "work_dir": str(tmp_path),
        "num_threads": 1,
    }
    last = uploads.teacher(order, LINE, Stops())
    return last["result"]["report"], models.load(tmp_path / last["files"]["artifact"])


def refusal(content: Any, tmp_path: Path, **spec: Any) -> Problem:
    with pytest.raises(Problem) as refused:
        inspect(content, tmp_path, **spec)
    assert refused.value.status == 422
    return refused.value


def state(num_classes: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return create(tiny.TEACHER, num_classes=num_classes, image_size=tiny.SIDE).state_dict()


@pytest.mark.parametrize(("name", "size"), [("regnet_y_400mf", 32), ("googlenet", 64)])
def test_torchvision_checkpoints_are_taken_as_torchvision_saves_them(
    name: str, size: int, tmp_path: Path
) -> None:
    """RegNet has hyphens in its names; GoogLeNet has auxiliary heads, which eval mode never asks."""
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    original = torchvision.models.get_model(name, weights=None, num_classes=3, **options).eval()
    preprocessing = {**tiny.PREPROCESSING, "crop": size}
    report, network = inspect(original.state_dict(), tmp_path, architecture=name, preprocessing=preprocessing)
    image = torch.rand(1, 3, size, size)
    with torch.no_grad():
        assert torch.equal(network(image), original(image))
    assert ("auxiliary" in " ".join(report["warnings"])) == (name == "googlenet")


@pytest.mark.parametrize("num_classes", [2, 7])
def test_a_state_dict_becomes_a_network_with_its_tensors(num_classes: int, tmp_path: Path) -> None:
    """The number of classes is read from the head's shape."""
    report, network = inspect(state(num_classes), tmp_path, architecture=tiny.TEACHER)
    wanted = create(tiny.TEACHER, num_classes=num_classes, image_size=tiny.SIDE)
    wanted.load_state_dict(state(num_classes))
    image = torch.rand(1, 3, tiny.SIDE, tiny.SIDE)
    assert torch.equal(network(image), wanted.eval()(image))
    assert report["num_classes"] == num_classes
    assert report["parameters"] == sum(parameter.numel() for parameter in wanted.parameters())
    assert sum(layer["parameters"] for layer in report["layers"]) == report["parameters"]
    assert report["input_shape"] == [3, tiny.SIDE, tiny.SIDE]
    assert report["size_bytes"] == (tmp_path / "upload").stat().st_size
    json.dumps(report, allow_nan=False)


def test_the_courses_8_bit_file_becomes_a_small_exact_teacher(tmp_path: Path) -> None:
    """The artifact is about as small as the file, and holds the very bytes of it."""
    made = create("course/studentnet", num_classes=11, image_size=32).state_dict()
    content = pickle.dumps(course_encode_8bit(made), protocol=3)
    report, network = inspect(content, tmp_path, architecture="course/studentnet")
    assert report["parameters"] == 256_779
    assert report["size_bytes"] == len(content)
    artifact_bytes = (tmp_path / "teacher.pt").stat().st_size
    assert artifact_bytes < 1.05 * len(content)
    for name, (low, high, array) in (kv for kv in pickle.loads(content).items() if isinstance(kv[1], tuple)):
        stored = network.encoded[name]
        assert (stored.encoding["minimum"], stored.encoding["maximum"]) == (low, high)
        assert stored.data.tolist() == array.reshape(-1).tolist()


def test_the_courses_other_spelling_is_recognised(tmp_path: Path) -> None:
    """`convolution.` and `linear.` for `cnn.` and `fc.`; said in the warnings."""
    made = create("course/studentnet", num_classes=11, image_size=32).state_dict()
    spelt = {
        name.replace("cnn.", "convolution.", 1).replace("fc.", "linear.", 1): value
        for name, value in made.items()
    }
    report, network = inspect(spelt, tmp_path, architecture="course/studentnet")
    assert "'convolution.' as 'cnn.'" in report["warnings"][0]
    assert all(torch.equal(network.state_dict()[name], value) for name, value in made.items())


def test_a_key_map_renames_the_longest_prefix(tmp_path: Path) -> None:
    """Whatever the order of the map's entries: a JSON object has none."""
    made = state()
    spelt = {f"net.{name}".replace("net.head.", "net.top.tail."): value for name, value in made.items()}
    key_map = {"net.": "", "net.top.tail.": "head."}
    for entries in (list(key_map.items()), list(key_map.items())[::-1]):
        _, network = inspect(spelt, tmp_path, architecture=tiny.TEACHER, key_map=dict(entries))
        assert all(torch.equal(network.state_dict()[name], value) for name, value in made.items())


def test_a_key_map_that_joins_two_names_is_refused(tmp_path: Path) -> None:
    problem = refusal(state(), tmp_path, architecture=tiny.TEACHER, key_map={"head.fc.": "features.conv1."})
    assert problem.code == "KEYS_COLLIDE"
    assert "features.conv1.bias" in problem.detail


def test_a_key_map_is_not_for_files_with_a_graph(tmp_path: Path) -> None:
    made = create_network(tiny.TEACHER, num_classes=2, image_size=tiny.SIDE, seed=0).eval()
    packed = models.pack(made, preprocessing=tiny.PREPROCESSING, class_names=None)
    report, _ = inspect(packed, tmp_path, key_map={"head.": "x."})
    assert "key_map" in report["warnings"][0]


def test_an_artifact_brings_everything(tmp_path: Path) -> None:
    made = create_network(tiny.TEACHER, num_classes=2, image_size=tiny.SIDE, seed=1)
    packed = models.pack(
        made.eval(),
        preprocessing=tiny.PREPROCESSING,
        class_names=["dark", "light"],
        steps=[],
        metrics=None,
        digests=None,
    )
    report, network = inspect(packed, tmp_path, preprocessing=None)
    assert report["class_names"] == network.class_names == ["dark", "light"]
    assert models.network_digest(network) == models.network_digest(made)


CSV = b"path,dark,light\nval/a.jpg,0.25,0.75\nb.jpg,1,0\n"


def table(tmp_path: Path, content: bytes, **spec: Any) -> tuple[dict[str, Any], Any]:
    """Upload a table of soft labels; its report and what its canonical file holds."""
    (tmp_path / "upload").write_bytes(content)
    order = {
        "spec": {"file": "upload", **spec},
        "file": str(tmp_path / "upload"),
        "work_dir": str(tmp_path),
        "num_threads": 1,
    }
    last = uploads.teacher(order, LINE, Stops())
    return last["result"]["report"], read_soft_labels(tmp_path / last["files"]["artifact"])


def test_a_table_of_soft_labels_is_a_teacher(tmp_path: Path) -> None:
    """As CSV, and in the form that it is kept in; it needs neither architecture nor preprocessing."""
    report, labels = table(tmp_path, CSV)
    assert report["soft_labels"] == {"rows": 2, "kind": "probabilities", "temperature": 1.0}
    assert (report["num_classes"], report["class_names"], report["parameters"]) == (2, ["dark", "light"], 0)
    assert labels.values_NC.tolist() == [[0.25, 0.75], [1.0, 0.0]]
    json.dumps(report, allow_nan=False)
    again, same = table(tmp_path, (tmp_path / "teacher.pt").read_bytes(), class_names=["a", "b"])
    assert (again["class_names"], same.rows, again["warnings"]) == (
        ["a", "b"],
        {"val/a.jpg": 0, "b.jpg": 1},
        [],
    )


def test_what_a_table_does_not_need_is_ignored_and_said(tmp_path: Path) -> None:
    report, _ = table(tmp_path, CSV, architecture=tiny.TEACHER, preprocessing=tiny.PREPROCESSING)
    assert len(report["warnings"]) == 2


@pytest.mark.parametrize(
    ("content", "code", "spec"),
    [
        (CSV.replace(b"0.25", b"nan"), "SOFT_LABELS_UNREADABLE", {}),
        (CSV + b"c.jpg,1\n", "SOFT_LABELS_UNREADABLE", {}),
        (CSV, "SHAPE_MISMATCH", {"class_names": ["a", "b", "c"]}),
        (b"picture,dark,light\n", "CHECKPOINT_UNREADABLE", {}),
    ],
)
def test_a_broken_table_is_refused(content: bytes, code: str, spec: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Problem) as refused:
        table(tmp_path, content, **spec)
    assert (refused.value.status, refused.value.code) == (422, code)


def test_the_wrong_architecture_is_named_with_the_right_one(tmp_path: Path) -> None:
    problem = refusal(state(), tmp_path, architecture="resnet18")
    assert problem.code == "KEYS_MISMATCH"
    assert "missing" in problem.detail
    assert tiny.TEACHER in problem.detail
    assert len(problem.detail) < 2_000


def test_no_architecture_is_guessed_but_one_is_suggested(tmp_path: Path) -> None:
    problem = refusal(state(), tmp_path)
    assert problem.code == "UNKNOWN_ARCHITECTURE"
    assert tiny.TEACHER in problem.detail


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    content = state()
    key = next(key for key, value in content.items() if value.dim() == 4)
    content[key] = content[key][:, :1]
    problem = refusal(content, tmp_path, architecture=tiny.TEACHER)
    assert problem.code == "SHAPE_MISMATCH"
    assert key in problem.detail


def test_nan_is_refused_by_tensor(tmp_path: Path) -> None:
    content = state()
    key = next(iter(content))
    content[key].view(-1)[0] = float("nan")
    problem = refusal(content, tmp_path, architecture=tiny.TEACHER)
    assert (problem.code, key in problem.detail) == ("NOT_FINITE", True)


def test_a_negative_variance_shows_in_the_answer(tmp_path: Path) -> None:
    content = state()
    key = next(key for key in content if key.endswith("running_var"))
    content[key].fill_(-1.0)
    assert refusal(content, tmp_path, architecture=tiny.TEACHER).code == "NOT_FINITE"


def test_preprocessing_is_part_of_a_teacher(tmp_path: Path) -> None:
    problem = refusal(state(), tmp_path, architecture=tiny.TEACHER, preprocessing=None)
    assert problem.code == "PREPROCESSING_MISSING"
    assert problem.errors[0]["pointer"] == "/preprocessing"


def test_class_names_must_be_as_many_as_outputs(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    assert refusal(state(), tmp_path, architecture=tiny.TEACHER, class_names=names).code == "SHAPE_MISMATCH"


def test_an_architectures_layer_table(tmp_path: Path) -> None:
    order = {
        "spec": {"architecture": "report/final", "num_classes": 11, "image_size": 64},
        "work_dir": str(tmp_path),
    }
    result = architectures.architecture(order, LINE, Stops())["result"]
    assert (result["parameters"], result["macs"]) == (120_859, 41_888_768)


def child(order: dict[str, Any]) -> tuple[bytes, int]:
    """What a real child says to this order, and its exit code."""
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"num_threads": 1, **order}).encode() + b"\n")
    process.stdin.flush()  # and left open: its end would tell the child that its supervisor died
    said = process.stdout.read()
    process.communicate()
    return said, process.returncode


def test_too_much_time_is_a_verdict(tmp_path: Path) -> None:
    """Loading torch alone takes a second of CPU time, so this limit is met whatever the file holds."""
    torch.save(state(), tmp_path / "upload")
    spec = {"file": "upload", "architecture": tiny.TEACHER, "preprocessing": tiny.PREPROCESSING}
    order = {"do": "teacher", "spec": spec, "file": str(tmp_path / "upload"), "work_dir": str(tmp_path)}
    said, code = child({**order, "limits": {"cpu_seconds": 1}})
    problem = verdicts.killed_by_its_limits(code, order)
    assert (said, problem and (problem.status, problem.code)) == (b"", (422, "CHECKPOINT_UNREADABLE"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_too_much_memory_is_a_verdict() -> None:
    code = "import worker.inspections.architectures; print(open('/proc/self/status').read())"
    status = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    needed = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData")) << 10
    # 100,000 classes on 1,024 features are 400 MB of weights.
    query = {"architecture": "report/final", "num_classes": 100_000, "image_size": 64}
    said, _ = child({"do": "architecture", "spec": query, "limits": {"memory_bytes": needed + (200 << 20)}})
    error = json.loads(said)
    assert (error["type"], error["status"], error["code"]) == ("error", 422, "OUT_OF_MEMORY")
