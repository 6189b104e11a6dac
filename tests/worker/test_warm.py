"""Children forked from the warm parent are what spawned ones are, end as they do, and leave nothing behind."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worker import jobs, tiny
from tests.worker.jobs import DISTILL, Ear
from worker import starting
from worker.leash import Leash
from worker.messages import Stops
from worker.pipeline import compress
from worker.starting import WARM_SOCKET, fork_or_spawn, spawn
from worker.supervisor import CHILD, child_environment
from worker.warm_parent import MAINS, WarmParent, is_possible

pytestmark = pytest.mark.skipif(not is_possible(), reason="forks are for Linux with pidfds")

ODD = "tests.worker.odd_child"
COMMAND = [sys.executable, "-m", ODD]
READY_SECONDS = 120


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmParent]:
    parent = WarmParent(child_environment(1), (*MAINS, ODD))
    parent.start()
    assert parent.ready.wait(READY_SECONDS)
    yield parent
    parent.stop()


def start(do: str, **order: Any) -> Leash:
    return Leash(COMMAND, {"do": do, **order}, env=child_environment(1))


def ended(leash: Leash) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and messages."""
    heard: list[dict[str, Any]] = []
    try:
        while (code := leash.exit_code()) is None:
            heard += leash.read(0.2)
        return code, heard + leash.rest()
    finally:
        leash.kill()


def first_message(leash: Leash) -> dict[str, Any]:
    while not (heard := leash.read(1)):
        assert leash.exit_code() is None
    return heard[0]


def is_there(pid: int) -> bool:
    """A zombie is."""
    return Path(f"/proc/{pid}").exists()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def children_of(pid: int | None) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def wait_for(condition: Any, seconds: float = 30) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it never happened"
        time.sleep(0.02)


# ---- like a spawned one


@pytest.fixture(scope="module")
def told(warm: WarmParent) -> dict[str, dict[str, Any]]:
    """What children say of themselves that are to compute with two threads; the warm parent was started for one."""
    told = {}
    # NumPy's BLAS, which no method uses, gets no threads in the warm parent.
    env = child_environment(2) | {"OPENBLAS_NUM_THREADS": "1"}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))  # less than the warm parent has
    try:
        for name, way in (("forked", fork_or_spawn), ("spawned", spawn)):
            code, heard = ended(Leash(COMMAND, {"do": "tell", "num_threads": 2}, env=env, start=way))
            assert code == 0
            (told[name],) = heard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return told


@pytest.mark.parametrize(
    "what",
    [
        "threads",
        "tasks",
        "files",
        "environment",
        "folder",
        "limits",
        "signals",
        "masked",
        "garbage",
        "python_threads",
        "leads_its_session",
        "encodings",
    ],
)
def test_a_forked_child_is_like_a_spawned_one(told: dict[str, dict[str, Any]], what: str) -> None:
    assert told["forked"][what] == told["spawned"][what]


def test_it_computes_with_the_threads_that_the_job_asks_for(told: dict[str, dict[str, Any]]) -> None:
    threads = told["forked"]["threads"]
    assert threads["at::get_num_threads()"] == 2
    assert {threads[name] for name in threads if "max_threads" in name} == {2}


def test_nothing_of_the_parent_or_of_other_children_is_open_in_it(warm: WarmParent) -> None:
    """A pipe's end kept open by a brother would hide the end of a trainer from its supervisor."""
    other = start("wait")
    first_message(other)
    _, (told,) = ended(start("tell", num_threads=1))
    other.kill()
    assert set(told["files"].values()) == {"pipe"}


def test_children_draw_different_random_numbers(warm: WarmParent) -> None:
    _, (one,) = ended(start("draw"))
    _, (other,) = ended(start("draw"))
    assert all(mine != theirs for mine, theirs in zip(one["numbers"], other["numbers"], strict=True))
    assert one["seed"] != other["seed"]


@pytest.fixture(scope="module")
def ingredients(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """A teacher and photos."""
    folder = tmp_path_factory.mktemp("ingredients")
    photos = jobs.dataset(folder / "data", tiny.write_photos(folder / "photos.zip", train=4, val=2, test=2))
    content = tiny.write_teacher(folder / "teacher.pt").read_bytes()
    names = {"preprocessing": tiny.PREPROCESSING, "class_names": list(tiny.CLASSES)}
    return jobs.inspected_teacher(folder / "inspection", content, architecture=tiny.TEACHER, **names), photos


def compress_order(work_dir: Path, ingredients: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    teacher, photos = ingredients
    return jobs.order(work_dir, [teacher], photos, [DISTILL, {"method": "quantize"}]) | {"do": "compress"}


def forked_trainer(order: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    return ended(Leash(CHILD, order, env=child_environment(1)))


def test_the_artifact_has_the_same_bytes(warm: WarmParent, ingredients: Any, tmp_path: Path) -> None:
    """Of a forked trainer, and of a process like this one, which has nothing from a warm parent."""

    def digest(order: dict[str, Any], last: dict[str, Any]) -> str:
        assert last["type"] == "result", last
        return hashlib.sha256(
            (Path(order["work_dir"]) / last["artifacts"][-1]["file"]).read_bytes()
        ).hexdigest()

    here, there = (compress_order(tmp_path / name, ingredients) for name in ("here", "there"))
    num_threads = torch.get_num_threads()
    try:
        expected = digest(here, compress(here, Ear(), Stops()))
    finally:
        torch.set_num_threads(num_threads)
    _, heard = forked_trainer(there)
    assert digest(there, heard[-1]) == expected


# ---- it ends like a spawned one


@pytest.mark.parametrize(
    ("do", "order", "code"),
    [
        ("leave", {"code": 0}, 0),
        ("leave", {"code": 3}, 3),
        ("fail", {}, 1),
        ("signal_itself", {"signal": int(signal.SIGKILL)}, -signal.SIGKILL),
        ("signal_itself", {"signal": int(signal.SIGTERM)}, -signal.SIGTERM),
        ("signal_itself", {"signal": int(signal.SIGSEGV)}, -signal.SIGSEGV),
    ],
)
def test_its_exit_code_is_told(warm: WarmParent, do: str, order: dict[str, Any], code: int) -> None:
    leash = start(do, **order)
    assert parent_of(leash.pid) == warm.pid
    found, heard = ended(leash)
    assert found == code
    if do == "fail":
        assert "No space left on device" in heard[-1]["message"]


def test_its_limit_of_memory_holds(warm: WarmParent) -> None:
    code, heard = ended(start("allocate", memory_bytes=3 << 30))
    assert (code, heard[0]["type"]) == (0, "refused")
    assert "DefaultCPUAllocator" in heard[0]["why"]


def test_a_trainer_that_starves_ends_as_out_of_memory(
    warm: WarmParent, ingredients: Any, tmp_path: Path
) -> None:
    _, heard = forked_trainer(
        compress_order(tmp_path / "job", ingredients) | {"limits": {"memory_bytes": 64 << 20}}
    )
    assert (heard[-1]["type"], heard[-1]["code"]) == ("error", "OUT_OF_MEMORY")


def test_a_trainer_that_loses_a_file_is_not_taken_for_one_that_starves(
    warm: WarmParent, ingredients: Any, tmp_path: Path
) -> None:
    """A lost mount: another attempt may find it again. An abort would be a verdict on the job's memory."""
    order = compress_order(tmp_path / "job", ingredients)
    gone = order["teachers"][0] | {"path": str(tmp_path / "gone.pt")}
    code, heard = forked_trainer(order | {"teachers": [gone]})
    assert code == 1
    assert "FileNotFoundError" in heard[-1]["message"]


def test_killing_it_takes_what_it_had_started(warm: WarmParent) -> None:
    """kill -9 of a trainer ends the process that measures for it, though that has another parent."""
    leash = start("have_another")
    other = first_message(leash)["other"]
    assert parent_of(other) == warm.pid
    os.kill(leash.pid, signal.SIGKILL)
    assert ended(leash)[0] == -signal.SIGKILL
    wait_for(lambda: not is_there(other) and not is_there(leash.pid), 5)


def test_many_children_leave_nothing_open_and_no_zombie(warm: WarmParent) -> None:
    def open_files() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (warm.pid, os.getpid())]

    ended(start("signal_itself", signal=int(signal.SIGKILL)))
    before = open_files()
    for _ in range(20):
        ended(start("signal_itself", signal=int(signal.SIGKILL)))
    # What other tests left may be closed meanwhile.
    assert all(after <= at_first for after, at_first in zip(open_files(), before, strict=True))
    assert children_of(warm.pid) == []


# ---- when the warm parent fails


def test_a_module_it_does_not_have_is_spawned(warm: WarmParent) -> None:
    fake = [sys.executable, "-m", "tests.worker.fake_child"]
    order = {"spec": {"name": "obey"}, "work_dir": "."}
    leash = Leash(fake, order, env=child_environment(1))
    assert parent_of(leash.pid) == os.getpid()
    leash.kill()


def test_a_process_outside_its_family_is_not_served(warm: WarmParent) -> None:
    """What has given up rights, or never had them, gets none from here."""
    code = (
        "import os, sys\nfrom worker import starting\n"
        f"starting._Forked(os.environ[{WARM_SOCKET!r}], {ODD!r}, os.environ)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "NotStartedError" in done.stderr


def test_while_it_is_frozen_children_are_spawned_and_their_end_is_noticed(
    warm: WarmParent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "_ANSWER_SECONDS", 0.3)
    earlier = start("wait")
    first_message(earlier)
    assert warm.pid is not None
    os.kill(warm.pid, signal.SIGSTOP)
    try:
        leash = start("leave", code=3)
        assert parent_of(leash.pid) == os.getpid()
        leash.kill()
        os.kill(earlier.pid, signal.SIGKILL)
        wait_for(lambda: earlier.exit_code() is not None, 5)
        assert earlier.exit_code() == -signal.SIGKILL
        earlier.kill()
    finally:
        os.kill(warm.pid, signal.SIGCONT)
    # The request that nobody waited for starts no second trainer on the same pipes.
    assert ended(start("leave", code=0))[0] == 0
    wait_for(lambda: children_of(warm.pid) == [], 5)


def test_a_killed_one_takes_its_children_and_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer whose parent dies is lost like any other; the next is spawned, later ones are forked."""
    monkeypatch.setenv(WARM_SOCKET, "")
    parent = WarmParent(child_environment(1), (*MAINS, ODD))
    parent.start()
    try:
        assert parent.ready.wait(READY_SECONDS)
        folder, first = Path(os.environ[WARM_SOCKET]).parent, parent.pid
        leash = start("wait")
        first_message(leash)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert ended(leash)[0] == -signal.SIGKILL
        wait_for(lambda: not parent.ready.is_set(), 5)
        with_spawned = start("wait")
        assert parent_of(with_spawned.pid) == os.getpid()
        with_spawned.kill()
        assert parent.ready.wait(READY_SECONDS)
        assert parent.pid != first
        code, _ = ended(start("leave", code=0))
        assert code == 0
        assert not folder.exists()
    finally:
        parent.stop()
    assert os.environ[WARM_SOCKET] == ""


def test_kill_9_of_the_worker_leaves_no_process(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from tests.worker import test_warm as t\n"
        "w = t.WarmParent(t.child_environment(1), (*t.MAINS, t.ODD)); w.start(); w.ready.wait()\n"
        "leash = t.start('have_another'); m = t.first_message(leash)\n"
        f"print(w.pid, m['pid'], m['other'], os.environ[{WARM_SOCKET!r}], flush=True)\n"
        "time.sleep(600)"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    *pids, path = worker.stdout.readline().split()
    assert all(is_there(int(pid)) for pid in pids)
    worker.kill()
    worker.wait()
    worker.stdout.close()
    wait_for(lambda: not any(is_there(int(pid)) for pid in pids), 5)
    assert not Path(path).exists()
