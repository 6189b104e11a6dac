"""Damaged images through `check_image`: a size or BadImageError, in time, and nothing else."""

import random
import time
from collections import Counter

from tests.corpus import images
from tests.fuzz.command import run
from tests.fuzz.damage import damaged, with_png_checksums
from worker.datasets.image_files import BadImageError
from worker.datasets.images import check_image, quiet_pillow

SECONDS_EACH = 5.0
_MAX_SEED_BYTES = 64 << 10


def fuzz(num: int, seed: int = 0) -> str:
    """Check `num` files; returns a line that sums up. Raises AssertionError for a file that takes too long, and whatever
    else `check_image` raises."""
    seeds = [content for case in images.cases() if len(content := case.image()) <= _MAX_SEED_BYTES]
    dice = random.Random(seed)
    verdicts: Counter[str] = Counter()
    worst = 0.0
    with quiet_pillow():
        for number in range(num):
            content = damaged(dice.choice(seeds), seeds, dice)
            if dice.random() < 0.5 and content.startswith(b"\x89PNG"):
                content = with_png_checksums(content)
            start = time.perf_counter()
            verdicts[_verdict(content)] += 1
            seconds = time.perf_counter() - start
            worst = max(worst, seconds)
            assert seconds < SECONDS_EACH, f"file {number} of seed {seed} took {seconds:.1f} s"
    return f"images: {num} files, {dict(verdicts)}, worst {1000 * worst:.0f} ms"


def _verdict(content: bytes) -> str:
    try:
        check_image(content)
    except BadImageError:
        return "bad"
    return "good"


def main() -> int:
    return run(__doc__, fuzz)
