"""The report of a job: what it was, what came of it, how that is known, and how to get it again.

A job that runs, waits or failed has one too: what there is so far, and why it ended.
"""

from collections.abc import Iterator
from typing import Any

from app.db import rfc3339
from app.reports import classes, iterations, layers, provenance
from app.reports.comparison import accuracy, compared_split, drop, ratio
from app.reports.document import (
    Block,
    Code,
    Column,
    Document,
    Facts,
    Folded,
    Notice,
    Paragraph,
    Picture,
    Section,
    Table,
)
from app.reports.job_facts import MOST_SEEDS, JobFacts
from app.reports.learning import learning_curves
from app.reports.plot import Plot
from app.reports.stage_table import accuracy_size, seed_table, stage_table
from app.reports.wording import NOTHING, duration, listed, number, percent, points, shown, significant
from app.tables import CANCELLED, FAILED, SUCCEEDED, TERMINAL

_MOST_CLASSES = 40
"""Up to so many classes are all listed; beyond, those that lost the most, and the others folded away."""


def job_plots(facts: JobFacts) -> dict[str, Plot]:
    """By name, those that this job has something for."""
    return {plot.name: plot for plot in _plots(facts) if plot is not None}


def _plots(facts: JobFacts) -> Iterator[Plot | None]:
    yield learning_curves(facts)
    yield accuracy_size(facts.stages)
    yield iterations.iteration_plot(list(iterations.prunings(facts.stages)))
    last = facts.last
    if last is not None:
        names = facts.class_names
        split = compared_split(last)
        yield classes.confusion_plot(last, names)
        yield classes.confusion_difference(facts.teacher, last, names)
        yield (
            classes.recall_plot(classes.recalls(facts.teacher, last, split, names), split) if split else None
        )
        yield layers.layer_plot(last["layers"]) if last.get("layers") else None
    if found := facts.result.get("sensitivity"):
        yield layers.sensitivity_plot(found)


def job_document(facts: JobFacts) -> Document:
    job, plots = facts.job, job_plots(facts)
    sections = [
        Section("Overview", "overview", _overview(facts)),
        Section("Stages", "stages", _stages(facts, plots)),
        Section("Learning", "learning", _learning(facts, plots)),
        Section("Pruning", "pruning", _pruning(facts, plots)),
        Section("Classes", "classes", _classes(facts, plots)),
        Section("Layers", "layers", _layers(facts, plots)),
        Section("How to repeat it", "repeat", _repeat(facts)),
    ]
    return Document(
        kind="job",
        ident=job.id,
        title=shown(job.name or job.id, 200),
        state="paused" if job.paused and job.state not in TERMINAL else job.state,
        summary=_summary(facts),
        sections=[section for section in sections if section.blocks],
    )


def _picture(facts: JobFacts, plots: dict[str, Plot], name: str) -> list[Block]:
    return [Picture(plots[name], f"/v1/jobs/{facts.job.id}/plots/{name}")] if name in plots else []


# ---- overview


def _summary(facts: JobFacts) -> str:
    """What a reader in a hurry wants to know, in two sentences."""
    job, last, teacher = facts.job, facts.last, facts.teacher
    if last is None or teacher is None:
        return _without_a_stage(facts)
    what = {SUCCEEDED: "The answer"}.get(job.state, "The last finished step's network")
    smaller = ratio(teacher["size_bytes"], last["size_bytes"])
    size = f"{what} has {number(last['size_bytes'])} bytes"
    if smaller is not None:
        size += (
            f", {significant(smaller)} times fewer than the teacher"
            if smaller >= 1
            else ", more than the teacher"
        )
    split = compared_split(last)
    if split is None:
        return f"{size}."
    mine, theirs = accuracy(last, split), accuracy(teacher, split)
    said = f"{size}. On {split} it gets {percent(mine)} % right"
    if theirs is not None:
        said += f", the teacher {percent(theirs)} %"
    lost = drop(last)
    if lost is not None:
        interval = f"95 % interval {points(-lost.high)} to {points(-lost.low)}"
        said += f": {points(-lost.value)} points ({interval}, {lost.num_images:,} images)"
    return said + "."


def _without_a_stage(facts: JobFacts) -> str:
    job = facts.job
    if job.state == FAILED:
        return "It failed before a step was finished."
    if job.state == CANCELLED:
        return "It was cancelled before a step was finished."
    if facts.snapshot.place is not None:
        return facts.snapshot.place.detail
    return "No step is finished yet."


def _overview(facts: JobFacts) -> list[Block]:
    blocks: list[Block] = []
    if facts.job.error:
        blocks += _error(facts.job.error)
    passed = facts.job.passed
    if passed is not None:
        blocks.append(
            Notice("good", "The answer is what the job asked for: all gates were met.")
            if passed
            else Notice("warning", "The answer misses a gate of the job.")
        )
    blocks += [Notice("warning", shown(text, 600)) for text in _warnings(facts)]
    blocks.append(Facts(list(_facts(facts))))
    if gates := facts.result.get("gates"):
        blocks.append(_gates(gates))
    if facts.job.error and facts.log:
        lines = "\n".join(f"{line.get('level')}: {shown(line.get('message', ''), 300)}" for line in facts.log)
        blocks.append(Folded("The last warnings and errors of its log", [Code(lines, "text")]))
    return blocks


def _error(error: dict[str, Any]) -> list[Block]:
    text = f"{error.get('code')}: {shown(error.get('detail', ''), 1000)}"
    blocks: list[Block] = [Notice("error", text)]
    if errors := error.get("errors"):
        columns = [Column(name, is_number=False) for name in ("where", "code", "what is wrong", "way out")]
        rows = [
            [
                shown(each.get("pointer") or each.get("parameter") or "", 120),
                shown(each.get("code", "")),
                shown(each.get("detail", ""), 300),
                shown(each.get("hint") or "", 300),
            ]
            for each in errors
        ]
        blocks.append(Table("What is wrong", columns, rows))
    return blocks


def _warnings(facts: JobFacts) -> list[str]:
    """Of the result; while there is none, the log has them."""
    if facts.job.result is not None:
        return list(facts.result.get("warnings") or [])
    return [line.get("message", "") for line in facts.log if line.get("level") == "warning"]


def _facts(facts: JobFacts) -> Iterator[tuple[str, str]]:
    job = facts.job
    steps = provenance.spec_line(job.spec)
    if steps:
        yield "steps", steps
    teachers = [shown(facts.teachers.get(ident) or ident, 60) for ident in job.spec.get("teachers", [])]
    if teachers:
        yield "teacher" if len(teachers) == 1 else "teachers", listed(teachers)
    if job.spec.get("dataset"):
        yield "data set", shown(facts.dataset_name or job.spec["dataset"], 60)
    if job.labels:
        yield "labels", ", ".join(f"{shown(key)}={shown(value)}" for key, value in sorted(job.labels.items()))
    yield "created", rfc3339(job.created_at)
    if job.state not in TERMINAL:
        yield from _progress(facts)
    elif job.started_at is not None and job.finished_at is not None:
        yield (
            "finished",
            f"{rfc3339(job.finished_at)}, {duration(job.finished_at - job.started_at)} after it began",
        )
    if reused := facts.result.get("reused_from"):
        yield "result of", f"{reused}, which did the same work on the same bytes"


def _progress(facts: JobFacts) -> Iterator[tuple[str, str]]:
    job, progress = facts.job, facts.job.progress or {}
    if job.phase:
        yield "now", shown(job.phase)
    if progress.get("fraction") is not None:
        yield "done", f"{percent(progress['fraction'])} %"
    if progress.get("eta_seconds") is not None:
        yield "this step ends in about", duration(progress["eta_seconds"])


def _gates(gates: list[dict[str, Any]]) -> Table:
    columns = [
        Column("gate", is_number=False),
        Column("limit"),
        Column("measured"),
        Column("standard error"),
        Column("met", is_number=False),
    ]
    rows = [
        [
            gate["gate"],
            _gate_value(gate["gate"], gate["limit"]),
            _gate_value(gate["gate"], gate["value"]),
            f"{percent(gate['standard_error'])} points"
            if gate.get("standard_error") is not None
            else NOTHING,
            "yes" if gate["passed"] else "no",
        ]
        for gate in gates
    ]
    return Table("Gates: what the job asked of its answer", columns, rows)


def _gate_value(name: str, value: float | None) -> str:
    if value is None:
        return NOTHING
    if name == "max_accuracy_drop":
        return f"{percent(value)} points"
    return f"{number(value)} bytes" if name == "max_bytes" else f"{significant(value)} ms"


# ---- the other sections


def _stages(facts: JobFacts, plots: dict[str, Plot]) -> list[Block]:
    if not facts.stages:
        return []
    blocks: list[Block] = [stage_table(facts.stages)]
    members = facts.stages[0].get("teachers") or []
    if len(members) > 1:
        blocks.append(_member_table(facts, members))
    if summary := facts.result.get("summary"):
        blocks.append(seed_table(summary))
    return [*blocks, *_picture(facts, plots, "accuracy_size")]


def _member_table(facts: JobFacts, members: list[dict[str, Any]]) -> Table:
    splits = [split for split in ("test", "val", "train") if any(split in m["splits"] for m in members)]
    columns = [
        Column("teacher", is_number=False),
        *(Column(f"{split} accuracy", "%") for split in splits),
        Column("size", "bytes"),
        Column("parameters"),
        Column("MACs"),
    ]
    rows = [
        [
            shown(facts.teachers.get(member["id"]) or member["id"], 60),
            *(percent(accuracy(member, split)) for split in splits),
            *(number(member[name]) for name in ("size_bytes", "parameters", "macs")),
        ]
        for member in members
    ]
    return Table("Each teacher alone", columns, rows)


def _learning(facts: JobFacts, plots: dict[str, Plot]) -> list[Block]:
    blocks = _picture(facts, plots, "learning_curves")
    seeds = facts.job.spec.get("seeds", 1)
    if blocks and seeds > MOST_SEEDS:
        blocks.append(Paragraph(f"Drawn are the first {MOST_SEEDS} of {seeds} seeds."))
    return blocks


def _pruning(facts: JobFacts, plots: dict[str, Plot]) -> list[Block]:
    found = list(iterations.prunings(facts.stages))
    tables: list[Block] = []
    for pruning in found:
        table = iterations.iteration_table(pruning)
        tables.append(table if len(pruning.rows) <= 12 else Folded(table.caption, [table]))
    return [*_picture(facts, plots, "prune_iterations"), *tables]


def _classes(facts: JobFacts, plots: dict[str, Plot]) -> list[Block]:
    last = facts.last
    split = compared_split(last) if last else None
    if last is None or split is None:
        return []
    found = classes.recalls(facts.teacher, last, split, facts.class_names)
    if not found:
        return []
    blocks = _picture(facts, plots, "recall")
    whole = classes.recall_table(found, f"Recall on {split}, every class")
    if len(found) <= _MOST_CLASSES:
        blocks.append(whole)
    else:
        if lost := classes.most_lost(found):
            blocks.append(classes.recall_table(lost, f"The classes that lost the most on {split}"))
        blocks.append(Folded(f"All {len(found):,} classes", [whole]))
    blocks += _picture(facts, plots, "confusion")
    if mistakes := classes.most_frequent_mistakes(facts.teacher, last, split, facts.class_names):
        blocks.append(classes.mistake_table(mistakes))
    return [*blocks, *_picture(facts, plots, "confusion_difference")]


def _layers(facts: JobFacts, plots: dict[str, Plot]) -> list[Block]:
    blocks: list[Block] = []
    if facts.last is not None and facts.last.get("layers"):
        rows = facts.last["layers"]
        table = layers.layer_table(rows, f"Layers of the network after step {facts.last['step']}")
        stored = sum(row["size_bytes"] for row in rows)
        note = (
            f"Stored bytes are those of the layers' tensors as they are encoded, {number(stored)} in all; the file is then "
            f"deflated, and holds graph, index and metrics as well: {number(facts.last['size_bytes'])} bytes."
        )
        blocks += [*_picture(facts, plots, "layers"), Paragraph(note)]
        blocks.append(table if len(table.rows) <= 24 else Folded(f"All {len(rows):,} layers", [table]))
    if found := facts.result.get("sensitivity"):
        table = layers.sensitivity_table(found)
        blocks += _picture(facts, plots, "sensitivity")
        blocks.append(table if len(table.rows) <= 24 else Folded(table.caption, [table]))
    return blocks


def _repeat(facts: JobFacts) -> list[Block]:
    blocks: list[Block] = []
    if facts.job.kind == "compress":
        blocks += provenance.repeating(facts)
    if (found := provenance.environment(facts)) is not None:
        blocks += [Paragraph("Where it was computed:"), found]
    if (artifact := facts.answer) is not None:
        blocks += provenance.receipt(artifact)
    if facts.attempts:
        blocks.append(provenance.attempt_table(facts.attempts))
    return [*blocks, provenance.whole_spec(facts)]
