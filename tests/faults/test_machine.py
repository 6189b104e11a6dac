"""Some hundred random steps on each database; `python -m tests.faults machine` takes as many as it is told."""

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.machine import JobMachine, long_run


@pytest.mark.usefixtures("database")
def test_the_verbs_do_what_the_model_does() -> None:
    run_state_machine_as_test(JobMachine, settings=long_run(25, 50))
