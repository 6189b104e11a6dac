"""`fewbytes up` as a process: one at a time, ready soon, and nothing left of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "BROKER_URL")}


def command(data_dir: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "app.cli", "up", "--data-dir", str(data_dir), "--port", "0", *more]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    process = subprocess.Popen(command(tmp_path / "data"), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "ready:" in line:
            break
    wait_for(lambda: len(card(tmp_path / "data")["pids"]) == 5)
    yield process, tmp_path / "data"
    process.kill()
    process.wait()
    process.stderr.close()


def card(data_dir: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((data_dir / "service.json").read_text())
    return read


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Any, seconds: float = 30) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it never happened"
        time.sleep(0.05)


def test_a_second_one_on_the_same_folder_is_refused_with_the_address(started: Any) -> None:
    _, data_dir = started
    second = subprocess.run(command(data_dir), env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    assert card(data_dir)["url"] in second.stderr
    assert "Traceback" not in second.stderr


def test_sigterm_ends_all_of_it_in_order(started: Any) -> None:
    process, data_dir = started
    pids = card(data_dir)["pids"].values()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert not any(map(is_alive, pids))
    assert not (data_dir / "service.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_kill_9_leaves_nothing_behind_and_it_starts_again(started: Any) -> None:
    process, data_dir = started
    pids = card(data_dir)["pids"].values()
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(is_alive, pids)))
    again = subprocess.Popen(command(data_dir), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    assert again.stderr is not None
    assert any("ready:" in line for line in again.stderr)
    again.terminate()
    again.communicate()
    assert again.returncode == 0


def test_what_dies_is_started_again(started: Any) -> None:
    _, data_dir = started
    before = card(data_dir)["pids"]
    for name in ("broker", "worker"):
        os.kill(before[name], signal.SIGKILL)
        wait_for(lambda name=name: card(data_dir)["pids"].get(name, before[name]) != before[name])


@pytest.mark.parametrize("subcommand", ["up", "api"])
def test_an_open_door_is_refused(subcommand: str, tmp_path: Path) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "app.cli", subcommand, "--host", "0.0.0.0", "--port", "0"],
        env=ENVIRONMENT | {"FEWBYTES_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode == 2
    assert "FEWBYTES_ALLOW_OPEN=1" in refused.stderr


def test_a_port_in_use_is_said_plainly(started: Any, tmp_path: Path) -> None:
    port = card(started[1])["url"].rsplit(":", 1)[1]
    refused = subprocess.run(
        [*command(tmp_path / "other")[:-1], port], env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )
    assert (refused.returncode, port in refused.stderr) == (2, True)
