"""Checkpoints that must be refused, with the verdict on each. Every file is wrong in one thing only.

What the assemblers (opcodes.py, containers.py) make is a good file where nothing is wrong with it: tests/corpus/good.py has
those as well, so that a case is refused for what its name says.
"""

from collections.abc import Iterator

from tests.corpus.case import Case
from tests.corpus.checkpoints import (
    bombs,
    calls,
    damage,
    documents,
    foreign,
    geometry,
    legacy_files,
    meaning,
    safetensors_files,
    zips,
)

WITHOUT_TORCH = (damage, geometry, zips, legacy_files, safetensors_files, foreign, calls, bombs)
"""Refused by the gate, which reads no weights: all of these are its own verdicts."""
KINDS = (*WITHOUT_TORCH, documents, meaning)


def cases() -> Iterator[Case]:
    for kind in KINDS:
        yield from kind.cases()
