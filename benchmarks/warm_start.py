"""What a warm parent saves, what it costs, and that nothing else changes.

    python -m benchmarks.warm_start            # docs/decisions/0010-a-warm-parent.md has what it printed
    python -m benchmarks.warm_start start leak # some of it: start, job, bytes, leak

On Linux. Trainers are started as the supervisor starts them, spawned and forked, in turn; the job is two steps on 20 photos
of 32 x 32 pixels.
"""

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.worker import jobs, tiny
from worker.leash import Leash
from worker.starting import WARM_SOCKET
from worker.supervisor import CHILD, child_environment
from worker.warm_parent import WarmParent

_ROUNDS = 20
_CHILDREN = 200
TRAINING = {"epochs": 2, "batch_size": 8}
DISTILL = {"method": "distill", "student": jobs.STUDENT, **TRAINING}
CHAINS: dict[str, list[dict[str, Any]]] = {
    "distill, quantize": [DISTILL, {"method": "quantize"}],
    "prune": [{"method": "prune", "target": {"macs": 0.6}, "training": TRAINING}],
    "qat": [{"method": "qat", **TRAINING}],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="start, job, bytes, leak; default: all")
    parts = parser.parse_args().parts or ["start", "job", "bytes", "leak"]
    warm = WarmParent(child_environment(1))
    with tempfile.TemporaryDirectory(prefix="fewbytes-") as folder:
        bench = Bench(Path(folder))
        began = time.perf_counter()
        warm.start()
        if not warm.ready.wait(60):
            sys.exit("The warm parent does not get ready.")
        print(f"warm parent ready after {time.perf_counter() - began:.2f} s; {memory(warm)}")
        try:
            for part in parts:
                getattr(bench, part)(warm)
        finally:
            warm.stop()


def memory(warm: WarmParent) -> str:
    assert warm.pid is not None
    lines = Path(f"/proc/{warm.pid}/smaps_rollup").read_text().splitlines()[1:]
    kib = {line.split()[0]: int(line.split()[1]) for line in lines}
    return f"PSS {kib['Pss:'] / 1024:.0f} MiB, of which not file-backed {kib['Pss_Anon:'] / 1024:.0f} MiB"


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        archive = tiny.write_photos(folder / "photos.zip", train=4, val=3, test=3)
        self.data = jobs.dataset(folder / "data", archive)
        content = tiny.write_teacher(folder / "teacher.pt").read_bytes()
        spec = {
            "architecture": tiny.TEACHER,
            "preprocessing": tiny.PREPROCESSING,
            "class_names": list(tiny.CLASSES),
        }
        self.teacher = jobs.inspected_teacher(folder / "inspection", content, **spec)
        self.num_orders = 0

    def order(self, chain: str, num_threads: int) -> dict[str, Any]:
        self.num_orders += 1
        work_dir = self.folder / f"job-{self.num_orders}"
        order = jobs.order(work_dir, [self.teacher], self.data, CHAINS[chain])
        return {**order, "do": "compress", "num_threads": num_threads}

    def start(self, warm: WarmParent) -> None:
        """From the claim, in the supervisor's hands, to the trainer's first message."""
        for name, seconds in in_turn(lambda env: first_message(self.order("qat", 1), env), _ROUNDS).items():
            print(f"claim -> first message, {name}: {spread(seconds)}")

    def job(self, warm: WarmParent) -> None:
        for name, seconds in in_turn(
            lambda env: run(self.order("distill, quantize", 1), env)[0], _ROUNDS // 4
        ).items():
            print(f"a job of two tiny steps, {name}: {spread(seconds)}")

    def bytes(self, warm: WarmParent) -> None:
        """The artifact's bytes, however it was started."""
        for chain in CHAINS:
            for num_threads in (1, 2):
                digests = {
                    name: run(self.order(chain, num_threads), env)[1]
                    for name, env in ways(num_threads).items()
                }
                same = "the same" if len(set(digests.values())) == 1 else "DIFFERENT"
                print(f"{chain}, {num_threads} threads: {same} {digests['forked'][:12]}")

    def leak(self, warm: WarmParent) -> None:
        before, fds = memory(warm), (num_fds(warm.pid), num_fds(os.getpid()))
        for _ in range(_CHILDREN):
            leash = Leash(CHILD, {"do": "nothing"}, env=ways(1)["forked"])
            while leash.exit_code() is None:
                leash.read(0.2)
            leash.kill()
        print(f"{_CHILDREN} children: {before} -> {memory(warm)}")
        print(f"open files of warm parent and worker: {fds} -> {(num_fds(warm.pid), num_fds(os.getpid()))}")


def ways(num_threads: int) -> dict[str, dict[str, str]]:
    env = child_environment(num_threads)
    return {"spawned": env | {WARM_SOCKET: ""}, "forked": env}


def in_turn(measure: Callable[[dict[str, str]], float], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {"spawned": [], "forked": []}
    for _ in range(rounds):
        for name, env in ways(1).items():
            seconds[name].append(measure(env))
    return seconds


def first_message(order: dict[str, Any], env: dict[str, str]) -> float:
    began = time.perf_counter()
    leash = Leash(CHILD, order, env=env)
    try:
        while not leash.read(5):
            assert leash.exit_code() is None
        return time.perf_counter() - began
    finally:
        leash.kill()


def run(order: dict[str, Any], env: dict[str, str]) -> tuple[float, str]:
    """Seconds, and the sha256 of the final artifact."""
    began = time.perf_counter()
    leash = Leash(CHILD, order, env=env)
    heard: list[dict[str, Any]] = []
    try:
        while leash.exit_code() is None:
            heard += leash.read(0.2)
        heard += leash.rest()
    finally:
        leash.kill()
    seconds = time.perf_counter() - began
    last = next(message for message in reversed(heard) if message["type"] in ("result", "error"))
    assert last["type"] == "result", last
    content = (Path(order["work_dir"]) / last["artifacts"][-1]["file"]).read_bytes()
    return seconds, hashlib.sha256(content).hexdigest()


def num_fds(pid: int | None) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return f"p50 {statistics.median(ordered):.3f} s, p95 {p95:.3f} s (n = {len(ordered)})"


if __name__ == "__main__":
    main()
