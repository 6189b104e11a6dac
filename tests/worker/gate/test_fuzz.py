"""Five thousand mutated checkpoints: the gate refuses, or writes what every reader can read; never anything else."""

from pathlib import Path

import pytest

from tests.fuzz.checkpoints import file_number, fuzz, seeds

PARTS = 5


@pytest.mark.parametrize("part", range(PARTS))
def test_a_mutated_checkpoint_is_refused_or_canonical(part: int, tmp_path: Path) -> None:
    """Each part takes other files; the same ones every time."""
    found = fuzz(1000, seed=4, first=1000 * part, folder=tmp_path)
    assert found.faults == []
    # A fuzzer whose files all fail at the first byte would prove nothing.
    assert found.admitted > 30
    assert len(found.rules) > 25


def test_a_file_can_be_made_again() -> None:
    files = seeds()
    assert file_number(17, 4, files) == file_number(17, 4, files) != file_number(18, 4, files)
