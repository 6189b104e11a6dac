"""Which method of the client asks for which operation of the API. A test walks the OpenAPI along this list, so that the two
cannot drift apart."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Operation:
    """`sets`: documented parameters that the method gives itself. `local`: its own parameters that no request carries."""

    method: Callable[..., Any]
    sets: tuple[str, ...]
    local: tuple[str, ...]


OPERATIONS: dict[str, list[Operation]] = {}
"""By "VERB /path" as the OpenAPI has it; several methods may ask for one operation in several ways."""


def operation(name: str, *, sets: tuple[str, ...] = (), local: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Mark a method as asking for the operation `name`, such as "GET /v1/jobs/{job_id}"."""

    def mark(method: F) -> F:
        OPERATIONS.setdefault(name, []).append(Operation(method, sets, local))
        return method

    return mark
