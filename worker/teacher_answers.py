"""What a teacher answers on a data set, measured once for all jobs of its tenant that ask.

Shared is what follows from the bytes: accuracies, losses, sizes, and the answers themselves. Latency is a property of this
hour and this machine, to be compared with that of the job's own networks: every job measures it anew.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch

from models import network_digest
from worker.run import Teacher
from worker.setting import Setting
from worker.shared_files import arithmetic, shared_name
from worker.stages import write_whole

_KIND = "measured"
# Part of the key: to be raised when `worker.measure` counts otherwise, or more.
_FORMAT = 1

Measured = tuple[dict[str, Any], dict[str, torch.Tensor]]
"""The record without latency; {split: float32 [N, C]}."""


def measure_teacher(setting: Setting, index: int, teacher: Teacher, kept: Path) -> dict[str, Any]:
    """What `worker.measure.measure` says of the teacher at this position; its answers are left where agreement looks for
    them.

    `kept`: a result left there by an earlier attempt is taken. Raises Stopped, and what measuring raises.
    """
    path = Path(setting.order["teachers"][index]["path"])
    outputs, answers = setting.alignment.orders[index], setting.teacher_logits(index)
    was_measured = kept.exists() and answers.exists()
    name = shared_name(_KIND, _decided_by(setting, index, teacher))
    if not was_measured and (known := _known(setting, name, teacher)) is not None:
        record, logits = known
        measured = record | {"latency_ms": setting.measuring.latency(path, outputs=outputs)}
        write_whole(answers, _saved(logits))
        write_whole(kept, json.dumps(measured).encode())
        return measured
    measured = setting.measuring.measure(path, outputs=outputs, logits=answers, kept=kept)
    if not was_measured:
        _share(setting, name, measured, answers)
    return measured


def _decided_by(setting: Setting, index: int, teacher: Teacher) -> dict[str, Any]:
    """Accuracy is counted on the CPU, whatever the job's device."""
    rows = [path for split in setting.all_splits for path in setting.data.paths(split)]
    return {
        "format": _FORMAT,
        "network": network_digest(teacher.network),
        "preprocessing": teacher.preprocessing,
        "outputs": setting.alignment.orders[index],
        "class_order": setting.data.class_order,
        "splits": setting.digests,
        # A digest does not depend on the order of the images; their answers are kept in it.
        "rows": hashlib.sha256("\n".join(rows).encode()).hexdigest(),
        "arithmetic": arithmetic(torch.device("cpu")),
    }


def _known(setting: Setting, name: str, teacher: Teacher) -> Measured | None:
    content = setting.shared.read(name) if setting.shared is not None else None
    if content is None:
        return None
    try:
        kept = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        record, logits = json.loads(kept["record"]), dict(kept["logits"])
        fits = all(len(logits[split]) == setting.data.num_images(split) for split in setting.all_splits)
    except (
        Exception
    ) as error:  # its digest is right: whoever wrote it meant to, and torch.load may raise anything
        setting.warn(f"What is kept of teacher {teacher.id} cannot be read ({error}): it is measured again.")
        return None
    if not fits:
        setting.warn(f"What is kept of teacher {teacher.id} is of other images: it is measured again.")
        return None
    setting.log(f"teacher {teacher.id} was measured by an earlier job: only its latency is measured again")
    return record, logits


def _share(setting: Setting, name: str, measured: dict[str, Any], answers: Path) -> None:
    if setting.shared is None:
        return
    record = {key: value for key, value in measured.items() if key != "latency_ms"}
    logits = torch.load(answers, weights_only=True)
    if not setting.shared.keep(name, _saved({"record": json.dumps(record), "logits": logits})):
        setting.log("the disk is full: what the teacher answers is not kept for other jobs")


def _saved(content: Any) -> memoryview:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()
