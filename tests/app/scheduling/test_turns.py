"""Counting turns, against claiming them one by one."""

from hypothesis import given
from hypothesis import strategies as st

from app.scheduling.turns import Share, ahead_of


def share(name: str, waiting: int, *, running: int = 0, work: float = 0.0, weight: float = 1.0) -> Share:
    return Share(name, weight, waiting, running, work, (0.0, name))


def ahead(
    mine: Share, own_ahead: int, *others: Share, num_workers: int = 0, job_seconds: float = 60.0
) -> int:
    found = ahead_of(mine, own_ahead, others, num_workers=num_workers, job_seconds=job_seconds)
    return sum(found.values())


def test_tenants_with_equal_shares_alternate() -> None:
    assert ahead(share("b", 5), 0, share("a", 100)) == 1
    assert ahead(share("b", 5), 3, share("a", 100)) == 4
    assert ahead(share("b", 5), 3, share("a", 2)) == 2
    assert ahead(share("a", 5), 0, share("b", 100)) == 0


def test_a_double_weight_has_two_turns_for_one() -> None:
    assert ahead(share("b", 5), 2, share("a", 100, weight=2.0)) == 5
    assert ahead(share("a", 100, weight=2.0), 5, share("b", 5)) == 3


def test_whoever_has_more_running_waits_for_the_others() -> None:
    assert ahead(share("a", 5, running=3), 0, share("b", 100), num_workers=8) == 3


def test_with_one_worker_the_work_done_lately_decides() -> None:
    """An hour more than the other's: sixty of its jobs, a minute each, come first."""
    hour = share("a", 5, work=3600.0)
    assert ahead(hour, 0, share("b", 100), num_workers=1) == 60
    assert ahead(share("b", 100), 59, hour, num_workers=1) == 0
    assert ahead(share("b", 100), 60, hour, num_workers=1) == 1


amounts = st.tuples(
    st.integers(0, 8), st.integers(0, 4), st.integers(0, 5), st.sampled_from([0.5, 1.0, 2.0, 4.0])
)


@given(st.lists(amounts, min_size=2, max_size=4), st.booleans(), st.data())
def test_it_is_what_claiming_one_by_one_gives(
    rows: list[tuple], many_workers: bool, data: st.DataObject
) -> None:
    """Each claim is one job more that runs or, with a single worker, one job's seconds more that are done."""
    shares = [
        share(f"t{n}", waiting, running=running, work=60.0 * minutes, weight=weight)
        for n, (waiting, running, minutes, weight) in enumerate(rows)
    ]
    mine = shares[0]
    own_ahead = data.draw(st.integers(0, mine.num_waiting))
    claimed = {one.tenant_id: 0 for one in shares}

    def load(one: Share) -> tuple[float, float, str]:
        turn = claimed[one.tenant_id]
        work = one.work_seconds / one.weight
        if many_workers:
            return (one.num_running + turn) / one.weight, work, one.tenant_id
        return (one.work_seconds + 60.0 * turn) / one.weight, 0.0, one.tenant_id

    while True:
        # The job asked for is the tenant's last one that counts here: it waits even if no other does.
        left = {one.tenant_id: one.num_waiting - claimed[one.tenant_id] for one in shares}
        left[mine.tenant_id] = own_ahead + 1 - claimed[mine.tenant_id]
        first = min((one for one in shares if left[one.tenant_id] > 0), key=load)
        if first is mine and left[mine.tenant_id] == 1:
            break
        claimed[first.tenant_id] += 1
    expected = {name: number for name, number in claimed.items() if name != mine.tenant_id}
    found = ahead_of(mine, own_ahead, shares[1:], num_workers=8 if many_workers else 1, job_seconds=60.0)
    assert found == expected
