"""The command as a whole: its help, and what it does not load."""

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from app.cli import app
from app.cli.deferred import CLIENT, COMMANDS, Deferred

HEAVY = ("sqlalchemy", "fastapi", "celery", "alembic", "uvicorn", "torch")

_PROBE = """
import json, sys
from app.cli import app
try:
    app(sys.argv[1:], standalone_mode=False)
finally:
    print(json.dumps([name for name in sys.modules if "." not in name]), file=sys.stderr)
"""


def loaded(*arguments: str) -> set[str]:
    """The packages in a fresh process after the command."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *arguments], capture_output=True, text=True, check=False
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_help_names_every_command() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    for name in COMMANDS:
        assert f" {name} " in shown


def test_help_loads_nothing_heavy() -> None:
    assert not loaded("--help") & {*HEAVY, "httpx", "pydantic", "yaml"}


def test_a_client_command_loads_no_service() -> None:
    packages = loaded("get", "job_a", "--url", "http://127.0.0.1:1")
    assert "httpx" in packages
    assert not packages & set(HEAVY)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_what_the_overview_says(name: str) -> None:
    """The overview's sentence is the beginning of the command's own help, so the two say the same."""
    real = Deferred(name).load()
    assert real.help.replace("\n", " ").startswith(COMMANDS[name][2])


@pytest.mark.parametrize("name", [name for name, (panel, _, _) in COMMANDS.items() if panel == CLIENT])
def test_a_client_command_has_an_example(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0
    assert f"fewbytes {name}" in shown.stdout
    real = Deferred(name).load()
    assert real.epilog.startswith(f"Example: fewbytes {name}")


def test_every_command_of_a_module_is_in_the_overview() -> None:
    import importlib

    modules = {module for _, module, _ in COMMANDS.values()}
    found = {
        name
        for module in modules
        for name in typer.main.get_group(importlib.import_module(f"app.cli.{module}").app).commands
    }
    assert found == set(COMMANDS)


def test_a_misspelt_command_gets_a_suggestion() -> None:
    refused = CliRunner().invoke(app, ["submitt"])
    assert refused.exit_code == 2
    assert "submit" in refused.stderr
