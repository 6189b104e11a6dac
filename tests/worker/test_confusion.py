"""Confusion by class, against a naive loop."""

import pytest
import torch

from worker import confusion as module
from worker.confusion import confusion


def example(num_classes: int = 4, num_images: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits_NC = torch.randn(num_images, num_classes, generator=generator)
    labels_N = torch.randint(
        0, num_classes - 1, (num_images,), generator=generator
    )  # the last class has none
    return logits_NC, labels_N


def test_rows_are_true_classes_and_columns_answers() -> None:
    """Every image counted once, where a loop over the images puts it."""
    logits_NC, labels_N = example()
    counts = [[0] * 4 for _ in range(4)]
    for logits, label in zip(logits_NC.tolist(), labels_N.tolist(), strict=True):
        counts[label][logits.index(max(logits))] += 1
    found = confusion(logits_NC, labels_N)
    assert found["counts"] == counts
    assert found["num_images"] == [sum(row) for row in counts]
    assert found["num_correct"] == [counts[k][k] for k in range(4)]
    assert found["num_images"][3] == 0


def test_images_of_which_nothing_is_known_do_not_count() -> None:
    """A table of soft labels has no row for some images."""
    logits_NC, labels_N = example()
    logits_NC[::3] = float("nan")
    is_known_N = torch.arange(len(labels_N)) % 3 != 0
    assert confusion(logits_NC, labels_N) == confusion(logits_NC[is_known_N], labels_N[is_known_N])


def test_many_classes_have_their_own_counts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrix of 10,000 classes would be 100 million numbers in every record."""
    logits_NC, labels_N = example()
    whole = confusion(logits_NC, labels_N)
    monkeypatch.setattr(module, "MOST_CLASSES", 3)
    assert confusion(logits_NC, labels_N) == whole | {"counts": None}
