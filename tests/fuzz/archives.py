"""Damaged archives through `build_dataset`: a data set or a Problem 422, in time, and nothing else."""

import gzip
import lzma
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from app.errors import Problem
from app.spec.resources import DatasetSpec
from tests.corpus import archives, good_datasets
from tests.fuzz.command import run
from tests.fuzz.damage import damaged, with_tar_checksums
from worker.datasets.build import build_dataset
from worker.datasets.entries import Limits

SECONDS_EACH = 5.0
_MAX_SEED_BYTES = 64 << 10
# Small, so that breaches are met.
_LIMITS = Limits(max_members=60, free_bytes=1 << 14, max_total_bytes=1 << 22, max_header_bytes=1 << 12)
_SPEC = DatasetSpec(file="a.zip", max_bad_images=3)


def fuzz(num: int, seed: int = 0) -> str:
    """Read `num` files; returns a line that sums up. Raises AssertionError for a file that takes too long or leaves
    something, and whatever else `build_dataset` raises."""
    kinds = [case for case in archives.cases() if not case.name.startswith("large")]
    kinds += good_datasets.cases()
    seeds = [content for case in kinds if len(content := case.make()) <= _MAX_SEED_BYTES]
    dice = random.Random(seed)
    verdicts: Counter[str] = Counter()
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(num):
            Path(folder, "upload").write_bytes(_changed(dice.choice(seeds), seeds, dice))
            start = time.perf_counter()
            verdicts[_verdict(Path(folder))] += 1
            seconds = time.perf_counter() - start
            worst = max(worst, seconds)
            assert seconds < SECONDS_EACH, f"file {number} of seed {seed} took {seconds:.1f} s"
    return f"archives: {num} files, {dict(verdicts)}, worst {1000 * worst:.0f} ms"


def _changed(content: bytes, seeds: list[bytes], dice: random.Random) -> bytes:
    """What is packed is changed within too, and packed again."""
    for module, magic in ((gzip, b"\x1f\x8b"), (lzma, b"\xfd7zXZ")):
        if content.startswith(magic) and dice.random() < 0.7:
            try:
                inner = module.decompress(content)
            except (OSError, EOFError, lzma.LZMAError):
                break
            packed: bytes = module.compress(_changed(inner[:_MAX_SEED_BYTES], seeds, dice))
            return packed
    content = damaged(content, seeds, dice)
    return with_tar_checksums(content) if dice.random() < 0.7 else content


def _verdict(folder: Path) -> str:
    out, code = folder / "out", ""
    try:
        build_dataset(_SPEC, folder / "upload", out, limits=_LIMITS, num_threads=1)
    except Problem as problem:
        if problem.status != 422:
            raise
        code = problem.code
    left = list(out.iterdir())
    for path in left:
        path.unlink()
    assert not (code and left), f"a refusal ({code}) leaves {left}"
    return code or "good"


def main() -> int:
    return run(__doc__, fuzz)
