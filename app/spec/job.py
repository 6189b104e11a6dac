"""The job: teachers, data, steps in order."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from app.spec.base import Name, Seed, Spec
from app.spec.budget import Bytes
from app.spec.steps import AnyStep
from app.spec.steps.base import StepSpec

GATES = ("max_bytes", "max_accuracy_drop", "max_latency_ms")
"""The fields by which a job says what it wants its answer to be."""

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,63}$")]


class JobSpec(Spec):
    """Compress the teachers' knowledge of this data set, step by step; every step is measured."""

    name: Name | None = None
    labels: Annotated[dict[Label, Annotated[str, Field(max_length=200)]], Field(max_length=32)] = {}
    teachers: Annotated[
        list[Annotated[str, Field(pattern=r"^tch_[0-9a-z]{1,40}$")]], Field(min_length=1, max_length=16)
    ]
    dataset: Annotated[str, Field(pattern=r"^dst_[0-9a-z]{1,40}$")]
    steps: Annotated[list[AnyStep], Field(min_length=1, max_length=32)]
    seed: Seed = 0
    seeds: Annotated[int, Field(ge=1, le=100)] = 1
    """Run all steps this many times, with seed, seed + 1, ...: the result then has mean, std, min and max of every stage.
    The artifact is that of the seed with the best val accuracy (optimistic there; test stays honest)."""
    exports: Annotated[list[Literal["course_8bit", "course_16bit"]], Field(max_length=4)] = []
    """The answer in other formats as well: the course's pickles of `name -> (min, max, uint8 array)` or float16 arrays."""
    max_bytes: Bytes | None = None
    """What the answer's .pt may have. This and the next two are gates: the result says whether each was met, in `gates`, and
    the job whether all were, in `passed`. Nothing fails, and nothing is made smaller for them: a student's `budget` and a
    prune step's `target` do that."""
    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """What the answer's accuracy may be below the teacher's (several: the ensemble's), on test, or on val where there is no
    test: 0.01 is one image in a hundred."""
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    """What one image may take in the median, on the job's device with its threads."""
    sensitivity: bool = False
    """Also tell how much each layer of the answer bears: what val (test where there is no val) loses when this one layer is
    stored in 4 bits, and when the quarter of its output channels with the smallest l2 norm is silent. In the result's
    `sensitivity`; it takes two evaluations a layer on up to 1,000 images, and changes no file."""
    reuse_result: bool = False
    """Take the result of an earlier job of yours that did the same with the same teachers and data, if there is one. It has
    succeeded at once then, and its result names the other job in `reused_from`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """cuda: only a worker with a GPU takes it. auto: any worker does, and computes on the GPU if it has one."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Among your own jobs, the higher goes first; other tenants' turns come as before."""
    memory_bytes: Annotated[int, Field(ge=1, le=1 << 50)] | None = None
    """What the trainer needs: a worker with less leaves the job alone. Of a worker with a GPU, the GPU's memory counts."""
    num_threads: Annotated[int, Field(ge=1, le=256)] | None = None
    """Torch threads on the CPU; results repeat to the bit only at the same number."""
    deadline_seconds: Annotated[float, Field(gt=0, le=30 * 86400)] | None = None
    """What all attempts together may run; waiting does not count. A job that does not end in time fails with
    DEADLINE_EXCEEDED and keeps its best student so far. `POST …/retry` gives it the whole time again."""

    @model_validator(mode="after")
    def _steps_fit(self) -> "JobSpec":
        if len(set(self.teachers)) != len(self.teachers):
            raise ValueError("teachers names a teacher twice: name each once (use weights to favour one)")
        for index, step in enumerate(self.steps):
            weights: Any = getattr(step, "weights", None)
            if weights is not None and len(weights) != len(self.teachers):
                raise ValueError(
                    f"steps[{index}].weights has {len(weights)} values for {len(self.teachers)} teachers: give one each"
                )
            if index == 0 and step.needs_model and len(self.teachers) > 1:
                raise ValueError(
                    f"steps[0] ({step.method}) edits one network, but there are {len(self.teachers)} teachers: "
                    "begin with a step that trains a student, or name one teacher"
                )
            self._rewinds_fit(index, step)
        return self

    def _rewinds_fit(self, index: int, step: StepSpec) -> None:
        """Weights of an epoch are those of the last step before that trains."""
        if not step.rewind_epochs:
            return
        trained = next((other for other in reversed(self.steps[:index]) if other.trains), None)
        furthest = max(step.rewind_epochs)
        if trained is None:
            raise ValueError(
                f"steps[{index}] ({step.method}) goes back to the weights of epoch {furthest}, and no step before it trains "
                "a network: put a train, finetune or distill step before it, or keep the weights (learning-rate rewinding)"
            )
        epochs: int = trained.epochs
        if furthest > epochs:
            raise ValueError(
                f"steps[{index}] ({step.method}) goes back to the weights of epoch {furthest}, and the "
                f"{trained.method} step before it trains {epochs} epochs: go back to an epoch from 0 to {epochs}"
            )
