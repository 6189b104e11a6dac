"""Ending with the process that started this one, however that ends."""

import ctypes
import os
import signal
import sys
import threading

# <linux/prctl.h>: the signal this process gets when its parent dies.
_PR_SET_PDEATHSIG = 1


def end_with_parent(end_with: signal.Signals) -> None:
    """Ask the kernel for `end_with` at the parent's death.

    Only Linux can; elsewhere the closed stdin must do.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(end_with))


def end_with_stdin() -> None:
    """Under `fewbytes up`: SIGTERM to this process when its stdin, a pipe from `up`, is closed."""
    if os.environ.get("FEWBYTES_ENDS_WITH_STDIN") == "1":
        threading.Thread(target=_watch_stdin, name="stdin", daemon=True).start()


def _watch_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


# Looked up once, at import: between fork and exec nothing may be loaded.
_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
