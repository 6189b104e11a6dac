"""From the pack to arrays: the reader's own pixels, decoded once, whatever else runs at the same time."""

import io
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from app.errors import Problem
from app.spec.resources import DatasetSpec
from models.load_artifact import resize_and_crop
from tests.worker.datasets.pictures import make_folder, make_zip, photos, picture
from worker.datasets.build import build_dataset
from worker.datasets.image_data import ImageData

PREPROCESSING = {"resize": 10, "crop": 8, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}


def _turned() -> bytes:
    """A photo whose upper half is red, stored lying on its side as cameras do."""
    image = Image.new("RGB", (40, 20), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    return file.getvalue()


FILES = {
    **photos(*(f"train/{name}/{n}.jpg" for name in ("cat", "dog") for n in range(3))),
    **photos("unlabeled/x.jpg"),
    "val/cat/grey16.png": picture(3, "PNG", mode="I;16"),
    "val/cat/turned.png": _turned(),
    "val/dog/cmyk.jpg": picture(4, "JPEG", mode="CMYK"),
    "val/dog/palette.png": picture(5, "PNG", mode="P"),
}


@pytest.fixture
def built(tmp_path):
    build_dataset(DatasetSpec(file="a.zip"), make_zip(tmp_path / "a.zip", FILES), tmp_path / "out")
    return tmp_path / "out"


def make_data(built: Path, **changes) -> ImageData:
    return ImageData(built / "index.json", built / "pack", built / "cache", **changes)


@pytest.mark.parametrize("split", ["train", "val", "unlabeled"])
def test_images_are_the_readers_pixels_in_the_indexs_order(built, split):
    data = make_data(built)
    images = data.images(split, PREPROCESSING)
    names = sorted(name for name in FILES if name.startswith(split))
    expected = [resize_and_crop(Image.open(io.BytesIO(FILES[name])), PREPROCESSING) for name in names]
    assert images.dtype == torch.uint8
    assert torch.equal(images, torch.stack(expected))
    assert images.shape == (data.num_images(split), 3, 8, 8)


def test_a_turned_photo_stands_upright(built):
    images = make_data(built).images("val", {**PREPROCESSING, "resize": [40, 20], "crop": None})
    turned = images[1].float()  # sorted: grey16, turned
    assert turned[0, :18].min() > 200
    assert turned[2, 22:].min() > 200


def test_labels_and_splits(built):
    data = make_data(built)
    assert data.labels("train").tolist() == [0, 0, 0, 1, 1, 1]
    assert data.labels("unlabeled").tolist() == [-1]
    assert data.labels("train").dtype == torch.int64
    assert data.has("val")
    assert not data.has("test")
    assert data.num_images("test") == 0


def test_labels_follow_the_order_of_the_outputs(built):
    """A teacher whose first output is the dog; the split stays the same split, so its digest does, too."""
    data = make_data(built, class_names=["dog", "cat"])
    assert data.class_names == ["dog", "cat"]
    assert data.labels("train").tolist() == [1, 1, 1, 0, 0, 0]
    assert data.digest("train") == make_data(built).digest("train")


def test_other_classes_are_refused(built):
    with pytest.raises(Problem, match="CLASSES_DIFFER"):
        make_data(built, class_names=["dog", "cow"])


def test_digests_are_those_of_the_report(tmp_path):
    report = build_dataset(DatasetSpec(file="a.zip"), make_zip(tmp_path / "a.zip", FILES), tmp_path / "out")
    data = make_data(tmp_path / "out")
    assert {split: data.digest(split) for split in report["splits"]} == {
        split: part["digest"] for split, part in report["splits"].items()
    }


def test_decoded_once_per_geometry(built):
    """Mean and std do not matter to the file, resize and crop do."""
    data = make_data(built)
    first = data.images("train", PREPROCESSING)
    (cached,) = (built / "cache").iterdir()
    written = cached.stat().st_mtime_ns
    again = data.images("train", {**PREPROCESSING, "mean": [0.1, 0.2, 0.3]})
    assert cached.stat().st_mtime_ns == written
    assert torch.equal(first, again)
    data.images("train", {**PREPROCESSING, "crop": 6})
    assert len(list((built / "cache").iterdir())) == 2


def test_writing_to_an_array_never_reaches_the_file(built):
    data = make_data(built)
    images = data.images("train", PREPROCESSING)
    before = images.clone()
    images.zero_()
    assert torch.equal(make_data(built).images("train", PREPROCESSING), before)


def test_a_cut_cache_file_is_made_again(built):
    data = make_data(built)
    before = data.images("train", PREPROCESSING).clone()
    (cached,) = (built / "cache").iterdir()
    os.truncate(cached, 100)
    assert torch.equal(data.images("train", PREPROCESSING), before)


def _read(built: Path) -> int:
    return int(make_data(built).images("train", PREPROCESSING).sum())


def test_two_processes_at_once(built):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.map(_read, [built] * 4)
    assert sums == [int(make_data(built).images("train", PREPROCESSING).sum())] * 4
    assert [path.suffix for path in (built / "cache").iterdir()] == [".u8"]


def test_a_failed_decoding_leaves_no_file(built):
    (built / "pack").write_bytes(bytes((built / "pack").stat().st_size))
    with pytest.raises(OSError, match="cannot identify image"):
        make_data(built).images("train", PREPROCESSING)
    assert not (built / "cache").exists() or not list((built / "cache").iterdir())


def test_a_registered_folder_that_changed_is_noticed(tmp_path):
    folder = make_folder(tmp_path / "photos", FILES)
    build_dataset(DatasetSpec(folder="photos"), folder, tmp_path / "out")
    data = ImageData(tmp_path / "out" / "index.json", folder, tmp_path / "cache")
    assert data.images("train", PREPROCESSING).shape == (6, 3, 8, 8)
    (folder / "val/dog/cmyk.jpg").write_bytes(picture(99))
    with pytest.raises(Problem, match="DATASET_CHANGED"):
        data.images("val", PREPROCESSING)
    (folder / "val/dog/cmyk.jpg").unlink()
    with pytest.raises(Problem, match=r"val/dog/cmyk\.jpg"):
        data.images("val", PREPROCESSING)
    assert len(list((tmp_path / "cache").iterdir())) == 1, "no half-written file stays"
