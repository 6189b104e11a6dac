"""Write the corpus into a folder: one file a case, and expected.json (kind/number → name, status, code, rule, request)."""

import argparse
import json
from pathlib import Path

from tests.corpus import KINDS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=__doc__)
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--kind", choices=sorted(KINDS), action="append", help="only these")
    arguments = parser.parse_args()
    expected = {}
    for kind in arguments.kind or KINDS:
        folder: Path = arguments.out / kind
        folder.mkdir(parents=True, exist_ok=True)
        for number, case in enumerate(KINDS[kind]()):
            # A name of ours: what a case is called may be no file name.
            (folder / f"{number:03}").write_bytes(case.content)
            expected[f"{kind}/{number:03}"] = {
                "name": case.name,
                "status": case.status,
                "code": case.code,
                "rule": case.rule,
                "request": case.request,
            }
    text = json.dumps(expected, indent=1, ensure_ascii=True)
    (arguments.out / "expected.json").write_text(text + "\n")
    print(f"{len(expected)} cases in {arguments.out}")


if __name__ == "__main__":
    main()
