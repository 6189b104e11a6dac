"""What strangers send, made by the rules that it breaks: each case with the answer that it must get."""

KINDS = ("checkpoints", "archives", "images", "requests", "good_datasets")
"""Modules of this package, each with `def cases() -> Iterator[Case]`."""
