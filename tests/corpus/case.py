"""One hostile thing to send, and what must come back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Case:
    """`make` builds the bytes when they are asked for: some are large.

    `status` and `code` are those of the refusal, `rule` the finer one in its `errors`. `request` has the fields of the
    POST beside the file.
    """

    name: str
    make: Callable[[], bytes]
    status: int
    code: str
    rule: str | None = None
    request: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def content(self) -> bytes:
        return self.make()
