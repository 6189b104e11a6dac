"""What a preset costs before anybody names teachers and photos: jobs, and epochs of training."""

from functools import lru_cache

from pydantic import BaseModel

from app import presets
from app.planning.costs import trained_epochs
from app.sweeps.points import grid, jobs_at


class Cost(BaseModel):
    """`epochs`: of all jobs as their specs have them, before any is shared. `?validate_only=true` on `POST /v1/sweeps` says
    it in multiply-adds, for one's own photos."""

    jobs: int
    epochs: int


@lru_cache
def cost(name: str, *, short: bool) -> Cost:
    """With the defaults, or with the short ones."""
    asked = presets.expand(name, presets.placeholders(name), presets.PLACEHOLDER_DATASET, {"short": short})
    jobs = jobs_at(asked, grid(asked))
    epochs = sum(trained_epochs(step) for job in jobs for step in job.steps)
    return Cost(jobs=asked.seeds * len(jobs), epochs=asked.seeds * epochs)
