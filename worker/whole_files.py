"""Files that are there whole or not at all, whatever happens while they are written: a kill, a full disk, both."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_ZEROS = bytes(1 << 20)


@contextmanager
def appears_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file, open for writing, that gets the name `path` when the block ends and its bytes are on the disk.

    When the block fails it is removed: what a full disk needs least is half a file that nobody will read.
    """
    # One writer of a file in a process; others have names of their own. `.part` marks what is not finished.
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """A new name in the folder survives a power cut from now on."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reserve(file: IO[bytes], num_bytes: int) -> None:
    """Lengthen the file to so many bytes, of zeros, that are really there.

    Written out, so that a full disk is an error here: met through a mapping, it would kill the process (SIGBUS).
    """
    file.seek(0, os.SEEK_END)
    while (missing := num_bytes - file.tell()) > 0:
        file.write(_ZEROS[: min(missing, len(_ZEROS))])
    file.flush()
