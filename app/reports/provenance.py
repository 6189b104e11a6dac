"""Where a result comes from and how to get it again: spec, receipt, environment, attempts."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from app.db import rfc3339
from app.reports.document import Block, Code, Column, Facts, Folded, Paragraph, Table
from app.reports.job_facts import JobFacts
from app.reports.wording import NOTHING, duration, number, shown
from app.spec.job import JobSpec
from app.tables import Artifact, Attempt

# What tells one step from another at a glance, in this order; the first few also where they are the default.
_ALWAYS = ("student", "scheme", "bits", "criterion", "alpha", "epochs")
_TELLING = (
    *(
        "student",
        "scheme",
        "bits",
        "granularity",
        "rounding",
        "criterion",
        "keep_rate",
        "units",
        "iterations",
    ),
    *(
        "recover",
        "target",
        "sparsity",
        "kind",
        "groups",
        "keep_first",
        "energy",
        "ratio",
        "rank",
        "loss",
        "alpha",
        "temperature",
    ),
    *("epochs", "train_fraction", "transfer_splits", "learning_rate", "augment"),
)


def spec_line(spec: dict[str, Any]) -> str:
    """A job's steps in one line: distill (report/final, alpha 0.8, epochs 30) → quantize (minmax)."""
    steps = zip(spec.get("steps", []), asked(spec).get("steps", []), strict=True)
    return " → ".join(_step_line(whole, said) for whole, said in steps)


def _step_line(step: dict[str, Any], said: dict[str, Any]) -> str:
    named = [name for name in _TELLING if name in said or (name in _ALWAYS and step.get(name))]
    told = [_told(name, step[name]) for name in named if step.get(name) is not None]
    return f"{step.get('method')} ({', '.join(told)})" if told else str(step.get("method"))


def _told(name: str, value: Any) -> str:
    if name == "student":
        if not isinstance(value, dict):
            return shown(value, 60)
        budget = value.get("budget")
        what = value.get("architecture") or "a graph of its own"
        return shown(what, 60) + (f" within {_plainly(budget)}" if budget is not None else "")
    if name == "scheme":
        return shown(value, 40)
    return f"{name.replace('_', ' ')} {_plainly(value)}"


def _plainly(value: Any) -> str:
    if isinstance(value, dict):
        return shown(
            " ".join(f"{key} {_plainly(item)}" for key, item in value.items() if item is not None), 60
        )
    if isinstance(value, list):
        return shown(f"[{', '.join(map(_plainly, value))}]", 60)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else shown(value, 40)


def asked(spec: dict[str, Any], schema: type[BaseModel] = JobSpec) -> dict[str, Any]:
    """The spec without what is the default anyway. One that this version no longer reads comes back as it is."""
    try:
        return schema.model_validate(spec).model_dump(mode="json", exclude_defaults=True)
    except ValidationError:
        return spec


def curl(path: str, body: dict[str, Any]) -> Code:
    """The command that posts this body. Nothing in it means anything to a shell: a quoted here-document, ASCII alone."""
    document = json.dumps(body, indent=2)
    return Code(
        f"U=http://127.0.0.1:8000   # where the service answers\ncurl \"$U{path}\" --json @- <<'JSON'\n{document}\nJSON"
    )


def repeating(facts: JobFacts) -> list[Block]:
    spec = facts.job.spec
    blocks: list[Block] = [
        Paragraph(
            "The same spec on the same teachers and data, with the same number of threads on the same kind of processor, "
            "gives the same bytes. Steps and fields at their defaults are left out."
        ),
        curl("/v1/jobs", asked(spec)),
    ]
    seeds = spec.get("seeds", 1)
    first = spec.get("seed", 0)
    pairs = [
        (
            "seed",
            str(first)
            if seeds == 1
            else f"{first} to {first + seeds - 1}; the answer is that of {facts.result.get('seed', NOTHING)}",
        )
    ]
    pairs += [("teacher", _named(ident, facts.teachers)) for ident in spec.get("teachers", [])]
    pairs.append(("data set", _named(spec.get("dataset", ""), {spec.get("dataset", ""): facts.dataset_name})))
    for split, found in (facts.result.get("splits") or {}).items():
        pairs.append((f"{split}, {found['num_images']:,} images", f"sha256 {found['digest']}"))
    if facts.job.result_key:
        pairs.append(("result key", facts.job.result_key))
    return [*blocks, Facts(pairs)]


def _named(ident: str, names: dict[str, str | None]) -> str:
    name = names.get(ident)
    return f"{shown(name, 100)} ({ident})" if name else ident


def receipt(artifact: Artifact) -> list[Block]:
    path = f"/v1/artifacts/{artifact.id}"
    command = (
        "U=http://127.0.0.1:8000   # where the service answers\n"
        f'curl -o answer.pt "$U{path}/content"\n'
        f'curl -o receipt.json "$U{path}/receipt"\n'
        'curl -O "$U/v1/tools/load_artifact.py"\n'
        "python load_artifact.py answer.pt verify receipt.json                       # bytes, parameters, MACs\n"
        "python load_artifact.py answer.pt verify receipt.json --photos photos.zip   # and every accuracy"
    )
    pairs = [
        ("file", f"{artifact.name} ({artifact.kind})"),
        ("size", f"{artifact.size_bytes:,} bytes"),
        ("sha256", artifact.sha256),
        ("artifact", artifact.id),
    ]
    blocks: list[Block] = [Facts(pairs)]
    if artifact.receipt is None:
        return [*blocks, Paragraph("This file was made before artifacts had receipts.")]
    return [
        *blocks,
        Paragraph("Its receipt is checked without this service, with torch and Pillow alone:"),
        Code(command),
    ]


def environment(facts: JobFacts) -> Facts | None:
    found = facts.result.get("environment")
    if not found:
        return None
    names = {
        "fewbytes": "fewbytes",
        "python": "Python",
        "torch": "PyTorch",
        "device": "device",
        "num_threads": "threads",
        "precision": "precision of training",
        "cpu": "processor",
    }
    return Facts(
        [(title, _cell(found[name])) for name, title in names.items() if found.get(name) is not None]
    )


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else shown(value, 120)


def attempt_table(attempts: Sequence[Attempt]) -> Table:
    columns = [
        Column("attempt"),
        Column("worker", is_number=False),
        Column("device", is_number=False),
        Column("began", is_number=False),
        Column("took"),
        Column("outcome", is_number=False),
        Column("how it ended", is_number=False),
    ]
    rows = [
        [
            number(attempt.n),
            shown(attempt.worker, 60),
            shown(attempt.device or NOTHING, 60),
            rfc3339(attempt.started_at),
            duration(attempt.ended_at - attempt.started_at) if attempt.ended_at else NOTHING,
            attempt.outcome or "running",
            shown(attempt.detail or "", 300),
        ]
        for attempt in attempts
    ]
    return Table("Attempts", columns, rows)


def whole_spec(facts: JobFacts) -> Folded:
    return Folded("The whole spec, defaults and all", [Code(json.dumps(facts.job.spec, indent=2), "json")])
