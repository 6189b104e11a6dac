"""What several jobs of a sweep have in common is trained once: which first steps, by a job of their own, for whom.

Two jobs have their first n steps in common when those steps, the seed, the teachers, the data, the device and the number
of threads are equal, word for word: then the n-th network is the same to the bit. The shared beginnings form a tree; each
of its nodes where jobs part is a *stage job*, which begins where the stage job before it ended.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from app.canonical import canonical_json, fingerprint
from app.spec.job import JobSpec
from app.spec.steps.base import StepSpec

_DECIDES = ("seed", "teachers", "dataset", "device", "num_threads")


@dataclass(frozen=True)
class Stage:
    """The first `num_steps` steps of all `members` (positions in the list of jobs).

    `after`: the position, in the list of stages, of the one whose steps it begins with; it has `begun_steps`.
    `snapshot_epochs`: step -> epochs whose weights members go back to in later steps.
    """

    num_steps: int
    members: list[int]
    after: int | None = None
    begun_steps: int = 0
    snapshot_epochs: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Tree:
    """`stages`: those that others begin with come before them. `after`: for each job the position of its stage, or None."""

    stages: list[Stage]
    after: list[int | None]

    def begun_steps(self, job: int) -> int:
        position = self.after[job]
        return 0 if position is None else self.stages[position].num_steps

    @property
    def num_served(self) -> int:
        return sum(position is not None for position in self.after)

    @property
    def steps_saved(self) -> int:
        """Steps that the jobs name, less those that are done."""
        done_once = sum(stage.num_steps - stage.begun_steps for stage in self.stages)
        return sum(self.begun_steps(job) for job in range(len(self.after))) - done_once


def tree(jobs: Sequence[JobSpec], alone: Collection[int] = ()) -> Tree:
    """The stage jobs that save the most steps. One that would train nothing is none: its steps cost no time.

    `alone`: positions of jobs that share nothing.
    """
    paths = [[] if position in alone else _beginnings(job) for position, job in enumerate(jobs)]
    members: dict[str, list[int]] = defaultdict(list)
    for position, path in enumerate(paths):
        for key in path:
            members[key].append(position)
    stages: list[Stage] = []
    chosen: dict[str, int] = {}
    for num_steps in range(1, max(map(len, paths), default=0) + 1):
        for key in dict.fromkeys(path[num_steps - 1] for path in paths if len(path) >= num_steps):
            if not _parts_here(members, paths, jobs, key, num_steps):
                continue
            first = jobs[members[key][0]]
            after = _last_chosen(chosen, paths[members[key][0]][: num_steps - 1])
            begun = 0 if after is None else stages[after].num_steps
            if not any(step.trained_splits for step in first.steps[begun:num_steps]):
                continue
            chosen[key] = len(stages)
            snapshots = _snapshot_epochs([jobs[member] for member in members[key]], num_steps)
            stages.append(Stage(num_steps, members[key], after, begun, snapshots))
    return Tree(stages, [_last_chosen(chosen, path) for path in paths])


def _beginnings(job: JobSpec) -> list[str]:
    """A key for each beginning that may be shared: equal for equal beginnings."""
    spec = job.model_dump(mode="json")
    key = fingerprint({name: spec[name] for name in _DECIDES})
    keys: list[str] = []
    for step, described in zip(job.steps, spec["steps"], strict=True):
        if step.depends_on_later_steps:
            break
        key = fingerprint([key, canonical_json(described)])
        keys.append(key)
    return keys


def _parts_here(
    members: dict[str, list[int]],
    paths: Sequence[Sequence[str]],
    jobs: Sequence[JobSpec],
    key: str,
    num_steps: int,
) -> bool:
    """Whether several jobs have this beginning in common and not all of them a longer one. The last step of a job is
    shared only if others go on from it."""
    sharing = members[key]
    if len(sharing) < 2 or all(len(jobs[member].steps) == num_steps for member in sharing):
        return False
    longer = {paths[member][num_steps] if len(paths[member]) > num_steps else None for member in sharing}
    if len(longer) > 1 or None in longer:
        return True
    return all(len(jobs[member].steps) == num_steps + 1 for member in sharing)


def _last_chosen(chosen: dict[str, int], path: Sequence[str]) -> int | None:
    return next((chosen[key] for key in reversed(path) if key in chosen), None)


def _snapshot_epochs(jobs: Sequence[JobSpec], num_steps: int) -> dict[str, list[int]]:
    found: dict[str, set[int]] = defaultdict(set)
    for job in jobs:
        for later in range(num_steps, len(job.steps)):
            trained = _last_trained(job.steps[:later])
            if trained is not None and trained <= num_steps:
                found[str(trained)].update(job.steps[later].rewind_epochs)
    return {step: sorted(epochs) for step, epochs in sorted(found.items()) if epochs}


def _last_trained(steps: Sequence[StepSpec]) -> int | None:
    """The 1-based number of the last of these steps that trains from epoch 0 on: a later one goes back to its epochs."""
    return next((number for number in range(len(steps), 0, -1) if steps[number - 1].trains), None)
