"""A trainer without torch: does what the test wrote into its order's spec, by the same protocol as the real
one.

Run as `python -m tests.worker.fake_child`.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from app.starting.parent import end_with_parent
from worker.messages import Line, Stops, listen, read_order, take_over_stdout

RESULT: dict[str, Any] = {"type": "result", "result": {"stages": []}, "artifacts": []}


def crash(line: Line, stops: Stops, order: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def exit_without_result(line: Line, stops: Stops, order: dict[str, Any]) -> None:
    os._exit(0)


def hang(line: Line, stops: Stops, order: dict[str, Any]) -> None:
    """Ignores every stop; so does its own child."""
    inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    line.send({"type": "log", "level": "info", "message": f"pids {os.getpid()} {inner.pid}"})
    line.send({"type": "phase", "phase": "hanging"})
    time.sleep(600)


def obey(line: Line, stops: Stops, order: dict[str, Any]) -> None:
    """Works until it is asked to stop, then leaves what it has."""
    line.send({"type": "phase", "phase": "waiting"})
    stops.asked.wait()
    artifacts = []
    if stops.requested() == "cancel":
        with open(os.path.join(order["work_dir"], "best.pt"), "wb") as file:
            file.write(b"best so far")
        artifacts = [{"step": 1, "kind": "best_so_far", "name": "best.pt", "file": "best.pt", "metrics": {}}]
    line.send(
        {"type": "stopped", "stop": stops.requested(), "result": {"stages": []}, "artifacts": artifacts}
    )


def write_on(line: Line, stops: Stops, order: dict[str, Any]) -> None:
    """Writes its file again and again, in place, until there is a file `finish` beside its folder."""
    folder = Path(order["work_dir"])
    line.send({"type": "log", "level": "info", "message": f"pid {os.getpid()}"})
    line.send({"type": "phase", "phase": "writing"})
    while not (folder.parent / "finish").exists():
        (folder / "final.pt").write_text(f"half of {folder.name}")
        time.sleep(0.01)
    (folder / "final.pt").write_text(f"the network of {folder.name.replace('-', ' ')}")
    final = {"step": 1, "kind": "final", "name": "final.pt", "file": "final.pt", "metrics": {}}
    line.send({**RESULT, "artifacts": [final]})


def count_up(line: Line, stops: Stops, order: dict[str, Any]) -> None:
    """Counts its attempts in its folder, each until it is stopped; the one after `until` of them has the result."""
    counter = Path(order["work_dir"]) / "count"
    count = int(counter.read_text()) if counter.exists() else 0
    if count == order["spec"]["until"]:
        line.send(RESULT)
        return
    line.send({"type": "phase", "phase": "waiting"})
    stops.asked.wait()
    counter.write_text(str(count + 1))
    line.send({"type": "stopped", "stop": stops.requested()})


def until_stopped(order: dict[str, Any], line: Line, stops: Stops) -> dict[str, Any]:
    """Not run by `main` below but in place of the pipeline: what `worker.child` may be told to do."""
    line.send({"type": "log", "level": "info", "message": f"pid {os.getpid()}"})
    line.send({"type": "phase", "phase": "waiting"})
    while not stops.asked.wait(0.05):  # Python hears signals between two instructions of its main thread
        pass
    return {"type": "stopped", "stop": stops.requested()}


def flood(line: Line, stops: Stops, order: dict[str, Any]) -> None:
    """Prints far more than anybody wants to read, on stdout too, and one endless line."""
    for number in range(20_000):
        print("noise", number)  # noqa: T201
    sys.stderr.write("x" * 5_000_000 + "\n")
    line.send(
        {
            "type": "metric",
            "step": 1,
            "epoch": 0,
            "split": "val",
            "name": "loss",
            "value": float("nan"),
            "unit": "1",
        }
    )
    line.send(
        {
            "type": "metric",
            "step": 1,
            "epoch": 0,
            "split": "val",
            "name": "accuracy",
            "value": 0.5,
            "unit": "1",
        }
    )
    line.send(RESULT)


def huge_message(line: Line, stops: Stops, order: dict[str, Any]) -> None:
    os.write(line._fd, b"{" + b" " * (20 << 20))
    time.sleep(600)


def problem(line: Line, stops: Stops, order: dict[str, Any]) -> None:
    line.send(
        {
            "type": "error",
            "status": 422,
            "code": "CLASSES_DIFFER",
            "detail": "Three is not two.",
            "errors": [],
        }
    )


def out_of_memory(line: Line, stops: Stops, order: dict[str, Any]) -> None:
    line.send(
        {"type": "error", "status": 507, "code": "OUT_OF_MEMORY", "detail": "Less, please.", "errors": []}
    )


def internal_error(line: Line, stops: Stops, order: dict[str, Any]) -> None:
    line.send({"type": "error", "status": 500, "code": "INTERNAL_ERROR", "detail": "A bug.", "errors": []})


def disk_full(line: Line, stops: Stops, order: dict[str, Any]) -> None:
    line.send({"type": "error", "status": 507, "code": "DISK_FULL", "detail": "No room left.", "errors": []})


def artifacts(line: Line, stops: Stops, order: dict[str, Any]) -> None:
    with open(os.path.join(order["work_dir"], "final.pt"), "wb") as file:
        file.write(b"a network")
    final = {"step": 1, "kind": "final", "name": "final.pt", "file": "final.pt", "metrics": {"accuracy": 1.0}}
    line.send({"type": "stage", "step": 1, "method": "distill", "metrics": {}})
    line.send({**RESULT, "artifacts": [final]})


def main() -> None:
    line = take_over_stdout()
    end_with_parent(signal.SIGKILL)
    order = read_order(sys.stdin.buffer)
    stops = listen(sys.stdin.buffer)
    globals()[order["spec"]["name"]](line, stops, order)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
