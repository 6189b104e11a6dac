"""What a network is trained on: a share of the images, blends of two, parts of a batch."""

import torch

from tests.worker.fakes import PREPROCESSING, MemoryData
from worker.training.batches import TrainingImages

CPU = torch.device("cpu")
OTHER_SIZE = {**PREPROCESSING, "resize": [16, 16], "mean": [0.4] * 3}


def _images(data: MemoryData, splits=("train",), *, batch_size=8, seed=0, **options) -> TrainingImages:
    return TrainingImages(data, splits, batch_size=batch_size, seed=seed, device=CPU, **options)


def _an_epoch(images: TrainingImages, epoch: int = 0) -> list[int]:
    first = epoch * images.steps_per_epoch
    steps = range(first, first + images.steps_per_epoch)
    return torch.cat([images.batch(step, "none").indices_N for step in steps]).tolist()


def test_a_share_is_taken_of_every_class_and_of_the_unlabelled_of_every_split():
    """40 labelled images of 3 classes (14, 13, 13) and 10 without labels; a quarter rounds to 4, 3, 3 and 2."""
    data = MemoryData(train=30, val=10, unlabeled=10)
    images = _images(data, ("train", "val", "unlabeled"), train_fraction=0.25)
    used = _an_epoch(images)
    labels = images.labels_N[used]
    assert [int((labels == label).sum()) for label in (0, 1, 2, -1)] == [4, 3, 3, 2]
    assert images.num_images == len(used) == len(set(used)) == 12
    assert sorted(used) == sorted(_an_epoch(images, epoch=1))


def test_a_tiny_share_keeps_one_image_a_class():
    images = _images(MemoryData(train=30), train_fraction=0.001)
    assert sorted(images.labels_N[_an_epoch(images)].tolist()) == [0, 1, 2]


def test_the_same_seed_takes_the_same_images_and_more_of_them_when_the_share_grows():
    data = MemoryData(train=60)
    tenth, half = (_images(data, train_fraction=share) for share in (0.1, 0.5))
    assert set(_an_epoch(tenth)) == set(_an_epoch(_images(data, train_fraction=0.1)))
    assert set(_an_epoch(tenth)) < set(_an_epoch(half))
    assert set(_an_epoch(half)) != set(_an_epoch(_images(data, train_fraction=0.5, seed=1)))


def test_the_share_is_part_of_what_identifies_the_images():
    data = MemoryData(train=24)
    assert _images(data, train_fraction=0.5).digests != _images(data).digests
    assert _images(data, train_fraction=0.5).digests != _images(data, train_fraction=0.5, seed=1).digests


def test_the_whole_is_what_it_was_without_a_share():
    data = MemoryData(train=24)
    assert _an_epoch(_images(data, train_fraction=1.0)) == _an_epoch(_images(data))


def test_images_shown_are_counted_as_they_come():
    """25 images in batches of 8: the one left over is not shown; in batches of 7 the four left over are."""
    for batch_size in (8, 7, 64):
        images = _images(MemoryData(train=25), batch_size=batch_size)
        for num_steps in range(9):
            shown = sum(len(images.batch(step, "none").indices_N) for step in range(num_steps))
            assert images.num_images_in(num_steps) == shown, (batch_size, num_steps)


def test_mixup_blends_pixels_and_names_the_partners_label():
    """Against the plain batch, blended by hand; a network of another size sees the same pairs and share."""
    data = MemoryData(train=24)
    plain, mixed = _images(data).batch(2, "light"), _images(data, mixup=1.0).batch(2, "light")
    share, partner_N = mixed.mixup.share, mixed.mixup.partner_N
    assert 0 < share < 1
    assert sorted(partner_N.tolist()) == list(range(8))
    assert torch.equal(mixed.mixup.partner_labels_N, plain.labels_N[partner_N])
    for preprocessing in (PREPROCESSING, OTHER_SIZE):
        own = _images(data).pixels(plain, preprocessing)
        expected = share * own + (1 - share) * own[partner_N]
        torch.testing.assert_close(_images(data, mixup=1.0).pixels(mixed, preprocessing), expected)


def test_shares_follow_the_beta_distribution():
    """Beta(0.2, 0.2): mean 1/2, variance 1 / (4 * (2 * 0.2 + 1)) = 0.1786 (2000 draws: within 0.01)."""
    images = _images(MemoryData(train=4), batch_size=2, mixup=0.2)
    shares = torch.tensor([images.batch(step, "none").mixup.share for step in range(2000)])
    assert abs(shares.mean() - 0.5) < 0.03
    assert abs(shares.var() - 0.1786) < 0.01


def test_a_step_draws_the_same_blend_again_and_every_step_another():
    images = _images(MemoryData(train=24), mixup=0.4)
    again = _images(MemoryData(train=24), mixup=0.4)
    assert images.batch(5, "none").mixup.share == again.batch(5, "none").mixup.share
    assert torch.equal(images.batch(5, "none").mixup.partner_N, again.batch(5, "none").mixup.partner_N)
    assert images.batch(4, "none").mixup.share != images.batch(5, "none").mixup.share


def test_a_part_has_the_pixels_of_its_rows():
    """With views and blends: partners may lie in another part."""
    images = _images(MemoryData(train=24), mixup=1.0)
    batch = images.batch(0, "strong")
    for preprocessing in (PREPROCESSING, OTHER_SIZE):
        whole = images.pixels(batch, preprocessing)
        parts = [images.pixels(batch.part(rows), preprocessing) for rows in (slice(0, 3), slice(3, 8))]
        assert torch.equal(torch.cat(parts), whole)
    part = batch.part(slice(3, 8))
    assert torch.equal(part.labels_N, batch.labels_N[3:8])
    assert torch.equal(part.mixup.partner_labels_N, batch.mixup.partner_labels_N[3:8])
    assert torch.equal(part.view.radians_N, batch.view.radians_N[3:8])
