"""Whether jobs may be compared: the same teacher, the same photos, the same code that measured them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.analysis.reads import Gathered
from app.tables import Teacher

_EVALUATED = ("val", "test")


class Shared(BaseModel):
    """Null: no job has a result yet. `splits`: val and test, which jobs are measured on."""

    teacher: bool | None
    splits: bool | None
    version: bool | None


class Digests(BaseModel):
    """All that occur, each once. `teacher`: sha256 of the teachers' files as jobs read them, or the id of one that was
    deleted; `splits`: split -> sha256 of its photos and labels; `version`: of fewbytes, which measured."""

    teacher: list[list[str]]
    splits: dict[str, list[str]]
    version: list[str]


class CommonGround(BaseModel):
    shared: Shared
    digests: Digests
    warnings: list[str]


def common_ground(session: Session, gathered: Gathered) -> CommonGround:
    """What the jobs that have results share, and a warning for each thing that they do not."""
    done = [child for child in gathered.children if gathered.results.get(child.job.id)]
    results = [gathered.results[child.job.id] or {} for child in done]
    digests = Digests(
        teacher=_teachers(session, [child.job.spec["teachers"] for child in done]),
        splits=_splits(results),
        version=_distinct((result.get("environment") or {}).get("fewbytes") for result in results),
    )
    shared = Shared(
        teacher=_all_equal(done, digests.teacher),
        splits=_all_equal(done, *(digests.splits.get(split, []) for split in _EVALUATED)),
        version=_all_equal(done, digests.version),
    )
    return CommonGround(shared=shared, digests=digests, warnings=list(_warnings(digests, results)))


def _all_equal(done: Sequence[Any], *found: Sequence[Any]) -> bool | None:
    return all(len(each) <= 1 for each in found) if done else None


def _distinct(values: Iterable[Any]) -> list[Any]:
    return sorted({value for value in values if value is not None})


def _teachers(session: Session, named: Iterable[Sequence[str]]) -> list[list[str]]:
    teams = {tuple(ids) for ids in named}
    every = {ident for team in teams for ident in team}
    query = select(Teacher.id, Teacher.artifact_sha256).where(Teacher.id.in_(every))
    digests = {ident: sha256 for ident, sha256 in session.execute(query) if sha256}
    return [
        list(team) for team in sorted({tuple(digests.get(each, each) for each in team) for team in teams})
    ]


def _splits(results: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """A job whose data has no such split differs from one whose data has: its digest is "none"."""
    everything = [result.get("splits") or {} for result in results]
    names = [
        split for split in ("train", "val", "test", "unlabeled") if any(split in each for each in everything)
    ]
    return {
        split: _distinct((each.get(split) or {}).get("digest") or "none" for each in everything)
        for split in names
    }


def _warnings(digests: Digests, results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if len(digests.teacher) > 1:
        yield (
            f"Not the same teacher: there are {len(digests.teacher)}. compression_ratio, speed_up and agreement are each to "
            "the job's own."
        )
    for split, found in digests.splits.items():
        if len(found) < 2:
            continue
        if split in _EVALUATED:
            yield f"Not the same {split} images: there are {len(found)} digests. Accuracies on other photos do not compare."
        else:
            yield f"Not the same {split} images: the jobs learned from {len(found)} sets of photos."
    if len(digests.version) > 1:
        yield f"Not measured by the same version of fewbytes: {', '.join(digests.version)}."
    yield from _latency_warnings(results)
    yield from _leak_warnings(results)


def _latency_warnings(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    places = {
        f"{latency.get('device')} with {latency.get('num_threads')} threads"
        for result in results
        if result.get("stages") and (latency := result["stages"][-1].get("latency_ms"))
    }
    if len(places) > 1:
        yield f"latency_ms was measured on {'; '.join(sorted(places))}: it does not compare."


def _leak_warnings(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    leaked: Counter[str] = Counter()
    for result in results:
        stages = result.get("stages") or [{}]
        splits = stages[-1].get("splits") or {}
        leaked.update(split for split in _EVALUATED if (splits.get(split) or {}).get("leaked"))
    for split, number in leaked.items():
        yield f"{number} of {len(results)} jobs trained on {split}: their {split} figures say nothing of other photos."
