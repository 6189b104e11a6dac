"""Has a packed file measured by a fresh process and waits for it, with an ear for stop requests."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.leash import Leash
from worker.measure import measure
from worker.messages import Stops
from worker.run import Stopped
from worker.stages import write_whole

_TICK_SECONDS = 0.2


@dataclass
class Measuring:
    """What all measurements of one job have in common."""

    paths: dict[str, Any]
    class_names: list[str]
    splits: Sequence[str]
    unlabeled: bool
    """Whether the data has a split without labels; what a network answers there counts as agreement."""
    num_threads: int
    device: str
    stops: Stops

    def measure(
        self,
        artifact: Path,
        *,
        outputs: list[int],
        latency: bool = True,
        logits: Path | None = None,
        tensors: Path | None = None,
        kept: Path | None = None,
    ) -> dict[str, Any]:
        """What `worker.measure.measure` says about `artifact`, or about the file `tensors` in its network.

        `kept`: a result left there by an earlier attempt is taken.

        Raises Stopped when a stop is asked, RuntimeError when the process fails; OSError when that was the machine's
        doing: its own, such as a full disk, or ChildProcessError when a signal ended it.
        """
        if kept is not None and kept.exists() and (logits is None or logits.exists()):
            earlier: dict[str, Any] = json.loads(kept.read_text())
            return earlier
        measured = self._run(
            self._order(artifact, outputs, latency, logits, tensors), lambda: bool(self.stops.requested())
        )
        if measured is None:
            raise Stopped(self.stops.requested())  # type: ignore[arg-type]  # that is why it is None
        if kept is not None:
            write_whole(kept, json.dumps(measured).encode())
        return measured

    def measure_within(self, seconds: float, artifact: Path, *, outputs: list[int]) -> dict[str, Any] | None:
        """The same after a stop was asked, if it takes no longer than `seconds`; None otherwise."""
        give_up = time.monotonic() + seconds
        return self._run(self._order(artifact, outputs, True, None), lambda: time.monotonic() > give_up)

    def latency(self, artifact: Path, *, outputs: list[int]) -> dict[str, Any]:
        """Only the latency, by a fresh process as well. Raises as `measure`."""
        order = self._order(artifact, outputs, True, None) | {"splits": [], "unlabeled": False}
        measured = self._run(order, lambda: bool(self.stops.requested()))
        if measured is None:
            raise Stopped(self.stops.requested())  # type: ignore[arg-type]  # that is why it is None
        latency_ms: dict[str, Any] = measured["latency_ms"]
        return latency_ms

    def measure_here(self, artifact: Path, *, outputs: list[int]) -> dict[str, Any]:
        """The same without latency and without a fresh process."""
        return measure(self._order(artifact, outputs, False, None))

    def _order(
        self,
        artifact: Path,
        outputs: list[int],
        latency: bool,
        logits: Path | None,
        tensors: Path | None = None,
    ) -> dict[str, Any]:
        return {
            "artifact": str(artifact),
            "data": self.paths,
            "class_names": self.class_names,
            "order": outputs,
            "splits": list(self.splits),
            "num_threads": self.num_threads,
            "device": self.device,
            "latency": latency,
            "logits": str(logits) if logits is not None else None,
            "unlabeled": self.unlabeled,
            "tensors": str(tensors) if tensors is not None else None,
        }

    def _run(self, order: dict[str, Any], enough: Callable[[], bool]) -> dict[str, Any] | None:
        # In this process's own session: the supervisor's kill takes it along.
        leash = Leash([sys.executable, "-m", "worker.measure"], order, env=os.environ, new_session=False)
        heard: list[dict[str, Any]] = []
        try:
            while leash.exit_code() is None:
                if enough():
                    return None
                heard += leash.read(_TICK_SECONDS)
            heard += leash.rest()
        finally:
            leash.kill()
        for message in heard:
            if message["type"] == "measured":
                return {key: value for key, value in message.items() if key != "type"}
            if message["type"] == "failed":
                raise OSError(message["errno"], f"{message['reason']}, met by the measuring process")
        said = "\n".join(message["message"] for message in heard[-20:])
        code = leash.exit_code() or 0
        if code < 0:
            # By the kernel, for want of memory, or by somebody: no fault of ours, so not reported as one. An OSError ends
            # the trainer too, and the attempt counts as lost.
            raise ChildProcessError(f"the measuring process was ended by {signal.Signals(-code).name}")
        raise RuntimeError(f"measuring ended with exit code {code}: {said[-2000:]}")
