"""A registered data set as the arrays that networks are trained and measured on."""

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from app.errors import Problem
from app.spec.base import Split
from models.load_artifact import resize_and_crop
from worker.datasets.images import open_image, quiet_pillow
from worker.datasets.report import split_digest
from worker.whole_files import reserve

_Rows = list[dict[str, Any]]


class ImageData:
    """The splits of an index, decoded once per input geometry into a file of uint8 arrays (implements
    `worker.run.Data`).

    `source`: the pack, or the folder that was indexed. `class_names`: the order of the networks' outputs when
    it is not the index's own. Any number of processes may share `cache_dir`: a file appears there whole or
    not at all.
    """

    def __init__(
        self,
        index: Path,
        source: Path,
        cache_dir: Path,
        *,
        class_names: list[str] | None = None,
        num_threads: int | None = None,
    ) -> None:
        content = json.loads(index.read_text(encoding="utf-8"))
        self.class_names: list[str] = class_names or content["class_names"]
        if sorted(self.class_names) != sorted(content["class_names"]):
            raise Problem(
                422,
                "CLASSES_DIFFER",
                f"The classes asked for, {self.class_names[:5]}, are not those of the data set, "
                f"{content['class_names'][:5]}.",
            )
        outputs = {name: output for output, name in enumerate(self.class_names)}
        self._output_of = [outputs[name] for name in content["class_names"]]
        self._rows: dict[str, _Rows] = {}
        for row in content["images"]:
            self._rows.setdefault(row["split"], []).append(row)
        self._source = source
        self._cache_dir = cache_dir
        self._num_threads = num_threads or os.cpu_count() or 1

    @property
    def class_order(self) -> list[int] | None:
        """For each class of the index, in its order, the output that means it; None where the two orders are one."""
        return self._output_of if self._output_of != sorted(self._output_of) else None

    def has(self, split: Split) -> bool:
        return split in self._rows

    def num_images(self, split: Split) -> int:
        return len(self._rows.get(split, []))

    def digest(self, split: Split) -> str:
        """As in the data set's report: by the index's own labels, whatever the order of the outputs."""
        return split_digest((row["path"], row["label"], row["sha256"]) for row in self._rows[split])

    def labels(self, split: Split) -> torch.Tensor:
        """int64 [N]; -1 where an image has none."""
        return torch.tensor(
            [-1 if row["label"] is None else self._output_of[row["label"]] for row in self._rows[split]]
        )

    def paths(self, split: Split) -> list[str]:
        """As the index has them: relative to the archive or the folder."""
        return [row["path"] for row in self._rows[split]]

    def images(self, split: Split, preprocessing: dict[str, Any]) -> torch.Tensor:
        """uint8 [N, 3, H, W], resized and cropped; mapped from a file, so only what is read takes memory."""
        rows = self._rows[split]
        shape = (len(rows), *self._decode(rows[0], preprocessing).shape)
        path = self._cache_dir / f"{_cache_key(self.digest(split), preprocessing)}.u8"
        num_bytes = torch.Size(shape).numel()
        while not _use(path, num_bytes):
            self._cache_dir.mkdir(parents=True, exist_ok=True)
            with _appears_whole(path, num_bytes) as unfinished:
                self._decode_all(
                    rows,
                    preprocessing,
                    torch.from_file(unfinished, shared=True, size=num_bytes, dtype=torch.uint8).view(shape),
                )
        # Private: a stray in-place operation must not reach the file that other jobs read.
        return torch.from_file(str(path), shared=False, size=num_bytes, dtype=torch.uint8).view(shape)

    def _decode_all(self, rows: _Rows, preprocessing: dict[str, Any], images_NCHW: torch.Tensor) -> None:
        def decode_into(index: int) -> None:
            images_NCHW[index] = self._decode(rows[index], preprocessing)

        with quiet_pillow(), ThreadPoolExecutor(self._num_threads) as pool:
            for _ in pool.map(decode_into, range(len(rows))):
                pass

    def _decode(self, row: dict[str, Any], preprocessing: dict[str, Any]) -> torch.Tensor:
        with open_image(self._read(row)) as image:
            return resize_and_crop(image, preprocessing)

    def _read(self, row: dict[str, Any]) -> bytes:
        if row["offset"] is not None:
            with self._source.open("rb") as pack:
                return os.pread(pack.fileno(), row["nbytes"], row["offset"])
        path = self._source / row["path"]
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise Problem(
                422,
                "DATASET_CHANGED",
                f"The image {row['path']!r} is not what it was when the folder was registered: "
                "register the folder again.",
            )
        return data


def _cache_key(digest: str, preprocessing: dict[str, Any]) -> str:
    """Mean and std do not change the bytes, so networks that differ only there share a file."""
    geometry = {key: preprocessing.get(key) for key in ("resize", "crop", "interpolation")}
    return hashlib.sha256(f"{digest} {json.dumps(geometry, sort_keys=True)}".encode()).hexdigest()


# Decoded images that this process uses, open and locked until it ends.
_IN_USE: dict[Path, int] = {}


def _use(path: Path, num_bytes: int) -> bool:
    """Whether the file is there; it is then kept as long as this process lives, and some days longer.

    The collector deletes nothing that is locked or new (`app.storage.leftovers.decoded_images`).
    """
    if path not in _IN_USE:
        try:
            _IN_USE[path] = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        fcntl.flock(_IN_USE[path], fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            os.utime(path)
    status = os.fstat(_IN_USE[path])
    if status.st_nlink and status.st_size == num_bytes:
        return True
    os.close(_IN_USE.pop(path))  # deleted before it was locked, or of another shape
    return False


@contextmanager
def _appears_whole(path: Path, num_bytes: int) -> Iterator[str]:
    """A temporary file of that size that takes the name `path` once it is complete and on the disk; removed when the
    block fails. Its room is taken beforehand: a full disk met through the mapping would kill the process."""
    # Not by the process's id: threads may decode the same images at once.
    handle, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            reserve(file, num_bytes)
            yield unfinished
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise
