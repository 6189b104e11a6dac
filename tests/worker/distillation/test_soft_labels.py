"""Files of soft labels: both forms, found by name, refused with a reason."""

import pytest
import torch

from app.errors import Problem
from tests.worker.fakes import MemoryData
from worker.distillation.soft_labels import FORMAT, SoftLabels, read_soft_labels, rows_for, write_soft_labels

LABELS = SoftLabels(
    "logits", ["dog", "cat"], ["train/0.png", "b.png"], torch.tensor([[1.5, -2.0], [0.25, 3.0]]), 2.0
)


def test_what_is_written_is_read_again(tmp_path):
    write_soft_labels(tmp_path / "a.pt", LABELS)
    write_soft_labels(tmp_path / "other-name.pt", LABELS)
    read = read_soft_labels(tmp_path / "a.pt")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "other-name.pt").read_bytes()
    assert (read.kind, read.class_names, read.paths, read.temperature) == (
        "logits",
        ["dog", "cat"],
        LABELS.paths,
        2.0,
    )
    assert torch.equal(read.values_NC, LABELS.values_NC)
    assert read.rows == {"train/0.png": 0, "b.png": 1}


@pytest.mark.parametrize(
    ("rows", "kind"), [("a.png,0.25,0.75\nb.png,1,0\n", "probabilities"), ("a.png,0.25,-3\n\n", "logits")]
)
def test_csv_says_by_its_numbers_what_it_is(tmp_path, rows, kind):
    path = tmp_path / "labels.csv"
    path.write_text(f"path,dog,cat\n{rows}", encoding="utf-8-sig")
    read = read_soft_labels(path)
    assert (read.kind, read.class_names, read.paths[0]) == (kind, ["dog", "cat"], "a.png")
    assert read.values_NC[0, 0] == 0.25


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "header path"),
        ("name,dog,cat\na,1,2\n", "name,dog,cat"),
        ("path,dog,cat\na,1\n", "line 2 has 2 cells"),
        ("path,dog,cat\na,1,x\n", "line 2"),
        ("path,dog,cat\n", "0 pictures"),
        ("path,dog\na,1\n", "1 classes"),
        ("path,dog,dog\na,1,2\n", "class 'dog' 2 times"),
        ("path,dog,cat\na,1,2\na,1,2\n", "path 'a' 2 times"),
        ("path,dog,cat\na,1,nan\n", "'a' holds a number that is not finite"),
    ],
)
def test_a_csv_that_is_none_is_refused_with_the_reason(tmp_path, text, says):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(Problem) as problem:
        read_soft_labels(path)
    assert (problem.value.status, problem.value.code) == (422, "SOFT_LABELS_UNREADABLE")
    assert says in problem.value.detail


GOOD = {
    "format": FORMAT,
    "kind": "probabilities",
    "class_names": ["a", "b"],
    "paths": ["x"],
    "values": torch.tensor([[0.5, 0.5]]),
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "other"}, "'format'"),
        ({"kind": "guesses"}, "'guesses'"),
        ({"paths": "x"}, "'paths'"),
        ({"values": torch.tensor([[1, 2]])}, "floating-point"),
        ({"values": torch.zeros(1).expand(10**12, 2)}, "[1000000000000, 2]"),
        ({"values": torch.tensor([[0.5, 0.6]])}, "'x' holds no probabilities"),
        ({"values": torch.tensor([[1.5, -0.5]])}, "'x' holds no probabilities"),
        ({"temperature": 0.0}, "'temperature'"),
    ],
)
def test_a_torch_file_that_is_none_is_refused_with_the_reason(tmp_path, changes, says):
    path = tmp_path / "labels.pt"
    torch.save({**GOOD, **changes}, path)
    with pytest.raises(Problem) as problem:
        read_soft_labels(path)
    assert says in problem.value.detail


def test_a_torch_file_that_holds_code_is_not_run(tmp_path):
    path = tmp_path / "labels.pt"
    torch.save({**GOOD, "values": torch.nn.Linear(2, 2)}, path)
    with pytest.raises(Problem) as problem:
        read_soft_labels(path)
    assert problem.value.code == "SOFT_LABELS_UNREADABLE"


def test_pictures_are_found_by_path_then_by_a_name_that_is_theirs_alone():
    """000.png is a picture of both splits, so only the full path says which one is meant."""
    data = MemoryData(train=3, val=1)
    assert rows_for({"train/001.png": 7, "train/000.png": 8}, data, ["train"]).tolist() == [8, 7, -1]
    assert rows_for({"000.png": 1, "elsewhere/002.png": 2}, data, ["train", "val"]).tolist() == [
        -1,
        -1,
        2,
        -1,
    ]
    assert rows_for({"a/002.png": 0, "b/002.png": 1}, data, ["train"]).tolist() == [-1, -1, -1]
