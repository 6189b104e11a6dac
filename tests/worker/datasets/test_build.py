"""Layouts, splits, bad images, and what the report says about them."""

import hashlib
import json
import unicodedata
import zipfile

import pytest

from app.errors import Problem
from app.spec.resources import DatasetSpec
from tests.worker.datasets.pictures import make_folder, make_tar, make_zip, photos, picture, two_classes
from worker.datasets.build import build_dataset
from worker.datasets.layout import arrange


def build(tmp_path, files, *, kind="zip", **spec):
    source = {"zip": make_zip, "tar": make_tar, "folder": make_folder}[kind](tmp_path / "source", files)
    where = {"folder": "registered"} if kind == "folder" else {"file": "photos.zip"}
    return build_dataset(DatasetSpec(**where, **spec), source, tmp_path / "out")


def rows(tmp_path):
    return json.loads((tmp_path / "out" / "index.json").read_text(encoding="utf-8"))["images"]


def refusal(tmp_path, files, **spec):
    with pytest.raises(Problem) as problem:
        build(tmp_path, files, **spec)
    assert problem.value.status == 422
    assert not (tmp_path / "out" / "pack").exists(), "a refused data set leaves nothing"
    assert not (tmp_path / "out" / "index.json").exists()
    return problem.value


# --- layouts ---


@pytest.mark.parametrize("kind", ["zip", "tar", "folder"])
@pytest.mark.parametrize("wrapper", ["", "photos/", "a/b/"])
def test_class_folders_in_splits(tmp_path, kind, wrapper):
    """The plain case, in every kind of source, with and without outer folders."""
    files = photos(
        *(
            f"{wrapper}{split}/{name}/{n}.jpg"
            for split in ("train", "val", "test")
            for name in ("dog", "cat")
            for n in range(2)
        )
    )
    report = build(tmp_path, files, kind=kind)
    assert report["class_names"] == ["cat", "dog"]
    assert report["layout"] == "class_folders"
    assert {split: part["num_images"] for split, part in report["splits"].items()} == {
        "train": 4,
        "val": 4,
        "test": 4,
    }
    assert report["splits"]["val"]["per_class"] == {"cat": 2, "dog": 2}
    assert report["warnings"] == []
    assert report["mean_image_size"] == {"height": 8, "width": 12}


def test_the_index_finds_every_image_in_the_pack(tmp_path):
    """Bytes as they were uploaded, rows sorted, digests of the bytes and of the splits as docs/formats.md has
    them."""
    files = two_classes("train/") | photos("val/cat/a.jpg", "val/dog/b.jpg", "unlabeled/c.jpg")
    report = build(tmp_path, files)
    pack = (tmp_path / "out" / "pack").read_bytes()
    found = rows(tmp_path)
    assert [(row["split"], row["path"]) for row in found] == sorted(
        (path.split("/")[0], path) for path in files
    )
    lines = ""
    for row in found:
        data = pack[row["offset"] : row["offset"] + row["nbytes"]]
        assert data == files[row["path"]]
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert row["label"] == {"cat": 0, "dog": 1}.get(row["path"].split("/")[1])
        if row["split"] == "train":
            lines += f"{row['path']} {row['label']} {row['sha256']}\n"
    assert report["splits"]["train"]["digest"] == hashlib.sha256(lines.encode()).hexdigest()
    assert sum(map(len, files.values())) == len(pack)


def test_a_folder_is_indexed_in_place(tmp_path):
    build(tmp_path, two_classes("train/") | two_classes("val/", 1), kind="folder")
    assert not (tmp_path / "out" / "pack").exists()
    assert all(row["offset"] is None for row in rows(tmp_path))


@pytest.mark.parametrize(
    ("folders", "split"),
    [
        (("train", "training", "Train"), "train"),
        (("val", "valid", "validation", "evaluation"), "val"),
        (("test", "testing", "TEST"), "test"),
        (("unlabeled", "unlabelled"), "unlabeled"),
    ],
)
def test_other_names_of_splits(tmp_path, folders, split):
    for number, folder in enumerate(folders):
        rest = {} if split == "train" else two_classes("train/")
        rest |= {} if split == "val" else two_classes("val/", 1)
        report = build(tmp_path / str(number), {**rest, **two_classes(f"{folder}/", 1)})
        assert report["splits"][split]["num_images"] == 2


def test_the_courses_flat_files(tmp_path):
    """food-11: eleven classes by number; 10 comes after 9, not after 1."""
    files = photos(
        *(
            f"food-11/{split}/{label}_{n}.jpg"
            for split in ("training", "validation")
            for label in range(11)
            for n in range(2)
        )
    )
    report = build(tmp_path, files)
    assert report["layout"] == "flat"
    assert report["class_names"] == [str(n) for n in range(11)]
    assert {row["path"]: row["label"] for row in rows(tmp_path)}["food-11/training/10_1.jpg"] == 10


def test_flat_files_with_words(tmp_path):
    report = build(tmp_path, photos(*(f"{name}_{n}.jpg" for name in ("old_dog", "cat") for n in range(5))))
    assert report["class_names"] == ["cat", "old_dog"]
    assert report["splits"]["train"]["per_class"] == {"cat": 3, "old_dog": 3}


def test_numbered_folders_sort_as_image_folder_does(tmp_path):
    """torchvision's ImageFolder sorts names as text; teachers were trained with it."""
    report = build(tmp_path, photos(*(f"train/{label}/{n}.jpg" for label in (0, 1, 2, 10) for n in range(3))))
    assert report["class_names"] == ["0", "1", "10", "2"]


def test_deeper_folders_belong_to_their_class(tmp_path):
    report = build(
        tmp_path,
        photos(
            "train/cat/x/1.jpg", "train/cat/2.jpg", "train/dog/y/z/3.jpg", "val/cat/4.jpg", "val/dog/5.jpg"
        ),
    )
    assert report["splits"]["train"]["per_class"] == {"cat": 2, "dog": 1}


def test_a_layout_that_is_asked_for_is_kept(tmp_path):
    assert refusal(tmp_path, two_classes("train/"), layout="flat").code == "NO_CLASSES"
    files = photos(
        *(f"train/{name}/{label}_{n}.jpg" for name in ("x", "y") for label in range(2) for n in range(2))
    )
    report = build(tmp_path / "flat", files, layout="flat")
    assert report["class_names"] == ["0", "1"]


@pytest.mark.parametrize(
    ("files", "code", "says"),
    [
        (photos("1.jpg", "2.jpg"), "NO_CLASSES", "1.jpg"),
        (photos("unlabeled/1.jpg"), "NO_CLASSES", "<class>/<image>"),
        (photos("cat/1.jpg", "cat/2.jpg"), "ONE_CLASS", "'cat'"),
        (photos("0_1.jpg", "0_2.jpg"), "ONE_CLASS", "'0'"),
        (two_classes("train/") | photos("test/001.jpg"), "NO_CLASSES", "unlabeled"),
        (two_classes("train/") | photos("val/cat/1.jpg", "val/cow/2.jpg"), "EMPTY_CLASS", "'cow'"),
        (two_classes("train/") | {"train/cow/": b""}, "EMPTY_CLASS", "'train/cow'"),
        (two_classes() | {"cow/": b""}, "EMPTY_CLASS", "'cow'"),
        (two_classes("train/") | two_classes("training/"), "LAYOUT_UNCLEAR", "keep one"),
        (two_classes("train/") | photos("more/1.jpg"), "LAYOUT_UNCLEAR", "more/1.jpg"),
        (two_classes("train/") | photos("cover.jpg"), "LAYOUT_UNCLEAR", "cover.jpg"),
        (two_classes("test/"), "NO_TRAIN_SPLIT", "train"),
        (photos(f"{'x' * 201}/1.jpg", "y/2.jpg"), "CLASS_NAME_TOO_LONG", "201"),
        ({"readme.txt": b"no pictures here"}, "NO_IMAGES", "1 other files"),
        ({}, "NO_IMAGES", "0 other files"),
    ],
)
def test_unclear_data_sets_are_refused_with_a_way_out(tmp_path, files, code, says):
    problem = refusal(tmp_path, files)
    assert problem.code == code
    assert says in problem.detail


def test_ten_thousand_classes_are_the_limit(tmp_path, monkeypatch):
    """With a smaller limit: the message names both numbers."""
    monkeypatch.setattr("worker.datasets.layout._MAX_CLASSES", 3)
    problem = refusal(tmp_path, photos(*(f"{n}/1.jpg" for n in range(4))))
    assert problem.code == "TOO_MANY_CLASSES"
    assert "4 classes; at most 3" in problem.detail


def test_unicode_class_names_are_one_however_they_are_written(tmp_path):
    """macOS writes é as two characters, Linux as one: train and val must agree."""
    composed, decomposed = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    assert composed != decomposed
    files = photos(f"train/{composed}/1.jpg", f"val/{decomposed}/2.jpg", "train/日本/3.jpg", "val/日本/4.jpg")
    for kind in ("zip", "tar", "folder"):
        report = build(tmp_path / kind, files, kind=kind)
        assert report["class_names"] == [composed, "日本"]


# --- splits ---


def test_without_split_folders_the_split_is_stratified(tmp_path):
    files = photos(*(f"cat/{n}.jpg" for n in range(40)), *(f"dog/{n}.jpg" for n in range(10)))
    report = build(tmp_path, files, val_fraction=0.2, test_fraction=0.1)
    assert {split: part["per_class"] for split, part in report["splits"].items()} == {
        "train": {"cat": 28, "dog": 7},
        "val": {"cat": 8, "dog": 2},
        "test": {"cat": 4, "dog": 1},
    }


def test_the_split_depends_on_the_seed_and_not_on_the_archive(tmp_path):
    files = photos(*(f"{name}/{n}.jpg" for name in ("cat", "dog") for n in range(20)))

    def splits(name, files, **spec):
        build(tmp_path / name, files, **spec)
        return {row["path"]: row["split"] for row in rows(tmp_path / name)}

    first = splits("a", files)
    assert splits("b", dict(reversed(files.items())), kind="tar") == first
    assert splits("c", files, split_seed=1) != first


def test_small_classes_keep_an_image_to_train_on(tmp_path):
    report = build(
        tmp_path, photos("cat/1.jpg", "dog/1.jpg", "dog/2.jpg", "cow/1.jpg", "cow/2.jpg", "cow/3.jpg")
    )
    assert all(report["splits"]["train"]["per_class"].values())
    assert report["splits"]["val"]["per_class"]["cow"] == report["splits"]["test"]["per_class"]["cow"] == 1
    assert any("In val 2 of 3 classes have no image" in warning for warning in report["warnings"])


def test_a_missing_val_is_carved_from_train_and_said(tmp_path):
    report = build(tmp_path, two_classes("train/", 10) | two_classes("test/", 2))
    assert {split: part["num_images"] for split, part in report["splits"].items()} == {
        "train": 18,
        "val": 2,
        "test": 4,
    }
    assert any("2 of 20 train images became val" in warning for warning in report["warnings"])
    assert {row["path"].split("/")[0] for row in rows(tmp_path) if row["split"] == "test"} == {"test"}


def test_unlabeled_beside_class_folders(tmp_path):
    report = build(tmp_path, two_classes("", 10) | photos("unlabeled/a/1.jpg", "unlabeled/2.jpg"))
    assert report["class_names"] == ["cat", "dog"]
    assert report["splits"]["unlabeled"]["num_images"] == 2
    assert report["splits"]["unlabeled"]["per_class"] == {}
    assert all(row["label"] is None for row in rows(tmp_path) if row["split"] == "unlabeled")


def test_copies_across_splits_and_classes_are_counted(tmp_path):
    files = two_classes("train/") | {"val/cat/other.jpg": picture(100), "val/dog/another.jpg": picture(101)}
    files |= {"val/cat/copy.jpg": files["train/cat/0.jpg"], "train/dog/copy.jpg": files["train/cat/1.jpg"]}
    report = build(tmp_path, files)
    assert report["duplicates_across_splits"] == 1
    assert any("1 images lie in more than one split" in warning for warning in report["warnings"])
    assert any("1 images lie in more than one class" in warning for warning in report["warnings"])


def test_our_own_split_keeps_copies_together(tmp_path):
    """Ten copies of each of four pictures a class: however they are cut, no picture is on both sides."""
    files = {
        f"{name}/{n}-{copy}.jpg": picture(n + offset)
        for name, offset in (("cat", 0), ("dog", 9))
        for n in range(4)
        for copy in range(10)
    }
    report = build(tmp_path, files, val_fraction=0.3, test_fraction=0.3)
    assert report["duplicates_across_splits"] == 0
    assert set(report["splits"]) == {"train", "val", "test"}


# --- files that are no images ---


def test_clutter_is_ignored_and_counted(tmp_path):
    clutter = {
        "__MACOSX/train/cat/._1.jpg": b"x",
        "train/.DS_Store": b"x",
        "train/cat/Thumbs.db": b"x",
        "train/cat/.hidden.jpg": picture(),
        "train/cat/notes.txt": b"x",
        "README.md": b"x",
        "LICENSE": b"",
    }
    report = build(tmp_path, two_classes("train/") | two_classes("val/", 1) | clutter)
    assert report["ignored_files"] == len(clutter)
    assert report["class_names"] == ["cat", "dog"]


_WEBP_CANVAS = bytes.fromhex("524946464000000057454250565038580a00000010000000ff3f00ff3f00") + bytes(40)
_PNG = picture(format="PNG")

BAD = {
    "text called jpg": (b"hello", "is no image"),
    "empty": (b"", "is empty"),
    "cut off": (picture(size=(300, 300))[:400], "cannot be decoded"),
    "a gif": (picture(format="GIF"), "is a GIF"),
    "a tiff": (picture(format="TIFF"), "is a TIFF"),
    "too many pixels": (picture(format="PNG", size=(5001, 5000)), "25,000,000"),
    "a strip": (picture(format="PNG", size=(1, 200)), "100 times"),
    "a WebP header of 16384 x 16384": (_WEBP_CANVAS, "16384x16384"),
    "a WebP cut in its header": (picture(format="WEBP")[:22], "cut off"),
    "a PNG with a broken checksum": (_PNG[:20] + b"\xff\xff" + _PNG[22:], "cannot be decoded"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_images_are_refused_by_name(tmp_path, what):
    content, says = BAD[what]
    problem = refusal(tmp_path, two_classes("train/") | {"train/cat/bad.jpg": content})
    assert problem.code == "TOO_MANY_BAD_IMAGES"
    assert "train/cat/bad.jpg" in problem.detail
    assert says in problem.detail
    assert "max_bad_images is 0" in problem.detail


def test_bad_images_up_to_the_limit_are_skipped_and_counted(tmp_path):
    bad = {f"train/cat/bad{n}.jpg": content for n, (content, _) in enumerate(BAD.values())}
    report = build(tmp_path, two_classes("train/", 20) | bad, max_bad_images=len(bad))
    assert report["bad_images"]["count"] == len(bad)
    assert len(report["bad_images"]["examples"]) == 5
    assert not any("bad" in row["path"] for row in rows(tmp_path))
    assert (
        refusal(tmp_path / "b", two_classes("train/", 20) | bad, max_bad_images=len(bad) - 1).code
        == "TOO_MANY_BAD_IMAGES"
    )


def test_a_class_of_bad_images_only_is_an_empty_class(tmp_path):
    problem = refusal(tmp_path, two_classes("train/") | {"train/cow/1.jpg": b"broken"}, max_bad_images=5)
    assert problem.code == "EMPTY_CLASS"
    assert "'train/cow'" in problem.detail


GOOD = {
    "PNG": picture(format="PNG"),
    "WebP": picture(format="WEBP"),
    "lossless WebP": picture(format="WEBP", lossless=True),
    "BMP": picture(format="BMP"),
    "grey": picture(format="PNG", mode="L"),
    "16-bit PNG": picture(format="PNG", mode="I;16"),
    "palette": picture(format="PNG", mode="P"),
    "palette with transparency": picture(format="PNG", mode="P", transparency=b"\x00\x80"),
    "alpha": picture(format="PNG", mode="RGBA"),
    "grey with alpha": picture(format="PNG", mode="LA"),
    "CMYK JPEG": picture(mode="CMYK"),
    "progressive JPEG": picture(progressive=True),
    "1 x 1": picture(format="PNG", size=(1, 1)),
    "a PNG called jpg": picture(format="PNG"),
}


@pytest.mark.parametrize("what", GOOD)
def test_ordinary_images_of_every_kind_are_taken(tmp_path, what):
    """By content: all of them are called .jpg here."""
    report = build(
        tmp_path, two_classes("train/") | two_classes("val/", 1) | {"train/cat/odd.jpg": GOOD[what]}
    )
    assert report["splits"]["train"]["num_images"] == 9
    assert report["bad_images"]["count"] == 0


def test_an_image_without_an_ending_is_found_by_its_content(tmp_path):
    report = build(tmp_path, two_classes("train/") | {"train/cat/photo": picture(77)})
    assert any(row["path"] == "train/cat/photo" for row in rows(tmp_path))
    assert report["ignored_files"] == 0


def test_progress_reaches_its_total(tmp_path):
    seen = []
    source = make_zip(tmp_path / "a.zip", two_classes("train/"))
    build_dataset(
        DatasetSpec(file="a.zip"), source, tmp_path / "out", progress=lambda *position: seen.append(position)
    )
    assert seen[-1] == (8, 8, "file")


# --- what is odd and taken, and said ---


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (("Cat", "cat", "dog"), ["Cat", "cat"]),
        (("big cat", "big  cat", "dog"), ["big  cat", "big cat"]),
        (("big cat", "big_cat", "dog"), ["big cat", "big_cat"]),
        (("cat", "cat\u200b", "dog"), ["cat", "cat\u200b"]),
        (("1", "01", "2"), ["01", "1"]),
        (("\ufb01sh", "fish", "dog"), ["fish", "\ufb01sh"]),
    ],
)
def test_class_names_that_people_read_as_one_are_warned_about(tmp_path, names, alike):
    files = photos(*(f"{name}/{k}-{n}.jpg" for k, name in enumerate(names) for n in range(4)))
    report = build(tmp_path, files)
    assert len(report["class_names"]) == 3
    assert [warning for warning in report["warnings"] if "nearly the same" in warning] == [
        f"The class names {alike} are nearly the same: are they one class?"
    ]
    assert all(warning.isprintable() for warning in report["warnings"])


def test_a_class_with_one_image_is_warned_about(tmp_path):
    report = build(tmp_path, two_classes("", 5) | {"cow/1.jpg": picture(99)})
    assert "1 classes have a single image to train on: ['cow']." in report["warnings"]


def test_tiny_images_are_warned_about(tmp_path):
    report = build(tmp_path, two_classes("", 5) | {"cat/dot.png": picture(99, "PNG", (1, 1))})
    assert "1 images have a side of less than 8 pixels, e.g. 'cat/dot.png'." in report["warnings"]


def test_archives_within_are_named(tmp_path):
    """By their first bytes or by their name; none is opened."""
    inner = make_zip(tmp_path / "inner", two_classes("", 9)).read_bytes()
    files = two_classes("", 5) | {"cat/more.zip": inner, "more.TAR.GZ": b"x", "notes.txt": b"x"}
    report = build(tmp_path, files)
    assert (report["ignored_files"], report["ignored_archives"]) == (3, 2)
    assert any("2 archives lie in it, e.g. 'cat/more.zip'" in warning for warning in report["warnings"])
    assert "more.zip" in refusal(tmp_path / "alone", {"more.zip": inner}).detail


def test_copies_are_listed_up_to_five(tmp_path):
    files = two_classes("train/", 8)
    files |= {path.replace("train", "val"): content for path, content in files.items()}
    report = build(tmp_path, files)
    assert report["duplicates_across_splits"] == 16
    assert report["duplicate_examples"] == [[f"train/cat/{n}.jpg", f"val/cat/{n}.jpg"] for n in range(5)]


def test_bad_images_are_counted_by_class(tmp_path):
    files = two_classes("train/") | two_classes("val/", 2)
    bad = ("train/cat/x.jpg", "val/cat/y.jpg", "train/dog/z.jpg", "unlabeled/u.jpg", "test/cat/1.jpg")
    report = build(tmp_path, files | dict.fromkeys(bad, b"broken"), max_bad_images=5)
    assert report["bad_images"]["count"] == 5
    assert report["bad_images"]["per_class"] == {"cat": 3, "dog": 1}


def test_a_flat_class_of_bad_images_only_is_an_empty_class(tmp_path):
    """Left out, it would shift the labels of 3."""
    files = photos(*(f"{label}_{n}.jpg" for label in (0, 1, 3) for n in range(3)))
    problem = refusal(tmp_path, files | {"2_0.jpg": b"broken"}, max_bad_images=9)
    assert problem.code == "EMPTY_CLASS"
    assert "'2'" in problem.detail
    assert "'2_0.jpg'" in problem.detail


def test_names_in_two_cases_are_two_files_in_the_operators_folder(tmp_path):
    """Its disk keeps them apart; who unpacks an archive on another loses one."""
    files = photos("A/1.jpg", "a/1.jpg", "A/2.jpg", "a/2.jpg")
    (tmp_path / "PROBE").touch()
    if (tmp_path / "probe").exists():
        pytest.skip("this disk does not tell them apart")
    assert build(tmp_path / "folder", files, kind="folder")["class_names"] == ["A", "a"]
    problem = refusal(tmp_path / "zip", files)
    assert problem.code == "ARCHIVE_UNSAFE"
    assert "'A/1.jpg' and 'a/1.jpg'" in problem.detail


def test_names_are_shown_with_everything_invisible_escaped(tmp_path):
    problem = refusal(tmp_path, two_classes() | {"cat/a\u200bb\u00ad.jpg": b"broken"})
    assert "'cat/a\\u200bb\\xad.jpg'" in problem.detail


def test_10_001_classes(tmp_path):
    with pytest.raises(Problem) as problem:
        arrange([f"{n}/1.jpg" for n in range(10_001)], (), "auto")
    assert problem.value.code == "TOO_MANY_CLASSES"
    assert len(arrange([f"{n}/1.jpg" for n in range(10_000)], (), "auto").class_names) == 10_000


def test_an_image_of_more_than_64_mib_is_bad(tmp_path):
    files = two_classes() | {"cat/huge.png": picture(1, "PNG") + bytes(64 << 20)}
    source = make_zip(tmp_path / "a.zip", files, zipfile.ZIP_STORED)
    report = build_dataset(DatasetSpec(file="a.zip", max_bad_images=1), source, tmp_path / "out")
    assert "67108864 bytes" in report["bad_images"]["examples"][0]["reason"]
