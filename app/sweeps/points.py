"""From the axes of a sweep to its points: at each, what it is called and the job as it is there.

What is wrong is told where the caller wrote it: an error at `/steps/0/alpha` of the third point is one at
`/axes/0/values/2` of the sweep.
"""

import copy
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from app.canonical import canonical_json
from app.errors import Problem
from app.spec import faults
from app.spec.job import JobSpec
from app.spec.sweep import Change, SweepSpec, parts

_MAX_ERRORS = 20
_MAX_SHOWN = 80
_INDEX = re.compile(r"(0|[1-9][0-9]{0,8})$", re.ASCII)
_LAST_SEED = 2**53 - 1
Errors = list[dict[str, Any]]


@dataclass(frozen=True)
class GridPoint:
    """`number`: its position in the grid, from 0. `params`: axis -> value, or the name of a setting."""

    number: int
    params: dict[str, Any]
    changes: tuple[Change, ...]

    @property
    def title(self) -> str:
        """As people read it: alpha=0.2, plan=pruned."""
        return ", ".join(f"{name}={_shown(value)}" for name, value in self.params.items())

    def source_of(self, pointer: str) -> str:
        """Where the sweep says what stands at this pointer of the job."""
        for change in reversed(self.changes):
            if pointer == change.pointer or pointer.startswith(f"{change.pointer}/"):
                return change.source + pointer[len(change.pointer) :]
        return f"/job{pointer}"


def grid(spec: SweepSpec) -> list[GridPoint]:
    """All points in order: the last axis is the fastest."""
    axes = [
        [
            (choice.params, [Change(c.pointer, c.value, f"/axes/{index}{c.source}") for c in choice.changes])
            for choice in axis.choices()
        ]
        for index, axis in enumerate(spec.axes)
    ]
    return [
        GridPoint(
            number,
            {name: value for params, _ in combination for name, value in params.items()},
            tuple(change for _, changes in combination for change in changes),
        )
        for number, combination in enumerate(itertools.product(*axes))
    ]


def jobs_at(spec: SweepSpec, points: Sequence[GridPoint]) -> list[JobSpec]:
    """The job of each point, with its first seed. Raises Problem 422 INVALID_SPEC that lists what is wrong, each once."""
    found: list[JobSpec] = []
    errors: Errors = []
    for point in points:
        made = _job_at(spec, point)
        if isinstance(made, JobSpec):
            found.append(made)
        else:
            errors += [_located(point, error) for error in made]
        if len(errors) >= _MAX_ERRORS:
            break
    if errors:
        raise refusal(errors)
    return found


def _job_at(spec: SweepSpec, point: GridPoint) -> JobSpec | Errors:
    body = copy.deepcopy(spec.job)
    for change in point.changes:
        fault = _set(body, change.pointer, copy.deepcopy(change.value))
        if fault is not None:
            hint = "Name a field whose parent is in `job`, or let an earlier axis set the parent."
            return [{"pointer": change.pointer, "code": "NO_SUCH_PARENT", "detail": fault, "hint": hint}]
    try:
        job = JobSpec.model_validate(body)
    except ValidationError as invalid:
        return [faults.described(fault, fault["loc"], body) for fault in invalid.errors(include_url=False)]
    return _seed_errors(spec, job) or job


def _seed_errors(spec: SweepSpec, job: JobSpec) -> Errors:
    if job.seeds != 1:
        detail = f"A job of a sweep has one seed, and this one has {job.seeds}."
        hint = "Leave seeds out of the job, and give the sweep's own seeds."
        return [{"pointer": "/seeds", "code": "SEEDS_OF_A_JOB", "detail": detail, "hint": hint}]
    if job.seed + spec.seeds - 1 > _LAST_SEED:
        detail = f"The last of {spec.seeds} seeds would be {job.seed + spec.seeds - 1}, beyond 2^53 - 1."
        return [
            {"pointer": "/seed", "code": "SEED_TOO_LARGE", "detail": detail, "hint": "Take a smaller one."}
        ]
    return []


def _set(body: Any, pointer: str, value: Any) -> str | None:
    """Put the value there, in place; or what is in the way."""
    *way, last = parts(pointer)
    parent = body
    for depth, part in enumerate(way):
        inner = _entry(parent, part)
        if inner is None:
            gone = "/".join(["", *way[: depth + 1]])
            return f"The job has nothing at {gone}, so nothing can be set below it."
        parent = inner[0]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list) and last == "-":
        parent.append(value)
    elif isinstance(parent, list) and _entry(parent, last) is not None:
        parent[int(last)] = value
    elif isinstance(parent, list):
        return f"{'/'.join(['', *way])} has {len(parent)} entries, from 0 on; - adds one."
    else:
        return f"{'/'.join(['', *way])} is neither an object nor a list, so nothing can be set below it."
    return None


def _entry(parent: Any, part: str) -> tuple[Any] | None:
    """What is there under this name, in a tuple of its own: it may be null."""
    if isinstance(parent, dict) and part in parent:
        return (parent[part],)
    if isinstance(parent, list) and _INDEX.match(part) and int(part) < len(parent):
        return (parent[int(part)],)
    return None


def _located(point: GridPoint, error: dict[str, Any]) -> dict[str, Any]:
    """A job's error as the sweep's, with the first point that has it."""
    pointer = point.source_of(error["pointer"])
    if not point.params:  # there is only this one
        return error | {"pointer": pointer}
    return error | {
        "pointer": pointer,
        "detail": f"At point {point.number} ({point.title}): {error['detail']}",
    }


def refusal(errors: Errors) -> Problem:
    """What is wrong at several points is told once, with the first of them."""
    once: dict[tuple[str, str], dict[str, Any]] = {}
    for error in errors:
        once.setdefault((error["pointer"], error["code"]), error)
    told = list(once.values())
    first = told[0]
    more = f" (and {len(told) - 1} more, see errors)" if len(told) > 1 else ""
    sentence = f"{first['pointer']}: {first['detail']} {first.get('hint') or ''}".rstrip()
    waiting = all(error["code"] == "NOT_READY" for error in told)
    return Problem(422, "INVALID_SPEC", sentence + more, errors=told[:_MAX_ERRORS], retryable=waiting)


def located(point: GridPoint, problem: Problem) -> Errors:
    """A job's problem as errors of the sweep."""
    return [_located(point, error) for error in problem.errors]


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else canonical_json(value)
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def seeds_of(job: JobSpec, first: int, end: int) -> Iterator[JobSpec]:
    """The job with its seeds from the one at position `first` to before `end`."""
    for position in range(first, end):
        yield job.model_copy(update={"seed": job.seed + position})
