"""A few of the damaged files that `make fuzz` makes by the thousand: each ends in a verdict of its own, in time."""

from tests.fuzz import archives, images


def test_damaged_images_are_good_or_bad() -> None:
    assert images.fuzz(500, seed=7).startswith("images: 500 files")


def test_damaged_archives_are_taken_or_refused() -> None:
    assert archives.fuzz(500, seed=7).startswith("archives: 500 files")
