"""Sweeps: one spec, many jobs.

`app.sweeps` itself is what every job's end needs: who of its sweep may go now. `app.jobs` imports it, so nothing here
imports `app.jobs`; that do `submitting` and `verbs`, what callers do with sweeps. `reads` answers questions.
"""

from app.sweeps.advancing import HELD, advance, lock, lock_free, lock_of, stuck, tried_together
from app.sweeps.infeasible import INFEASIBLE, SHARED_STAGE_FAILED

__all__ = [
    "HELD",
    "INFEASIBLE",
    "SHARED_STAGE_FAILED",
    "advance",
    "lock",
    "lock_free",
    "lock_of",
    "stuck",
    "tried_together",
]
