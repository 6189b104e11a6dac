"""Which classes a network takes for which: counts of a labelled split, by true and by answered class."""

from typing import Any

from torch import Tensor

MOST_CLASSES = 100
"""Up to so many classes a stage's record has the whole matrix: 10,000 small numbers. Beyond, each class's own."""


def confusion(logits_NC: Tensor, labels_N: Tensor) -> dict[str, Any]:
    """`num_images` and `num_correct` of each class, in the order of the outputs, and `counts`: rows are true classes,
    columns answers; null for more than `MOST_CLASSES` classes. Images of which nothing is known (NaN) do not count."""
    is_known_N = ~logits_NC.isnan().any(1)
    labels_N, answers_N = labels_N[is_known_N], logits_NC[is_known_N].argmax(1)
    num_classes = logits_NC.shape[1]
    counts = None
    if num_classes <= MOST_CLASSES:
        pairs_N = labels_N * num_classes + answers_N
        counts = pairs_N.bincount(minlength=num_classes**2).view(num_classes, num_classes).tolist()
    return {
        "num_images": labels_N.bincount(minlength=num_classes).tolist(),
        "num_correct": labels_N[answers_N == labels_N].bincount(minlength=num_classes).tolist(),
        "counts": counts,
    }
