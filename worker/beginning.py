"""The first steps of a job, taken over from an earlier job that did the same (`order["begun"]`, by `worker.earlier_steps`).

Every file is copied and checked before any step counts as finished, and the last of the steps is finished first: so
whenever the process is killed, a step that counts as taken over has all later ones taken over too, and a step that this
job must do itself finds before it only steps with everything they leave.

The network that goes on is packed as this job alone would have packed it: what the earlier job called its answer has the
numbers of its measurement inside, and is a stage here.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models
from worker.chain import Chain
from worker.stages import write_whole
from worker.training.snapshots import FOLDER, snapshot_path
from worker.whole_files import appears_whole

_CHUNK_BYTES = 1 << 20
# What a network's last bits depend on, beside its job.
_DECISIVE = ("fewbytes", "torch", "device", "num_threads", "cpu")


class GoneError(Exception):
    """Something of the earlier job is no longer there; its text says what."""


def take_over(chain: Chain) -> None:
    """Finish the steps that the order's job begins with, as far as that is not done: all of them, or none with a warning.

    Raises Stopped where the last step of the job is among them, for that one is measured.
    """
    begun = chain.setting.order.get("begun")
    if begun is None or all(chain.stages.finished(number) for number in _numbers(begun)):
        return
    chain.setting.phase(f"taking over {_named(begun)}")
    try:
        _fetch(chain, begun)
    except GoneError as why:
        chain.setting.warn(
            f"The job was to begin with {_named(begun)}, but {why}. It did all steps itself, which gives the same network."
        )
        return
    write_whole(_made_by(chain), json.dumps(begun["made_by"]).encode())
    for metric in begun["metrics"]:
        chain.setting.line.send({"type": "metric", **metric})
    adopted = [_adopt(chain, begun, number) for number in reversed(_numbers(begun))]
    for record in reversed(adopted):
        chain.setting.line.send({"type": "stage", **record})


def taken_over(chain: Chain) -> dict[str, Any] | None:
    """What a result says of the steps that its job did not do itself: `steps`; what they cost whoever did them; and
    `made_by`, [{job_id, steps, environment}]. None where there are none."""
    shared = [record for record in chain.records if "shared_from" in record]
    if not shared:
        return None
    return {
        "steps": [record["step"] for record in shared],
        "cost": total_cost(shared),
        "made_by": json.loads(_made_by(chain).read_text()),
    }


def total_cost(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Epochs, seconds and multiply-adds of these steps together."""
    return {name: sum(record["cost"][name] for record in records) for name in ("epochs", "seconds", "macs")}


def warn_of_other_environments(chain: Chain, environment: dict[str, Any]) -> None:
    """Say so where this job goes on elsewhere than the steps before were done."""
    found = taken_over(chain)
    for made in found["made_by"] if found else []:
        differing = [
            f"{name} {made['environment'].get(name)} there and {environment[name]} here"
            for name in _DECISIVE
            if made["environment"].get(name) != environment[name]
        ]
        if differing:
            chain.setting.warn(
                f"{made['job_id']} did its steps in another environment ({', '.join(differing)}): done in one place, "
                "they may give other last bits."
            )


def _numbers(begun: dict[str, Any]) -> range:
    return range(1, begun["steps"] + 1)


def _named(begun: dict[str, Any]) -> str:
    steps = begun["steps"]
    return (
        f"the first {steps} steps of {begun['job_id']}"
        if steps > 1
        else f"the first step of {begun['job_id']}"
    )


def _made_by(chain: Chain) -> Path:
    """Kept for a later attempt: by then the earlier job may be gone."""
    return chain.stages.path(0, ".made-by.json")


def _fetched(chain: Chain, number: int) -> Path:
    return chain.stages.path(number, ".taken")


def _adopt(chain: Chain, begun: dict[str, Any], number: int) -> dict[str, Any]:
    if (finished := chain.stages.finished(number)) is not None:
        return finished
    network = models.load(_fetched(chain, number))
    # Of a step that the earlier job had taken over itself, the record names the one that did it.
    record = chain.adopt(number, network, {"shared_from": begun["job_id"], **begun["records"][number - 1]})
    _fetched(chain, number).unlink()
    return record


def _fetch(chain: Chain, begun: dict[str, Any]) -> None:
    """Copy all files to where this job's own steps would have left them; raises GoneError."""
    if "gone" in begun:
        raise GoneError(begun["gone"])
    for file in begun["files"]:
        _copy(file, _place(chain, file))
    for number in _numbers(begun):
        for epoch in sorted(chain.snapshot_epochs(number, after=begun["steps"])):
            if not snapshot_path(chain.step_folder(number) / FOLDER, epoch).exists():
                raise GoneError(f"it did not keep the weights of its step {number} after epoch {epoch}")


def _place(chain: Chain, file: dict[str, Any]) -> Path:
    number = file["step"]
    if file["what"] == "network":
        return _fetched(chain, number)
    if file["what"] == "snapshot":
        path = snapshot_path(chain.step_folder(number) / FOLDER, file["epoch"])
    else:
        path = chain.step_folder(number) / "attachments" / file["name"]
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _copy(file: dict[str, Any], target: Path) -> None:
    digest = hashlib.sha256()
    try:
        with Path(file["path"]).open("rb") as source, appears_whole(target) as copy:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                copy.write(chunk)
            if digest.hexdigest() != file["sha256"]:
                raise GoneError(f"its file {file['name']} is damaged")
    except FileNotFoundError:
        raise GoneError(f"its file {file['name']} is gone") from None
