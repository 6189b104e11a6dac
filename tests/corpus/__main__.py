"""Write the corpus to a folder: `python -m tests.corpus FOLDER [KIND ...]`.

Each case becomes a file KIND/NUMBER-NAME; `expected.json` says for each file the status and the code that it must get, the
finer rule where it is certain, and the fields of the POST that belong to it.
"""

import argparse
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.corpus import KINDS
from tests.corpus.case import Case


def cases_of(kind: str) -> Iterator[Case]:
    module = importlib.import_module(f"tests.corpus.{kind}")
    cases: Iterator[Case] = module.cases()
    return cases


def write(folder: Path, kinds: tuple[str, ...] = KINDS) -> dict[str, dict[str, Any]]:
    """The files of these kinds; returns what `expected.json` says."""
    expected = {}
    for kind in kinds:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number, case in enumerate(cases_of(kind)):
            name = f"{kind}/{number:03}-{re.sub(r'[^a-z0-9]+', '-', case.name.lower()).strip('-')[:80]}"
            (folder / name).write_bytes(case.make())
            expected[name] = {
                "name": case.name,
                "status": case.status,
                "code": case.code,
                "rule": case.rule,
                "request": case.request,
            }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1))
    return expected


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all by default")
    given = parser.parse_args()
    write(given.folder, tuple(given.kinds) or KINDS)


if __name__ == "__main__":
    main()
