"""What strangers send, made by scripts: every case with the answer that it must get.

python -m tests.corpus OUT      # writes each case as a file, and expected.json
"""

from collections.abc import Callable, Iterator

from tests.corpus import checkpoints, requests
from tests.corpus.case import Case

KINDS: dict[str, Callable[[], Iterator[Case]]] = {
    "checkpoints": checkpoints.cases,
    "requests": requests.cases,
}
