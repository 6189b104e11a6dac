"""Real workers with fake trainers: messages, connections, clocks and poison change no result. On both databases."""

from collections.abc import Iterator

import pytest

from tests.faults import clock, connections, messages, poison
from tests.faults.options import Options
from tests.faults.report import Row, complaints
from tests.faults.rig import PartsRig

FEW = Options(rounds=1, is_quiet=True)


@pytest.fixture(scope="module", params=[True, False], ids=["sqlite", "postgresql"])
def rig(request: pytest.FixtureRequest) -> Iterator[PartsRig]:
    """Two workers whose clocks are an hour wrong, behind proxies."""
    with clock.skewed_rig(FEW, on_sqlite=request.param, with_proxies=True) as made:
        yield made


def assert_good(row: Row) -> None:
    assert complaints([row]) == []
    assert row.tried


def test_each_message_six_times_in_another_order_runs_each_job_once(rig: PartsRig) -> None:
    assert_good(messages.repeated(rig, FEW, num_jobs=40))


def test_a_broker_that_is_wiped_loses_no_job(rig: PartsRig) -> None:
    assert_good(messages.emptied(rig, FEW))


def test_a_poison_job_ends_after_three_attempts_and_hardly_delays_others(rig: PartsRig) -> None:
    assert_good(poison.campaign(rig, FEW, num_poison=1, num_jobs=6))


@pytest.mark.parametrize("server", ["broker", "database"])
def test_cut_connections_lose_no_job(rig: PartsRig, server: str) -> None:
    if server not in rig.proxies:
        pytest.skip("SQLite is a file")
    few = Options(rounds=3, is_quiet=True)
    row = connections.campaign(
        rig, f"{server} cut", connections.cut, rig.proxies[server], few, num_jobs=4, ticks=15
    )
    assert_good(row)


def test_a_lease_does_not_care_about_its_workers_clock(rig: PartsRig) -> None:
    assert_good(clock.campaign(rig, FEW, num_jobs=3, ticks=20))
