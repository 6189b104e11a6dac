"""The long tests, on demand: `python -m tests.fuzz` for all, `python -m tests.fuzz KIND [options]` for one (`make fuzz`)."""

import importlib
import sys

KINDS = {
    "checkpoints": "tests.fuzz.checkpoints",
    "images": "tests.fuzz.images",
    "archives": "tests.fuzz.archives",
    "http-corpus": "tests.fuzz.http_corpus",
    "api": "tests.fuzz.api",
}
"""Modules with a `main() -> int` that reads `sys.argv`; 0 when nothing was found."""


def main() -> int:
    asked = sys.argv[1:2] or list(KINDS)
    if unknown := set(asked) - KINDS.keys():
        print(f"{__doc__}\n\nKIND is one of {', '.join(KINDS)}, not {', '.join(unknown)}.", file=sys.stderr)
        return 2
    codes = []
    for kind in asked:
        print(f"==> {kind}", flush=True)
        sys.argv = [f"python -m tests.fuzz {kind}", *sys.argv[2:]]
        codes.append(importlib.import_module(KINDS[kind]).main())
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
