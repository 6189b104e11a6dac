"""What the service survives: `python -m tests.faults [NAME…] [--rounds N] [--database URL] [--broker URL] [--seed N]`.

Each campaign breaks something while jobs run, then counts what was lost, done twice, or came out with other bytes. The
table at the end is Markdown; the exit code is 1 when there was any. `make faults` runs all, for an hour or two.

--database and --broker (or DATABASE_URL and BROKER_URL) name real servers to use instead of our own: a PostgreSQL role
that may create databases, and a Redis or Valkey that nobody else uses, since it is emptied.
"""

import argparse
import importlib
import sys

from tests.faults import options, report

CAMPAIGNS = {
    "machine": 300,
    "kills": 300,
    "zombies": 10,
    "messages": 5,
    "poison": 5,
    "connections": 10,
    "clock": 10,
    "disk": 10,
}
"""Modules with a `run(Options) -> list[Row]`, and how many rounds of each are a long run."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CAMPAIGNS))
    parser.add_argument("--rounds", type=int, help="faults of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database", metavar="URL")
    parser.add_argument("--broker", metavar="URL")
    given = parser.parse_args()
    if unknown := set(given.names) - CAMPAIGNS.keys():
        parser.error(f"NAME is one of {', '.join(CAMPAIGNS)}, not {', '.join(sorted(unknown))}")
    rows: list[report.Row] = []
    for name in given.names or CAMPAIGNS:
        rounds = given.rounds or CAMPAIGNS[name]
        print(f"==> {name}, {rounds} rounds, seed {given.seed}", flush=True)
        told = options.from_environment(rounds, given.seed, given.database, given.broker)
        found = importlib.import_module(f"tests.faults.{name}").run(told)
        print(report.table(found), *report.complaints(found), sep="\n", flush=True)
        rows += found
    if len(given.names) != 1:
        print(f"==> all, seed {given.seed}", report.table(rows), sep="\n")
    return 0 if all(row.is_good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
