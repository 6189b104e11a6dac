"""The page as files: how they are served, and that they fit together. No browser is needed for these."""

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import httpx
import pytest

from app.web import page
from tests.app.conftest import Service

STATIC = Path(str(resources.files("app.web"))) / "static"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def client(prepared: Service) -> httpx.Client:
    return prepared.client


def test_a_browser_gets_the_page_and_a_program_the_routes(client: httpx.Client) -> None:
    """By Accept, and caches are told so."""
    for_browser, for_program = client.get("/", headers=BROWSER), client.get("/")
    assert for_browser.headers["content-type"] == "text/html; charset=utf-8"
    assert for_program.json()["service"] == "fewbytes"
    assert for_browser.headers["vary"] == for_program.headers["vary"] == "Accept"


def test_nothing_inline_runs_and_nothing_comes_from_elsewhere(client: httpx.Client) -> None:
    """The policy allows this server's own files; the page has no script, style or handler in it."""
    answer = client.get("/", headers=BROWSER)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=|https?://", answer.text)


def test_files_are_kept_for_ever_under_the_digest_of_this_version(client: httpx.Client) -> None:
    """The page itself is asked for anew, and answered 304 while nothing changed."""
    first = client.get("/", headers=BROWSER)
    again = client.get("/", headers=BROWSER | {"If-None-Match": first.headers["etag"]})
    assert (first.headers["cache-control"], again.status_code, again.content) == ("no-cache", 304, b"")
    script = re.search(r'src="(/web/[0-9a-f]+/app\.js)"', first.text)
    assert script is not None
    module = client.get(script[1])
    assert module.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "immutable" in module.headers["cache-control"]
    of_another_version = client.get("/web/0123456789abcdef/app.js")
    assert of_another_version.content == module.content
    assert of_another_version.headers["cache-control"] == "no-store"


def test_only_files_of_the_page_are_served(client: httpx.Client) -> None:
    digest = page().digest
    for path in ("nothing.js", "../__init__.py", "%2e%2e/__init__.py", "views", "index.html"):
        answer = client.get(f"/web/{digest}/{path}")
        assert answer.status_code in (401, 404), path
        assert b"hashlib" not in answer.content


def test_the_page_opens_before_anybody_has_a_key(client: httpx.Client) -> None:
    """It asks for one; what it shows needs it."""
    for path in page().files:
        assert client.get(f"/web/{page().digest}/{path}").status_code == 200, path


def _imports(path: Path) -> Iterator[tuple[str, Path]]:
    for names, source in re.findall(r'import \{([^}]*)\} from "([^"]+)"', path.read_text()):
        for name in filter(None, (part.strip() for part in names.split(","))):
            yield name, (path.parent / source).resolve()


@pytest.mark.parametrize("path", sorted(STATIC.rglob("*.js")), ids=lambda path: path.name)
def test_modules_use_what_they_import_and_import_what_is_there(path: Path) -> None:
    text = path.read_text()
    body = re.sub(r'import \{[^}]*\} from "[^"]+";', "", text)
    for name, source in _imports(path):
        assert re.search(rf"export (async )?(function\*?|const|class) {name}\b", source.read_text()), name
        assert re.search(rf"\b{name}\b", body), f"{name} is imported and not used"


def test_every_file_is_in_the_package_that_is_installed() -> None:
    """package-data names the folders; a new one would be left at home."""
    folders = {path.parent.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file()}
    assert folders == {".", "views"}
    served = {*page().files, "index.html"}
    assert served == {path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file()}
