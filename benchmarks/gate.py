"""What the gate costs: time and memory for ordinary checkpoints, and for every hostile file of the corpus.

    python -m benchmarks.gate                  # docs/security.md has what it printed
    python -m benchmarks.gate my.pt other.pt   # your own files

On Linux. Each file is admitted in a process of its own, as a worker does it; memory is the most that process held (its
own 10 MB included), time is that of the gate alone and of the whole process from start to verdict.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_ONE = """
import json, sys, time
from pathlib import Path
from worker.gate import Refused, admit
from worker.limits import tightened
file, out = map(Path, sys.argv[1:])
began = time.perf_counter()
try:
    with tightened(file.stat().st_size):
        admit(file, out)
    verdict = "admitted"
except Refused as refused:
    verdict = f"{refused.code} {refused.rule}"
except MemoryError:
    verdict = "CHECKPOINT_UNSAFE MEMORY"
seconds = time.perf_counter() - began
# Not ru_maxrss: a new process inherits that of its parent, which has loaded torch here.
held = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(json.dumps([verdict, seconds, int(held.split()[1]) << 10]))
"""


def admitted(file: Path, folder: Path) -> dict[str, Any]:
    """One file: verdict, seconds of the gate, seconds of the process, bytes of its memory."""
    began = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", _ONE, file, folder / "canonical"], capture_output=True, text=True
    )
    whole = time.perf_counter() - began
    verdict, seconds, memory = (
        json.loads(ended.stdout) if ended.returncode == 0 else (f"ended with {ended.returncode}", whole, 0)
    )
    return {"verdict": verdict, "seconds": seconds, "process_seconds": whole, "memory_bytes": memory}


def ordinary(folder: Path) -> list[Path]:
    """Checkpoints as torchvision's networks are saved, from small to large."""
    import torch
    import torchvision

    files = []
    for name in ("squeezenet1_1", "mobilenet_v2", "resnet18", "resnet50", "vit_b_16"):
        network = torchvision.models.get_model(name)
        files.append(folder / f"{name}.pt")
        torch.save(network.state_dict(), files[-1])
    network = torchvision.models.resnet50().to(memory_format=torch.channels_last)
    for name, options in (
        ("resnet50-channels_last.pt", {}),
        ("resnet50-legacy.bin", {"_use_new_zipfile_serialization": False}),
    ):
        files.append(folder / name)
        torch.save(network.state_dict(), files[-1], **options)
    return files


def hostile(folder: Path) -> list[Path]:
    """The corpus of the tests."""
    from tests.corpus import checkpoints

    files = []
    for number, case in enumerate(checkpoints.cases()):
        files.append(folder / f"{number:03}")
        files[-1].write_bytes(case.content)
    return files


def row(name: str, found: list[dict[str, Any]]) -> None:
    seconds = sorted(one["seconds"] for one in found)
    whole = sorted(one["process_seconds"] for one in found)
    print(
        f"| {name} | {len(found)} | {1000 * statistics.median(seconds):.1f} | {1000 * seconds[-1]:.0f} "
        f"| {1000 * whole[int(0.95 * (len(whole) - 1))]:.0f} | {max(one['memory_bytes'] for one in found) >> 20} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in arguments.files or ordinary(folder):
            found = admitted(file, folder)
            print(
                f"{file.name}: {file.stat().st_size:,} bytes, {found['verdict']}, {1000 * found['seconds']:.0f} ms, "
                f"{found['memory_bytes'] >> 20} MiB"
            )
        if arguments.files:
            return
        found = [(file, admitted(file, folder)) for file in hostile(folder)]
        print("\n| files | number | median ms | worst ms | p95 to the verdict, ms | most MiB |")
        print("|---|---|---|---|---|---|")
        row("all", [one for _, one in found])
        row("of at most 1 MB", [one for file, one in found if file.stat().st_size <= 1_000_000])
        verdicts = {one["verdict"].partition(" ")[0] for _, one in found}
        for verdict in sorted(verdicts):
            row(verdict, [one for _, one in found if one["verdict"].startswith(verdict)])


if __name__ == "__main__":
    main()
