"""What a teacher said of each view of each image, kept in a file so that it is computed once.

Keyed by the image *and* the view: labels of another view than the student's teach it wrong.
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from worker.whole_files import reserve

_WORDS = {torch.float32: torch.int32, torch.float16: torch.int16}


class LabelCache:
    """A mapped file of [views, images, classes] values, each row followed by its checksum.

    A process that is killed leaves whole rows, and a machine that goes down leaves rows whose checksum is wrong: they
    count as missing. `dtype`: how values are stored; what is read has gone through it.
    """

    def __init__(
        self,
        path: Path,
        *,
        num_views: int,
        num_images: int,
        num_classes: int,
        dtype: Literal["float32", "float16"],
    ) -> None:
        self._dtype: torch.dtype = getattr(torch, dtype)
        words = _WORDS[self._dtype]
        shape = torch.Size([num_views, num_images, num_classes + 1])
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            reserve(file, shape.numel() * words.itemsize)
        self._words_VMK = torch.from_file(str(path), shared=True, size=shape.numel(), dtype=words).view(shape)

    def read(self, view: int, indices_N: Tensor) -> tuple[Tensor, Tensor]:
        """Values [N, C] of these images in this view, and bool [N]: which of them are there."""
        words_NK = self._words_VMK[view][indices_N]
        values_NC = words_NK[:, :-1].contiguous().view(self._dtype)
        return values_NC, words_NK[:, -1] == _checksum(words_NK[:, :-1])

    def write(self, view: int, indices_N: Tensor, values_NC: Tensor) -> None:
        words_NC = values_NC.to(self._dtype).contiguous().view(self._words_VMK.dtype)
        self._words_VMK[view][indices_N] = torch.cat([words_NC, _checksum(words_NC)[:, None]], dim=1)

    @property
    def num_rows(self) -> int:
        """How many rows are there."""
        return sum(
            int((words_NK[:, -1] == _checksum(words_NK[:, :-1])).sum()) for words_NK in self._words_VMK
        )


def _checksum(words_NC: Tensor) -> Tensor:
    """The sum of the words plus one, so that a row of zeros, which a new file has, is no row."""
    return (words_NC.sum(dim=1, dtype=torch.int64) + 1).to(words_NC.dtype)
