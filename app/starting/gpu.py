"""Whether this machine has a GPU that PyTorch would use, as far as a process without PyTorch can tell."""

import os
import subprocess
from pathlib import Path

_QUERY = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
_MIB = 1 << 20


def present() -> bool:
    return Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def memory_bytes() -> int | None:
    """Of the first GPU that a trainer here would see; None when nvidia-smi is missing or does not tell."""
    try:
        answer = subprocess.run(_QUERY, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [[field.strip() for field in line.split(",")] for line in answer.stdout.splitlines()]
    gpus = [(index, uuid, int(mib)) for index, uuid, mib in rows if mib.isdigit()]
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    visible = [mib for index, uuid, mib in gpus if not wanted or index == wanted or uuid.startswith(wanted)]
    return visible[0] * _MIB if visible else None
