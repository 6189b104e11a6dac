"""Send damaged files, and hostile requests, for as long as you like: `python -m tests.fuzz [KIND ...] [--num N] [--seed S]`.

`make fuzz` runs all of it: 200,000 checkpoints, 20,000 images and archives each, and the API's schema on SQLite. The same
seed gives the same files. It ends at the first fault, with the number of the file.
"""

import argparse
import sys

from tests.fuzz import api, archives, checkpoints, images

KINDS = {
    "checkpoints": (checkpoints.fuzz, 200_000),
    "images": (images.fuzz, 20_000),
    "archives": (archives.fuzz, 20_000),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}, api; all by default"
    )
    parser.add_argument("--num", type=int, help="files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-examples", type=int, default=100, help="of each operation of the API")
    given = parser.parse_args()
    for kind in given.kinds or [*KINDS, "api"]:
        if kind == "api":
            sys.argv[1:] = ["--max-examples", str(given.max_examples), "--seed", str(given.seed)]
            if code := api.main():
                return code
            continue
        fuzz, num = KINDS[kind]
        print(fuzz(given.num or num, given.seed), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
