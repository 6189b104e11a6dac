"""The page at `/`: its files as they are shipped in `static/`. Nothing is built, and nothing comes from elsewhere.

A digest of all files is part of their address, so browsers may keep them for ever and still never mix two versions:
modules import each other by relative paths, and so stay below the digest that `index.html` names.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_INDEX = "index.html"


@dataclass(frozen=True)
class PageFile:
    """A file as it is served."""

    content: bytes
    media_type: str

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


@dataclass(frozen=True)
class Page:
    """`files` by their path below the digest; `index` is the page that names them."""

    digest: str
    index: PageFile
    files: dict[str, PageFile]


@lru_cache(maxsize=1)
def page() -> Page:
    """Read from the package once a process."""
    files = {
        path: PageFile(entry.read_bytes(), _TYPES[_suffix(path)])
        for path, entry in _walk(resources.files(__name__).joinpath("static"), "")
    }
    template = files.pop(_INDEX)
    whole = hashlib.sha256()
    for path, file in sorted(files.items()):
        whole.update(f"{path}\n{len(file.content)}\n".encode() + file.content)
    digest = whole.hexdigest()[:16]
    return Page(digest, _index(template, digest, files), files)


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in folder.iterdir():
        path = prefix + entry.name
        if entry.is_dir():
            found += _walk(entry, f"{path}/")
        elif _suffix(path) in _TYPES:
            found.append((path, entry))
    return found


def _suffix(path: str) -> str:
    return path[path.rfind(".") :]


def _index(template: PageFile, digest: str, files: dict[str, PageFile]) -> PageFile:
    """With the digest in the addresses, and all modules named: a browser would find them one import after another."""
    modules = sorted(path for path in files if path.endswith(".js"))
    preloads = "\n".join(f'<link rel="modulepreload" href="/web/{digest}/{path}">' for path in modules)
    text = template.content.decode().replace("{{digest}}", digest).replace("{{modules}}", preloads)
    return PageFile(text.encode(), template.media_type)
