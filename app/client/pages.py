"""Lists that come in pages."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from app.client.answers import Page

T = TypeVar("T")
LARGEST_PAGE = 200


def walk(page_of: Callable[[str | None], Page[T]]) -> Iterator[T]:
    """Every item of a list, page by page. `page_of` asks for the page of a token; None is the first."""
    token: str | None = None
    while True:
        page = page_of(token)
        yield from page.items
        token = page.next_page_token
        if token is None:
            return
