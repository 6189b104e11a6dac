"""The command line of a fuzzer of files."""

import argparse
import sys
from collections.abc import Callable


def run(about: str | None, fuzz: Callable[[int, int], str]) -> int:
    """`--n N --seed S`, from `sys.argv`; prints the line that sums up. What `fuzz` raises is the fault that it found."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--n", type=int, default=20_000, help="files")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.stdout.write(f"{fuzz(given.n, given.seed)}\n")
    return 0
