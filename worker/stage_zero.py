"""Stage 0 of a job: each teacher as it was uploaded, and several also as the ensemble that steps learn from."""

import io
from pathlib import Path
from typing import Any

import torch

from worker.distillation.soft_labels import rows_for
from worker.ensemble import combined, score_ensemble
from worker.run import TableTeacher
from worker.setting import Setting
from worker.stages import Stages, write_whole
from worker.teacher_answers import measure_teacher

# The uploader's own figure may come from other code and another split; beyond this it is another network or
# preprocessing.
_DECLARED_TOLERANCE = 0.02


def measure_teachers(setting: Setting, stages: Stages) -> dict[str, Any]:
    """The record of stage 0. What the teachers answer is left beside it, for agreement."""
    setting.phase("measuring the teacher" if len(setting.teachers) == 1 else "measuring the teachers")
    members = [_teacher_record(setting, stages, index) for index in range(len(setting.teachers))]
    record: dict[str, Any] = {"step": 0, "method": "teacher"}
    if len(members) == 1:
        return record | {**members[0], "teachers": members}
    return record | _ensemble_record(setting, members)


def agreement(setting: Setting, logits: dict[str, torch.Tensor]) -> dict[str, float]:
    """The share of images to which a network and the (first) teacher give the same answer, by split; over those
    the teacher answers at all."""
    teacher = torch.load(setting.teacher_logits(0), weights_only=True)
    shares = {}
    for split, logits_NC in logits.items():
        is_known_N = ~teacher[split].isnan().any(1) if split in teacher else torch.tensor([False])
        if bool(is_known_N.any()):
            same_N = logits_NC.argmax(1) == teacher[split].argmax(1)
            shares[split] = same_N[is_known_N].double().mean().item()
    return shares


def against_teacher(setting: Setting, logits: dict[str, torch.Tensor]) -> dict[str, dict[str, int]]:
    """How often only the teacher (or the ensemble) is right and only the network, by labelled split; over the images
    that every teacher answers. Their difference is that of the accuracies, and they say how sure it is."""
    members = [
        torch.load(setting.teacher_logits(index), weights_only=True) for index in range(len(setting.teachers))
    ]
    found: dict[str, dict[str, int]] = {}
    for split in setting.splits:
        answers = [member[split] for member in members]
        is_known_N = _is_known(answers)
        if not bool(is_known_N.any()):
            continue
        labels_N = setting.data.labels(split)[is_known_N]
        teacher_N = _answer_of(setting, [answer[is_known_N] for answer in answers]).argmax(1) == labels_N
        network_N = logits[split][is_known_N].argmax(1) == labels_N
        found[split] = {
            "num_images": len(labels_N),
            "num_only_teacher": int((teacher_N & ~network_N).sum()),
            "num_only_network": int((network_N & ~teacher_N).sum()),
        }
    return found


def _answer_of(setting: Setting, members_NC: list[torch.Tensor]) -> torch.Tensor:
    return members_NC[0] if len(members_NC) == 1 else combined(members_NC, *_combination(setting))


def _combination(setting: Setting) -> tuple[str, list[float] | None]:
    """How several teachers become one: as in the first step that learns from them."""
    first = next((step for step in setting.spec.steps if hasattr(step, "combine")), None)
    return getattr(first, "combine", "mean_probability"), getattr(first, "weights", None)


def _is_known(members_NC: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([~member.isnan().any(1) for member in members_NC]).all(0)


def _teacher_record(setting: Setting, stages: Stages, index: int) -> dict[str, Any]:
    teacher = setting.order["teachers"][index]
    known = setting.teachers[index]
    if isinstance(known, TableTeacher):
        measured = _table_record(setting, known, setting.teacher_logits(index))
    else:
        measured = measure_teacher(setting, index, known, stages.path(0, f"-{index}.json"))
    _compare_with_declared(setting, teacher, measured["splits"])
    # The uploaded file is what the user has; ours holds the same tensors in another form.
    return {"id": teacher["id"], **measured, "size_bytes": teacher["size_bytes"]}


def _table_record(setting: Setting, table: TableTeacher, path: Path) -> dict[str, Any]:
    """A table of soft labels is scored on the labelled images that it covers; `num_missing` are not in it."""
    logits = {split: _table_logits(setting, table, split) for split in setting.all_splits}
    buffer = io.BytesIO()
    torch.save(logits, buffer)
    write_whole(path, buffer.getbuffer())
    splits = {}
    for split in setting.splits:
        scored = _score([logits[split]], setting.data.labels(split), "mean_probability", None)
        if scored is None:
            setting.warn(f"Teacher {table.id} has no soft label for any image of {split}.")
        else:
            splits[split] = scored | {"num_missing": len(logits[split]) - scored["num_images"]}
    return {"splits": splits, "parameters": 0, "macs": 0, "latency_ms": None}


def _table_logits(setting: Setting, table: TableTeacher, split: Any) -> torch.Tensor:
    """[N, C] in the data's class order: logits whose softmax is the table's answer at temperature 1; NaN where it
    has no row."""
    rows_N = rows_for(table.rows, setting.data, [split])
    values_NC = table.values_RC[rows_N.clamp(min=0)][:, table.order.cpu()].float()
    if table.kind == "probabilities":
        values_NC = values_NC.clamp(min=torch.finfo(torch.float32).tiny).log() * table.temperature
    values_NC[rows_N < 0] = float("nan")
    return values_NC


def _score(
    members_NC: list[torch.Tensor], labels_N: torch.Tensor, combine: str, weights: list[float] | None
) -> dict[str, Any] | None:
    """On the images that every member answers; None where there is none."""
    is_known_N = _is_known(members_NC)
    if not bool(is_known_N.any()):
        return None
    return score_ensemble([m[is_known_N] for m in members_NC], labels_N[is_known_N], combine, weights)


def _compare_with_declared(setting: Setting, teacher: dict[str, Any], splits: dict[str, Any]) -> None:
    declared = teacher["declared_accuracy"]
    measured = {split: splits[split]["accuracy"] for split in ("val", "test") if split in splits}
    if declared is None or not measured:
        return
    if min(abs(accuracy - declared) for accuracy in measured.values()) > _DECLARED_TOLERANCE:
        found = " and ".join(f"{accuracy:.4f} on {split}" for split, accuracy in measured.items())
        setting.warn(
            f"Teacher {teacher['id']} was declared with an accuracy of {declared:.4f}, but here it has "
            f"{found}. Its preprocessing or the order of its classes may not be those of its training."
        )


def _ensemble_record(setting: Setting, members: list[dict[str, Any]]) -> dict[str, Any]:
    combine, weights = _combination(setting)
    logits = [torch.load(setting.teacher_logits(index), weights_only=True) for index in range(len(members))]
    scores = {
        split: _score([member[split] for member in logits], setting.data.labels(split), combine, weights)
        for split in setting.splits
    }
    scores = {split: score for split, score in scores.items() if score is not None}
    totals = {name: sum(member[name] for member in members) for name in ("size_bytes", "parameters", "macs")}
    return {"combine": combine, "splits": scores, **totals, "latency_ms": None, "teachers": members}
