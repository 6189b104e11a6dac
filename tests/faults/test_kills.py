"""Twenty kills and three zombies with real trainers; the long run is `python -m tests.faults kills zombies`."""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from app.storage.objects import Storage
from tests.faults import disk, kills, zombies
from tests.faults.options import Options
from tests.faults.report import Row, complaints, judge
from tests.faults.rig import Rig, parts_rig, up_rig
from tests.faults.work import Work

EPOCHS = 30
SETUPS = {"fewbytes up": up_rig, "postgresql": parts_rig}


@pytest.fixture(scope="module", params=SETUPS)
def work(request: pytest.FixtureRequest) -> Iterator[Work]:
    """A running service and its work, done once undisturbed."""
    opened: AbstractContextManager[Rig] = SETUPS[request.param](**kills.SPARED)
    with opened as rig, Work(rig, random.Random(5), EPOCHS) as made:
        made.undisturbed()
        yield made


def assert_good(row: Row) -> None:
    assert complaints([row]) == []
    assert row.tried


def test_whatever_is_killed_each_job_ends_once_with_the_same_bytes(work: Work) -> None:
    row = Row("SIGKILL", work.rig.setup)
    kills.some(work, row, Options(rounds=10, is_quiet=True))
    work.wait()
    assert_good(judge(row, work.expected(), work.rig.storage))


@pytest.mark.parametrize("who", zombies.WHO)
def test_a_zombie_changes_nothing(work: Work, who: str) -> None:
    if work.rig.setup.startswith("SQLite"):
        pytest.skip("three are enough; every verb of fifty more is tried on both databases")
    assert_good(zombies.campaign(work.rig, work, who, Options(rounds=1, is_quiet=True)))


@pytest.mark.usefixtures("database")
def test_fifty_stale_claims_commit_nothing(tmp_path: Path) -> None:
    assert_good(zombies.stale_verbs(Storage(tmp_path), "", 50))


def test_a_full_disk_loses_no_job() -> None:
    try:
        with disk.small_disk() as mounted:
            assert_good(disk.campaign(mounted, Options(rounds=1, is_quiet=True), epochs=EPOCHS))
    except disk.CannotMountError as error:
        pytest.skip(f"this account may not mount a tmpfs: {error}")
