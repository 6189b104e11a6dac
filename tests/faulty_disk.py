"""A disk that fails: at the n-th write, sync or rename of this process, or for real because it is small and full."""

import builtins
import contextlib
import errno
import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FAULTS = (errno.ENOSPC, errno.EIO)


class FaultyDisk:
    """Counts what the process asks of a disk below `folder`; the call number `fail_at` (from 1) fails.

    A write that fails has written half of its bytes before, as on a disk that fills up.
    """

    def __init__(self, folder: Path, fail_at: int | None = None, error: int = errno.ENOSPC) -> None:
        self._folder = str(folder)
        self._fail_at = fail_at
        self._error = error
        self.num_calls = 0

    def fails_now(self) -> bool:
        self.num_calls += 1
        return self.num_calls == self._fail_at

    def fail(self) -> None:
        raise OSError(self._error, os.strerror(self._error))

    def call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def maybe(*arguments: Any, **options: Any) -> Any:
            if self.fails_now():
                self.fail()
            return function(*arguments, **options)

        return maybe

    def opener(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            found = function(file, mode, *arguments, **options)
            path = os.readlink(f"/proc/self/fd/{found.fileno()}")
            return (
                _Watched(found, self) if set(mode) & set("wax+") and path.startswith(self._folder) else found
            )

        return opened

    @contextlib.contextmanager
    def inserted(self) -> Iterator[None]:
        """While it is, everything written below the folder goes through it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(io, "open", self.opener(io.open))
            patch.setattr(builtins, "open", self.opener(builtins.open))
            for name in ("fsync", "replace", "rename", "mkdir"):
                patch.setattr(os, name, self.call(getattr(os, name)))
            yield


class _Watched:
    """A file open for writing. Each `write` is one call to the disk: what buffers do is the same in the end."""

    def __init__(self, file: Any, disk: FaultyDisk) -> None:
        self._file = file
        self._disk = disk

    def write(self, data: Any) -> int:
        if self._disk.fails_now():
            self._file.write(data[: len(data) // 2])
            with contextlib.suppress(OSError):
                self._file.flush()
            self._disk.fail()
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def every_fault(
    folder: Path,
    prepare: Callable[[Path], Any],
    act: Callable[[Path, Any], Any],
    check: Callable[[Path, Any], None],
) -> int:
    """Let `act` fail at each of its calls to the disk in turn, with each error, and then work; how many faults.

    `prepare(folder)`: the state before, handed to the others. `check(folder, state)`: what must hold after the fault.
    The second try must not raise, and `check` must hold after it, too.
    """
    counting = FaultyDisk(folder)
    state = prepare(_made(folder / "counted"))
    with counting.inserted():
        act(folder / "counted", state)
    assert counting.num_calls > 0
    faults = 0
    for error in FAULTS:
        for fail_at in range(1, counting.num_calls + 1):
            place = _made(folder / f"{error}-{fail_at}")
            state = prepare(place)
            with FaultyDisk(place, fail_at, error).inserted(), contextlib.suppress(Exception):
                act(place, state)
            check(place, state)
            act(place, state)
            check(place, state)
            faults += 1
    return faults


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of that size at `folder`. Skips the test where this process may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs CAP_SYS_ADMIN; the injected faults are tested anyway")
    try:
        yield folder
    finally:
        # Lazily: a process that is just ending may have a file open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave_bytes: int = 0) -> Path:
    """Fill the disk up to so many bytes; the file that does. Delete it to make room."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file:
        missing = free_bytes(folder) - leave_bytes
        with contextlib.suppress(OSError):  # what else lives there takes its share meanwhile
            while missing > 0:
                missing -= file.write(bytes(min(missing, 1 << 16)))
    return filler


def free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
