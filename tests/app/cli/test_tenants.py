"""`fewbytes keys` and `fewbytes tenants`, as an operator types them; and the door that asks for a key."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from app import cli, db
from app.access import door, keys, tenants
from app.access.door import CannotStartError
from app.database import migrate
from app.settings import Settings, settings
from app.tables import AuditEntry


@pytest.fixture(autouse=True)
def _settings_of_their_own(monkeypatch: pytest.MonkeyPatch) -> object:
    """The commands read the environment, as they do in a process of their own."""
    monkeypatch.setenv("FEWBYTES_DATA_DIR", "/nonexistent")
    monkeypatch.delenv("DATABASE_URL", raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()
    db.configure(None)


def fewbytes(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


def create(*arguments: str) -> Result:
    return fewbytes("keys", "create", "--tenant", "acme", "--name", "first", *arguments)


def test_the_first_key_makes_database_and_tenant(tmp_path: Path) -> None:
    """Standard output has the key alone, so that a script can take it."""
    made = create("--scope", "admin", "--data-dir", str(tmp_path))
    assert made.exit_code == 0, made.output
    assert keys.PATTERN.fullmatch(made.stdout.strip())
    assert "shown this once" in made.stderr
    url = f"sqlite:///{tmp_path / 'fewbytes.db'}"
    assert migrate.state(url) == "newest"
    db.configure(url)
    with db.reading() as session:
        key = keys.find(session, made.stdout.strip())
        assert key is not None
        assert (key.scope, key.name) == ("admin", "first")
        assert tenants.find(session, key.tenant_id).name == "acme"
        entries = session.query(AuditEntry).order_by(AuditEntry.id)
        assert [(entry.action, entry.request_id) for entry in entries] == [
            ("tenant.create", "command line"),
            ("key.create", "command line"),
        ]


def test_keys_are_listed_and_revoked(tmp_path: Path) -> None:
    folder = ("--data-dir", str(tmp_path))
    secret = create("--expires", "30", *folder).stdout.strip()
    create("--scope", "read", *folder)
    lines = [line.split("\t") for line in fewbytes("keys", "list", *folder).stdout.splitlines()]
    assert [line[1:3] for line in lines] == [["acme", "read"], ["acme", "write"]]
    assert lines[1][4].startswith("until ")
    assert secret not in repr(lines)
    assert secret.startswith(lines[1][3].rstrip("…"))
    assert fewbytes("keys", "revoke", lines[1][0], *folder).exit_code == 0
    assert "revoked" in fewbytes("keys", "list", "--tenant", "acme", *folder).stdout
    assert fewbytes("keys", "list", "--tenant", "nobody", *folder).stdout == ""
    db.configure(f"sqlite:///{tmp_path / 'fewbytes.db'}")
    with db.reading() as session:
        assert keys.find(session, secret) is None


def test_limits_are_set_shown_and_given_back(tmp_path: Path) -> None:
    folder = ("--data-dir", str(tmp_path))
    create(*folder)
    changed = fewbytes("tenants", "set", "acme", "--max-bytes", "5000", "--max-running-jobs", "2", *folder)
    assert changed.exit_code == 0, changed.output
    shown = fewbytes("tenants", "list", *folder).stdout.splitlines()[0]
    assert "bytes 0/5000" in shown
    assert "running_jobs 0/2" in shown
    assert fewbytes("tenants", "set", "acme", "--max-bytes", "-1", *folder).exit_code == 0
    assert "bytes 0/any" in fewbytes("tenants", "list", *folder).stdout.splitlines()[0]


def test_a_weight_is_set_and_shown(tmp_path: Path) -> None:
    folder = ("--data-dir", str(tmp_path))
    create(*folder)
    assert "weight 1" in fewbytes("tenants", "list", *folder).stdout.splitlines()[0]
    assert fewbytes("tenants", "set", "acme", "--weight", "2.5", *folder).exit_code == 0
    shown = {line.split("\t")[1]: line for line in fewbytes("tenants", "list", *folder).stdout.splitlines()}
    assert "weight 2.5" in shown["acme"]
    assert "weight 1" in shown["default"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tenants", "set", "acme", "--weight", "0"), "--weight 0.0 is no share"),
        (("tenants", "set", "acme", "--weight", "nan"), "--weight nan is no share"),
        (("keys", "revoke", "key_none"), "There is no key"),
        (("tenants", "set", "nobody", "--max-bytes", "1"), "There is no tenant 'nobody'"),
        (("keys", "create", "--tenant", "a\nb", "--name", "x"), "is no name"),
    ],
)
def test_what_cannot_be_done_is_said_plainly(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    create("--data-dir", str(tmp_path))
    refused = fewbytes(*arguments, "--data-dir", str(tmp_path))
    assert refused.exit_code == 2
    assert said in refused.stderr


def test_a_database_of_another_version_is_left_alone(tmp_path: Path) -> None:
    """Migrating is for whoever stops the service first; only a new database gets its tables here."""
    migrate.upgrade(f"sqlite:///{tmp_path / 'fewbytes.db'}", "0001")
    refused = create("--data-dir", str(tmp_path))
    assert refused.exit_code == 2
    assert "older" in refused.stderr
    assert "fewbytes migrate" in refused.stderr


def test_the_commands_work_where_database_url_says(
    postgresql_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgresql_database)
    settings.cache_clear()
    assert create().exit_code == 0
    assert "acme" in fewbytes("keys", "list").stdout


# ---- the door


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_needs_no_key(sqlite_database: str, host: str) -> None:
    door.refuse_open_door(host, Settings())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "fewbytes.example"])
def test_another_address_needs_a_key_in_force(database: str, host: str) -> None:
    """The reason comes with the command that makes one. An expired or revoked key is none."""
    for _ in range(2):
        with pytest.raises(CannotStartError, match="fewbytes keys create"):
            door.refuse_open_door(host, Settings())
        with db.transaction() as session:
            key, _ = keys.make(session, tenant_id=tenants.DEFAULT, name="k", scope="admin", days=1)
        door.refuse_open_door(host, Settings())
        with db.transaction() as session:
            keys.revoke(session, key.id)
    door.refuse_open_door(host, Settings(allow_open=True))


def test_a_new_or_old_database_has_no_key(empty_database: str) -> None:
    db.configure(empty_database)
    for revision in (None, "0001"):
        if revision:
            migrate.upgrade(empty_database, revision)
        with pytest.raises(CannotStartError, match="no access key yet"):
            door.refuse_open_door("0.0.0.0", Settings())
    db.configure(None)


def test_with_a_key_the_api_listens_elsewhere(tmp_path: Path) -> None:
    """As a process, on an address that is not this machine's own name: refused before, listening afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "app.cli", "api", "--host", "0.0.0.0", "--port", str(port)]
    environment = {"FEWBYTES_DATA_DIR": str(tmp_path), "PATH": ""}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "fewbytes keys create" in refused.stderr
    create("--data-dir", str(tmp_path))
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as listening:
        try:
            assert answer_of(port) == 401
        finally:
            listening.terminate()


def answer_of(port: int) -> int:
    """The status of GET /v1/jobs, once somebody listens there."""
    for _ in range(300):
        try:
            return httpx.get(f"http://127.0.0.1:{port}/v1/jobs").status_code
        except httpx.ConnectError:
            time.sleep(0.05)
    raise AssertionError("nobody listens")
