"""The way between the service and its servers: cut, slow, half open; and servers that are frozen."""

import random
import time
from collections.abc import Callable

from sqlalchemy import func, select

from app.db import reading
from app.tables import Event, Job
from tests.faults.fakes import fake_rig, num_ended, submit_work, wait_until_ended
from tests.faults.options import Options
from tests.faults.proxy import Proxy
from tests.faults.report import Row, judge
from tests.faults.rig import LEASE_SECONDS, PartsRig
from tests.faults.work import PATIENCE_SECONDS, until

# A minute of trouble in a row may cost a job more attempts than it has; that is another campaign's.
SPARED = {"FEWBYTES_MAX_FAILURES": "1000", "FEWBYTES_RETRY_PAUSE_SECONDS": "0"}


def run(options: Options) -> list[Row]:
    rows = []
    for on_sqlite in (True, False):
        with fake_rig(options, on_sqlite=on_sqlite, with_proxies=True, **SPARED) as rig:
            for what, proxy in rig.proxies.items():
                for fault in FAULTS:
                    rows.append(campaign(rig, f"{what}: {fault}", FAULTS[fault], proxy, options))
            for what, server in (("broker", rig.broker), ("database", rig.postgres)):
                if server is not None:
                    rows.append(frozen(rig, what, server.freeze, server.thaw, options))
    return rows


def cut(proxy: Proxy, chance: random.Random) -> None:
    proxy.cut()


def slow(proxy: Proxy, chance: random.Random) -> None:
    proxy.delay(chance.uniform(0.05, 0.5))
    time.sleep(LEASE_SECONDS / 2)
    proxy.heal()


def half_open(proxy: Proxy, chance: random.Random) -> None:
    """Sometimes for longer than a lease."""
    proxy.half_open()
    time.sleep(chance.uniform(0.5, 1.5) * LEASE_SECONDS)
    proxy.heal()


FAULTS: dict[str, Callable[[Proxy, random.Random], None]] = {
    "connections cut": cut,
    "every packet late": slow,
    "half-open connections": half_open,
}


def campaign(
    rig: PartsRig,
    name: str,
    fault: Callable[[Proxy, random.Random], None],
    proxy: Proxy,
    options: Options,
    *,
    num_jobs: int = 10,
    ticks: int = 40,
) -> Row:
    """`num_jobs` unfinished all the time, of `ticks` of 50 ms."""
    row = Row(name, rig.setup)
    chance = random.Random(options.seed)
    work: dict[str, str | None] = {}
    for _ in range(options.rounds):
        work |= submit_work(max(0, num_jobs - (len(work) - num_ended(work))), ticks)
        time.sleep(chance.uniform(0.2, 1.0))
        fault(proxy, chance)
        row.tried += 1
        row.recoveries.append(_until_something_happens(rig, work))
    wait_until_ended(rig, work)
    options.say(f"{name}: {row.tried} faults, {len(work)} jobs")
    return judge(row, work, rig.storage)


def frozen(
    rig: PartsRig, what: str, freeze: Callable[[], None], thaw: Callable[[], None], options: Options
) -> Row:
    """SIGSTOP of a whole server, for up to one and a half leases."""

    def stop_and_go(proxy: Proxy, chance: random.Random) -> None:
        freeze()
        time.sleep(chance.uniform(0.5, 1.5) * LEASE_SECONDS)
        thaw()

    return campaign(rig, f"{what}: frozen", stop_and_go, rig.proxies["broker"], options)


def _until_something_happens(rig: PartsRig, work: dict[str, str | None]) -> float:
    """Seconds until a job reports again, or all have ended."""
    began = time.monotonic()
    seen = _num_events(work)
    until(lambda: _num_events(work) > seen or num_ended(work) == len(work), PATIENCE_SECONDS, rig)
    return time.monotonic() - began


def _num_events(work: dict[str, str | None]) -> int:
    with reading() as session:
        return session.scalar(select(func.count()).select_from(Event).join(Job).where(Job.id.in_(work))) or 0
