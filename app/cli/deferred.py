"""All commands by name; the module of one is imported when it is called, so that `fewbytes --help` and each client command
answer without loading what only the others need."""

import importlib
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

CLIENT = "Use a service"
SERVICE = "Run the service"
OPERATOR = "Look after its data folder and database"

# name -> (panel, module below app.cli with a Typer `app` that has the command, the first sentence of its help).
COMMANDS: dict[str, tuple[str, str, str]] = {
    "submit": (CLIENT, "submit", "Submit a job."),
    "sweep": (CLIENT, "submit", "Submit a sweep: many jobs from one spec or preset."),
    "watch": (CLIENT, "watch", "Follow a job or a sweep to its end."),
    "get": (CLIENT, "look", "Show a job, sweep, teacher, data set or artifact; with -o, fetch what it made."),
    "compare": (CLIENT, "compare", "Compare jobs in one table."),
    "list": (CLIENT, "look", "List jobs, sweeps, teachers, data sets or files, the newest first."),
    "logs": (CLIENT, "look", "Print a job's log."),
    "presets": (CLIENT, "look", "Show the sweeps that are ready to run."),
    "upload": (CLIENT, "upload", "Upload a file, and register it as a teacher or a data set."),
    "cancel": (CLIENT, "verbs", "Cancel a job or a sweep."),
    "pause": (CLIENT, "verbs", "Hold a job or a sweep until it is resumed."),
    "resume": (CLIENT, "verbs", "Let a paused job or sweep go on."),
    "retry": (CLIENT, "verbs", "Queue a failed or cancelled job again, or those of a sweep."),
    "up": (SERVICE, "service", "Run the whole service: broker, database, API, workers."),
    "api": (SERVICE, "service", "Run the API alone."),
    "worker": (SERVICE, "service", "Run one worker: one job at a time on this machine's device."),
    "migrate": (
        SERVICE,
        "service",
        "Bring the database to this version's tables. The service may run meanwhile.",
    ),
    "keys": (OPERATOR, "keys", "Access keys: make, list, revoke."),
    "tenants": (OPERATOR, "tenants", "Tenants and what each may have."),
    "settings": (
        OPERATOR,
        "settings",
        "Show every setting: its environment variable, what is set here, its default and its meaning.",
    ),
    "collect": (
        OPERATOR,
        "storage",
        "Remove what nobody needs any more, one line each: bytes, what. The service does it by itself every five minutes.",
    ),
    "verify": (
        OPERATOR,
        "storage",
        "Read every object that a row names and compare it with its digest. Exit code 1: some are missing or damaged.",
    ),
}


class Deferred(TyperCommand):
    """A command that is not imported yet: it has a name and a sentence, and becomes the real one when it is called."""

    def __init__(self, name: str) -> None:
        panel, self.module, sentence = COMMANDS[name]
        super().__init__(name, help=sentence, rich_help_panel=panel)

    def load(self) -> Any:
        """The real command."""
        module = importlib.import_module(f"app.cli.{self.module}")
        return typer.main.get_group(module.app).commands[self.name]  # type: ignore[index]

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        # A context names its command, and that one is invoked.
        return self.load().make_context(info_name, args, parent=parent, **extra)


class Commands(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name in COMMANDS:
            self.add_command(Deferred(name))
