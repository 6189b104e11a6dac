"""A lone copy of the reader counts again what a receipt claims, and says what differs."""

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from models import load_artifact
from tests.models.conftest import CLASS_NAMES, PREPROCESSING, noise_photo
from worker.datasets.report import split_digest

# The data set counts its classes in its own order, the network in its teacher's. Two steps lead back, not one.
DATA_ORDER = [CLASS_NAMES[2], CLASS_NAMES[0], CLASS_NAMES[1]]
NUM_PHOTOS = {"val": 4, "test": 7}
Edit = Callable[[dict[str, Any]], Any]


@pytest.fixture
def folder(tmp_path: Path, small: models.Network, capsys: pytest.CaptureFixture[str]) -> Path:
    """model.pt, photos.zip and the receipt.json of the two."""
    models.save(small, tmp_path / "model.pt", preprocessing=PREPROCESSING, class_names=CLASS_NAMES)
    rows: dict[str, list[tuple[str, int | None, str]]] = {}
    scores: dict[str, dict[str, Any]] = {}
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for split, count in NUM_PHOTOS.items():
            for number in range(count):
                name = CLASS_NAMES[number % len(CLASS_NAMES)]
                noise_photo(20, 24, seed=number + count).save(tmp_path / "photo.png")
                content = (tmp_path / "photo.png").read_bytes()
                path = f"{split}/{name}/{number}.png"
                archive.writestr(path, content)
                sha256 = hashlib.sha256(content).hexdigest()
                rows.setdefault(split, []).append((path, DATA_ORDER.index(name), sha256))
    for split in NUM_PHOTOS:
        photos = [str(tmp_path / "photos.zip"), "--split", split]
        assert load_artifact.main([str(tmp_path / "model.pt"), "evaluate", *photos, "--json"]) == 0
        score = json.loads(capsys.readouterr().out)
        scores[split] = {key: score[key] for key in ("num_correct", "num_images")}
    content = (tmp_path / "model.pt").read_bytes()
    table = models.layer_table(small)
    receipt = {
        "format": "fewbytes/receipt/1",
        "job_id": "job_1",
        "artifact": {
            "name": "final.pt",
            "kind": "final",
            "sha256": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content),
        },
        "dataset": {
            "splits": {split: {"digest": split_digest(rows[split])} for split in rows},
            "class_order": [CLASS_NAMES.index(name) for name in DATA_ORDER],
        },
        "measured": {"splits": scores, "parameters": table["parameters"], "macs": table["macs"]},
    }
    (tmp_path / "receipt.json").write_text(json.dumps(receipt))
    return tmp_path


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the command in a folder with nothing but the reader's copy."""
    reader = folder / "load_artifact.py"
    reader.write_bytes(Path(load_artifact.__file__).read_bytes())
    command = [sys.executable, reader.name, *arguments]
    environment = {"PATH": "", "PYTHONUTF8": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def verify(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """The same in this process: importing torch takes seconds."""
    command = [str(folder / "model.pt"), "verify", str(folder / "receipt.json"), *arguments, "--json"]
    code = load_artifact.main(command)
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else {"error": said.err}


def edit(folder: Path, change: Edit) -> None:
    receipt = json.loads((folder / "receipt.json").read_text())
    change(receipt)
    (folder / "receipt.json").write_text(json.dumps(receipt))


def failed(answer: dict[str, Any]) -> list[str]:
    return [check["what"] for check in answer["checks"] if not check["ok"]]


def test_everything_is_counted_again_by_the_reader_alone(folder: Path) -> None:
    code, out, _ = run(folder, "model.pt", "verify", "receipt.json", "--photos", "photos.zip")
    assert code == 0, out
    lines = out.splitlines()
    assert lines[0].split() == ["claimed", "found"]
    assert [re.split("  +", line)[0] for line in lines[1:-1]] == [
        *("size_bytes", "sha256", "parameters", "macs"),
        *(f"{split} {what}" for split in NUM_PHOTOS for what in ("num_images", "num_correct", "digest")),
    ]
    assert all(line.endswith(" ok") for line in lines[1:-1])
    assert lines[-1] == "verified"


def test_without_photos_only_the_file_is_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = verify(folder, capsys)
    assert (code, answer["ok"]) == (0, True)
    assert [check["what"] for check in answer["checks"]] == ["size_bytes", "sha256", "parameters", "macs"]
    assert answer["notes"] == ["not counted again without --photos: val, test"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda receipt: receipt["measured"].update(parameters=1), "parameters"),
        (lambda receipt: receipt["measured"].update(macs=1), "macs"),
        (lambda receipt: receipt["measured"]["splits"]["val"].update(num_correct=99), "val num_correct"),
        (lambda receipt: receipt["measured"]["splits"]["val"].update(num_images=99), "val num_images"),
        (lambda receipt: receipt["dataset"]["splits"]["val"].update(digest="0" * 64), "val digest"),
        (lambda receipt: receipt["dataset"].update(class_order=None), "val digest"),
        (lambda receipt: receipt["artifact"].update(size_bytes=1), "size_bytes"),
    ],
)
def test_a_claim_that_is_not_so_fails(
    folder: Path, capsys: pytest.CaptureFixture[str], change: Edit, what: str
) -> None:
    edit(folder, change)
    code, answer = verify(folder, capsys, "--photos", str(folder / "photos.zip"), "--split", "val")
    assert (code, answer["ok"], failed(answer)) == (1, False, [what])


def test_the_wrong_file_is_said_to_be_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One changed bit of a weight, and a file that is none of ours."""
    network = load_artifact.load(folder / "model.pt")
    with torch.no_grad():
        next(network.parameters()).mul_(1.5)
    models.save(network, folder / "model.pt", preprocessing=PREPROCESSING, class_names=CLASS_NAMES)
    code, answer = verify(folder, capsys)
    assert code == 1
    assert "sha256" in failed(answer)
    assert "is not the file of this receipt, which is final.pt of job_1" in answer["notes"][0]
    (folder / "model.pt").write_bytes(b"something else")
    code, answer = verify(folder, capsys)
    assert (code, failed(answer)) == (1, ["size_bytes", "sha256", "network"])
    code = load_artifact.main([str(folder / "model.pt"), "verify", str(folder / "receipt.json")])
    assert code == 1
    assert capsys.readouterr().out.splitlines()[-1] == "NOT verified"


def test_one_photo_less_and_one_photo_changed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(folder / "photos.zip") as archive:
        archive.extractall(folder / "photos")
    changed = folder / "photos" / "test" / CLASS_NAMES[0] / "0.png"
    content = changed.read_bytes()
    noise_photo(20, 24, seed=99).save(changed)
    code, answer = verify(folder, capsys, "--photos", str(folder / "photos"))
    assert code == 1
    assert "test digest" in failed(answer)
    assert not any(what.startswith("val") for what in failed(answer))
    changed.write_bytes(content)
    assert verify(folder, capsys, "--photos", str(folder / "photos"))[0] == 0
    changed.unlink()
    assert {"test num_images", "test digest"} <= set(
        failed(verify(folder, capsys, "--photos", str(folder / "photos"))[1])
    )


def test_photos_in_another_layout_come_with_a_listing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The paths of the data set, and whose split each is, are what its listing says."""
    listing = ["path,label"]
    listing += [f"test/{CLASS_NAMES[n % 3]}/{n}.png,{CLASS_NAMES[n % 3]}" for n in range(NUM_PHOTOS["test"])]
    (folder / "test.csv").write_text("\n".join(listing), encoding="utf-8")
    photos = ["--photos", str(folder / "photos.zip"), "--files", str(folder / "test.csv")]
    code, answer = verify(folder, capsys, *photos, "--split", "test")
    assert (code, len(answer["checks"])) == (0, 7)
    code, answer = verify(folder, capsys, *photos)
    assert code == 1
    assert "say which with --split" in answer["error"]


def test_a_split_that_is_not_among_the_photos_is_said_to_be_missing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(
        folder,
        lambda receipt: receipt["measured"]["splits"].update(train={"num_correct": 1, "num_images": 2}),
    )
    code, answer = verify(folder, capsys, "--photos", str(folder / "photos.zip"))
    assert code == 0
    assert answer["notes"] == ["not counted again: train, for there is no train/<class>/<image>"]
    code, answer = verify(folder, capsys, "--photos", str(folder / "photos.zip"), "--split", "none")
    assert (code, "it has val, test, train" in answer["error"]) == (1, True)


def test_an_export_is_compared_by_its_bytes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(folder, lambda receipt: receipt["artifact"].update(kind="export"))
    code, answer = verify(folder, capsys)
    assert (code, [check["what"] for check in answer["checks"]]) == (0, ["size_bytes", "sha256"])
    code, answer = verify(folder, capsys, "--photos", str(folder / "photos.zip"))
    assert (code, "no network" in answer["error"]) == (1, True)


@pytest.mark.parametrize(
    "content",
    [
        b"no JSON",
        b"[]",
        b"{}",
        b'{"format": "fewbytes/receipt/2"}',
        b'{"format": "fewbytes/receipt/1"}',
        b'{"format": "fewbytes/receipt/1", "job_id": "j", "artifact": 1, "measured": {}, "dataset": {}}',
        b'{"format": "fewbytes/receipt/1", "job_id": "j", "artifact": {}, "measured": {"splits": [1]}, "dataset": {}}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_receipt_is_refused_in_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (folder / "receipt.json").write_bytes(content)
    code, answer = verify(folder, capsys)
    assert code == 1
    assert answer["error"].startswith("error: ")
    assert "receipt" in answer["error"]


def test_files_that_are_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "receipt.json").unlink()
    assert "receipt.json" in verify(folder, capsys)[1]["error"]
