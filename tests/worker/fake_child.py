"""A trainer without torch: does what the test wrote into its order's spec, by the same protocol as the real
one.

Run as `python -m tests.worker.fake_child`.
"""

import os
import signal
import subprocess
import sys
import time
from typing import Any

from app.parent import end_with_parent
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
