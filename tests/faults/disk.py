"""A disk that is really full: the whole service's data folder on a small tmpfs, filled up to the last byte.

Mounting needs root; without it the campaign says so and tries nothing.
"""

import contextlib
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.kills import SPARED
from tests.faults.options import Options
from tests.faults.report import Row, judge
from tests.faults.rig import UpRig
from tests.faults.work import Work

DISK_BYTES = 64 << 20
FULL_SECONDS = 3.0


class CannotMountError(Exception):
    """This account may not mount a tmpfs."""


@contextlib.contextmanager
def small_disk(size_bytes: int = DISK_BYTES) -> Iterator[Path]:
    """A mounted tmpfs. Raises CannotMountError."""
    with tempfile.TemporaryDirectory(prefix="fewbytes-disk-") as name:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", name],
            capture_output=True,
            text=True,
        )
        if mounted.returncode:
            raise CannotMountError(mounted.stderr.strip())
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


@contextlib.contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Not one byte is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * (64 << 10))
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 512)
    try:
        yield
    finally:
        ballast.unlink()


def run(options: Options) -> list[Row]:
    try:
        with small_disk() as disk:
            return [campaign(disk, options)]
    except CannotMountError as error:
        options.say(f"disk: not tried: {error}")
        return []


def campaign(disk: Path, options: Options, *, epochs: int = 60) -> Row:
    """Fill the disk while jobs run, for some seconds, and make room again."""
    environment = {**SPARED, "FEWBYTES_MIN_FREE_BYTES": str(1 << 20)}
    rig = UpRig(disk / "data", **environment)
    chance = random.Random(options.seed)
    with rig.running(), Work(rig, chance, epochs) as work:
        work.undisturbed()
        row = Row("disk full for some seconds", rig.setup)
        for number in range(options.rounds):
            work.keep(2)
            time.sleep(chance.uniform(0.0, 4.0))
            with filled(disk):
                assert os.statvfs(disk).f_bavail == 0
                time.sleep(FULL_SECONDS)
            began = time.monotonic()
            rig.wait_ready()
            row.recoveries.append(time.monotonic() - began)
            row.tried += 1
            options.say(f"{number + 1}: the disk was full, the service is ready again")
        work.wait()
        return judge(row, work.expected(), rig.storage)
