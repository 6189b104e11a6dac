"""Damaged checkpoints through the gate: a canonical file or Refused, in time, and nothing else.

Half of the zip files are changed within their pickle and packed again with the right checksums, so that the change gets to
the walker. What is let in must be a file that safetensors opens, and that the gate gives back to the byte.
"""

import io
import random
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from tests.corpus import checkpoints
from tests.corpus.checkpoints.calls import saved
from tests.fuzz.damage import damaged
from worker.gate import Refused, admit

SECONDS_EACH = 5.0
_MAX_SEED_BYTES = 16 << 10


def fuzz(num: int, seed: int = 0) -> str:
    """Admit `num` files; returns a line that sums up. Raises AssertionError for a file that takes too long or is let in
    although it is not sound, and whatever else than Refused the gate raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, about the old formats that it writes
        seeds = [content for content in _seeds() if len(content) <= _MAX_SEED_BYTES]
    dice = random.Random(seed)
    verdicts: Counter[str] = Counter()
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(num):
            content = _changed(dice.choice(seeds), seeds, dice)
            start = time.process_time()  # a busy machine is no fault of the file's
            try:
                verdicts[_verdict(content, Path(folder))] += 1
            except Exception as error:
                error.add_note(f"file {number} of seed {seed}")
                raise
            seconds = time.process_time() - start
            worst = max(worst, seconds)
            assert seconds < SECONDS_EACH, f"file {number} of seed {seed} took {seconds:.1f} s"
    return f"checkpoints: {num} files, {dict(verdicts)}, worst {1000 * worst:.0f} ms"


def _seeds() -> Iterator[bytes]:
    """The corpus, and as many good files: a small network in every container and with strides of its own."""
    for case in checkpoints.cases():
        yield case.content
    torch.manual_seed(0)
    state = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)).state_dict()
    strided = {
        "a": torch.rand(5, 7).T,
        "b": torch.rand(9)[1::2],
        "c": torch.rand(2, 3, 2, 2).permute(0, 2, 3, 1),
    }
    for value in (state, strided, {"model": state, "epoch": 3}):
        for _ in range(20):
            yield saved(value)
            yield saved(value, pickle_protocol=4)
            yield saved(value, _use_new_zipfile_serialization=False)
            plain = value if value is not strided else {name: t.contiguous() for name, t in strided.items()}
            yield safetensors.torch.save(dict(plain.get("model", plain)))  # type: ignore[arg-type]


def _changed(content: bytes, seeds: list[bytes], dice: random.Random) -> bytes:
    if content.startswith(b"PK\x03\x04") and dice.random() < 0.5:
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = {info.filename: archive.read(info) for info in archive.infolist()}
        except Exception:  # it is damaged as it is
            return damaged(content, seeds, dice)
        name = dice.choice([name for name in members if name.endswith("data.pkl")] or list(members))
        return _zip_of(members | {name: damaged(members[name], [name.encode(), *members.values()], dice)})
    return damaged(content, seeds, dice)


def _verdict(content: bytes, folder: Path) -> str:
    file, out, again = folder / "upload", folder / "canonical", folder / "again"
    file.write_bytes(content)
    try:
        said = admit(file, out)
    except Refused as refused:
        assert not out.exists(), "a refusal leaves a file"
        return refused.code
    with safetensors.safe_open(out, "pt") as opened:
        assert sum(opened.get_tensor(name).numel() for name in opened.keys()) >= 0  # noqa: SIM118
    if said.kind in ("state_dict", "course"):
        admit(out, again)
        assert again.read_bytes() == out.read_bytes(), "not canonical"
        again.unlink()
    out.unlink()
    return "admitted"


def _zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()
