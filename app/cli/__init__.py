"""The command `fewbytes`."""

import typer

from app.cli.deferred import Commands

app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def fewbytes() -> None:
    """Compress trained image classifiers: submit jobs and sweeps, watch them, fetch what they make; or run the service.

    The address of the service and the key that opens it: FEWBYTES_URL, FEWBYTES_KEY, or each command's --url and --key.
    """


def main() -> None:
    app()
