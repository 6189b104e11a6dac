"""A trainer without torch whose work takes time, is checkpointed, and gives the same bytes however often it was killed.

Run as `python -m tests.faults.fake_trainer`. The job's spec: `name` is one of the functions here; `ticks` of 50 ms.
"""

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.starting.parent import end_with_parent
from worker.messages import Line, Stops, listen, read_order, take_over_stdout

TICK_SECONDS = 0.05
DEFAULT_TICKS = 20


def work(line: Line, stops: Stops, order: dict[str, Any]) -> None:
    """One link of a chain of digests a tick; the answer is the last one."""
    folder, ticks = Path(order["work_dir"]), order["spec"].get("ticks", DEFAULT_TICKS)
    links = _links(folder)
    while len(links) < ticks:
        time.sleep(TICK_SECONDS)
        links.append(hashlib.sha256("".join(links).encode()).hexdigest())
        _write(folder / "links", "\n".join(links))
        line.send({"type": "progress", "step": 1, "done": len(links), "total": ticks})
        if stops.requested():
            line.send(
                {"type": "stopped", "stop": stops.requested(), "result": {"stages": []}, "artifacts": []}
            )
            return
    _write(folder / "final.pt", links[-1])
    final = {"step": 1, "kind": "final", "name": "final.pt", "file": "final.pt", "metrics": {}}
    line.send({"type": "result", "result": {"stages": []}, "artifacts": [final]})


def crash(line: Line, stops: Stops, order: dict[str, Any]) -> None:
    """Poison."""
    os.kill(os.getpid(), signal.SIGKILL)


DOES: dict[str, Callable[[Line, Stops, dict[str, Any]], None]] = {"work": work, "crash": crash}


def answer(ticks: int = DEFAULT_TICKS) -> str:
    """The digest of what `work` must give."""
    links: list[str] = []
    for _ in range(ticks):
        links.append(hashlib.sha256("".join(links).encode()).hexdigest())
    return hashlib.sha256(links[-1].encode()).hexdigest()


def _links(folder: Path) -> list[str]:
    try:
        return (folder / "links").read_text().split()
    except FileNotFoundError:
        return []


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


def main() -> None:
    line = take_over_stdout()
    end_with_parent(signal.SIGKILL)
    order = read_order(sys.stdin.buffer)
    stops = listen(sys.stdin.buffer)
    DOES[order["spec"]["name"]](line, stops, order)
    os._exit(0)


if __name__ == "__main__":
    main()
