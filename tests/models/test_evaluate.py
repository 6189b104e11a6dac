"""Accuracy: the service's call and the command line, a lone copy of the reader, give the same numbers."""

import csv
import json
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

import models
from tests.models.conftest import CLASS_NAMES, PREPROCESSING, noise_photo

NUM_PHOTOS = 70  # more than one batch of 64, and not a multiple


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """test/<class>/<n>.png for three classes, one of them in decomposed Unicode, and one photo in train."""
    root = tmp_path / "photos"
    for number in range(NUM_PHOTOS):
        name = unicodedata.normalize("NFD", CLASS_NAMES[number % 3])
        folder = root / "test" / name
        folder.mkdir(parents=True, exist_ok=True)
        noise_photo(20 + number % 7, 24, seed=number).save(folder / f"{number:03}.png")
    (root / "train" / "hat").mkdir(parents=True)
    noise_photo(20, 20).save(root / "train" / "hat" / "0.png")
    (root / "test" / "hat" / ".DS_Store").write_bytes(b"")
    return root


@pytest.fixture
def alone(tmp_path: Path, small: models.Network) -> Path:
    """A folder with a copy of the reader and a packed network, and nothing else."""
    folder = tmp_path / "alone"
    folder.mkdir()
    reader = Path(models.load_artifact.__file__)
    (folder / "load_artifact.py").write_bytes(reader.read_bytes())
    metrics = {"test": {"accuracy": 0.5}}
    models.save(
        small, folder / "model.pt", preprocessing=PREPROCESSING, class_names=CLASS_NAMES, metrics=metrics
    )
    return folder


def _run(folder: Path, *arguments: object, ok: bool = True) -> str:
    """The command in a process that sees neither this project nor numpy."""
    (folder / "numpy.py").write_text("raise ModuleNotFoundError('no numpy here')")
    command = [sys.executable, "load_artifact.py", *map(str, arguments)]
    environment = {"PATH": "", "PYTHONUTF8": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert (done.returncode == 0) == ok, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if ok else done.stderr


def _in_memory(photos: Path, small: models.Network) -> models.load_artifact.Score:
    """As the service does it: the split's photos decoded into one tensor, in the order of their paths."""
    found = []
    for path in (photos / "test").rglob("*.png"):
        relative = unicodedata.normalize("NFC", path.relative_to(photos).as_posix())
        found.append((relative, CLASS_NAMES.index(relative.split("/")[1]), path))
    images = torch.stack(
        [models.resize_and_crop(Image.open(path), PREPROCESSING) for *_, path in sorted(found)]
    )
    labels = torch.tensor([label for _, label, _ in sorted(found)])
    return models.evaluate(small, images, labels, PREPROCESSING)


def test_evaluate_equals_one_image_at_a_time(small: models.Network) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (70, 3, 16, 16), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 3, (70,), generator=generator)
    small.train()
    score = models.evaluate(small, images, labels, PREPROCESSING)
    assert small.training
    small.eval()
    correct, total = 0, 0.0
    for image, label in zip(images, labels, strict=True):
        with torch.no_grad():
            logits = small(models.normalise(image[None], PREPROCESSING))[0]
        correct += int(logits.argmax() == label)
        total -= float(logits.double().log_softmax(0)[label])
    assert score.num_correct == correct
    assert score.num_images == 70
    assert score.accuracy == correct / 70
    assert score.cross_entropy == pytest.approx(total / 70, rel=1e-6)
    with pytest.raises(ValueError, match="no images"):
        models.evaluate(small, images[:0], labels[:0], PREPROCESSING)


def test_the_command_gives_exactly_the_services_numbers(
    photos: Path, alone: Path, small: models.Network, tmp_path: Path
) -> None:
    """From a folder, from a zip of it, and from a listing: one and the same score."""
    expected = _in_memory(photos, small)
    answer = json.loads(_run(alone, "model.pt", "evaluate", photos, "--split", "test", "--json"))
    assert answer == {**expected._asdict(), "accuracy": expected.accuracy}

    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted(photos.rglob("*.png"), reverse=True):
            target.write(path, path.relative_to(photos).as_posix())
    assert json.loads(_run(alone, "--json", "model.pt", "evaluate", archive, "--split", "test")) == answer

    listing = tmp_path / "test.csv"
    with listing.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        for path in photos.rglob("test/*/*.png"):
            relative = unicodedata.normalize("NFC", path.relative_to(photos).as_posix())
            rows.writerow([relative, relative.split("/")[1]])
    assert json.loads(_run(alone, "model.pt", "evaluate", photos, "--files", listing, "--json")) == answer

    text = _run(alone, "model.pt", "evaluate", photos / "test")
    assert f"{expected.num_correct} of {NUM_PHOTOS} images" in text


def test_the_command_tells_what_a_file_holds(alone: Path, small: models.Network) -> None:
    text = _run(alone, "model.pt", "info")
    assert "café" in text
    answer = json.loads(_run(alone, "model.pt", "info", "--json"))
    assert answer["num_parameters"] == sum(p.numel() for p in small.parameters())
    assert answer["size_bytes"] == (alone / "model.pt").stat().st_size
    assert answer["metrics"] == {"test": {"accuracy": 0.5}}


def test_the_command_shows_the_graph(alone: Path, small: models.Network) -> None:
    """What a job takes as `student.graph`."""
    assert json.loads(_run(alone, "model.pt", "graph")) == small.graph


def test_the_command_classifies_photos(photos: Path, alone: Path, small: models.Network) -> None:
    photo = photos / "train" / "hat" / "0.png"
    (guess,) = json.loads(_run(alone, "model.pt", "classify", photo, "--top", 2, "--json"))
    with torch.no_grad():
        pixels = models.resize_and_crop(noise_photo(20, 20), PREPROCESSING)
        probabilities = small.eval()(models.normalise(pixels[None], PREPROCESSING))[0].softmax(0)
    best = int(probabilities.argmax())
    assert guess["top"][0] == {"class": CLASS_NAMES[best], "probability": float(probabilities[best])}
    assert len(guess["top"]) == 2
    assert CLASS_NAMES[best] in _run(alone, "model.pt", "classify", photo)


def test_the_command_says_what_is_wrong(
    photos: Path, alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def complaint(*arguments: object) -> str:
        assert models.load_artifact.main(list(map(str, arguments))) == 1
        return capsys.readouterr().err

    model = alone / "model.pt"
    assert "--split" in complaint(model, "evaluate", photos)
    (photos / "test" / "boat").mkdir()
    noise_photo(9, 9).save(photos / "test" / "boat" / "1.png")
    assert "folder 'test/boat' is no class" in complaint(model, "evaluate", photos, "--split", "test")
    assert "no photos at val/" in complaint(model, "evaluate", photos, "--split", "val")
    listing = tmp_path / "list.csv"
    listing.write_text("path,label\ntest/hat/missing.png,hat\n")
    assert "missing.png" in complaint(model, "evaluate", photos, "--files", listing)
    listing.write_text("path,label\ntest/hat/missing.png,boat\n")
    assert "line 2: 'boat' is no class" in complaint(model, "evaluate", photos, "--files", listing)
    listing.write_text("file,label\n")
    assert "path and label" in complaint(model, "evaluate", photos, "--files", listing)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    assert "broken.jpg cannot be read" in complaint(model, "classify", broken)
    assert "neither a folder nor a zip" in complaint(model, "evaluate", tmp_path / "nowhere")
    assert "cannot be opened" in complaint(broken, "info")


def test_the_command_has_help(alone: Path) -> None:
    assert "usage: load_artifact.py" in _run(alone, "--help")
    assert "--files" in _run(alone, "model.pt", "evaluate", "--help")
