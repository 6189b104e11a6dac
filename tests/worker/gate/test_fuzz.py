"""Five thousand damaged checkpoints; `make fuzz` has two hundred thousand."""

from tests.fuzz import checkpoints


def test_damaged_checkpoints_are_admitted_or_refused() -> None:
    said = checkpoints.fuzz(5_000, seed=1)
    # Most are refused; that some are let in shows that the damage is not too coarse.
    assert "admitted" in said
    assert "CHECKPOINT_UNSAFE" in said
