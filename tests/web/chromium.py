"""The system's own Chromium for the tests of the page: where it is, how it is started, what it must not say."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOW_TO_GET_ONE = "There is no Chromium. `apt-get install chromium` (Debian), or set FEWBYTES_CHROMIUM to the program of another one."
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = (1280, 900), (390, 844)


def find() -> str | None:
    """The program, or None."""
    given = os.environ.get("FEWBYTES_CHROMIUM")
    return given or next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def started(path: str) -> Iterator[Browser]:
    """A headless browser with a profile of its own, which goes with it."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visitor:
    """Somebody in front of the page. `refused`: answers of 4xx and 5xx that were met, which a test expects or not."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._watch)

    def _listen(self, message: ConsoleMessage) -> None:
        # A browser reports each refused request as an error of its own.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.errors.append(message.text)

    def _watch(self, request: Any) -> None:
        at = urlsplit(request.url)
        if at.scheme in ("http", "https", "ws", "wss") and at.netloc != urlsplit(self.url).netloc:
            self.elsewhere.append(request.url)

    def go(self, path: str) -> Page:
        """Open a view by its address behind the #, and wait until it shows something."""
        self.page.goto(f"{self.url}/#{path}")
        self.page.locator(f"main[data-view='#{path}']").wait_for()
        return self.page

    def check(self) -> None:
        """Nothing went wrong in the browser, and nobody else was asked for anything."""
        assert not self.errors, self.errors
        assert not self.elsewhere, self.elsewhere


@contextmanager
def visiting(
    browser: Browser, url: str, size: tuple[int, int] = DESKTOP, scheme: Any = "light"
) -> Iterator[Visitor]:
    """A browser window of one's own on the service at this address."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce"
    )
    context.set_default_timeout(15_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    try:
        yield Visitor(context.new_page(), url)
    finally:
        context.close()


def shoot(page: Page, folder: Path | None, name: str) -> None:
    """Keep a picture of the whole page, if somebody wants to look at it."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name}.png", full_page=True, caret="initial")
