"""The names in an archive. They are keys of an index and never paths that are opened.

So names that mean something to a system (CON, NUL, trailing dots) are names like others. Upper and lower case are
compared where files are counted (`build`), not here: two names that differ only there are one file on a Mac and
two on a server.
"""

import unicodedata

from worker.datasets.entries import Limits, printable, unsafe

# Embeddings, overrides and isolates: "gpj.tac" that reads "cat.jpg". Joiners and marks (U+200C to U+200F) stay:
# Persian words, emoji and Hebrew names are spelt with them.
_TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_MAX_LENGTH = 1000


def checked_name(name: str, limits: Limits) -> str:
    """The name in NFC with `/` between parts; empty for the archive's own top folder, ".".

    Raises Problem ARCHIVE_UNSAFE where it could mean another place than it says.
    """
    shown = ascii(name[:200])
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise unsafe(f"The name {shown} is no valid UTF-8.") from None
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise unsafe(f"The name {shown} holds control characters.")
    if not _TURNING.isdisjoint(name):
        raise unsafe(f"The name {shown} holds characters that turn the direction of writing.")
    # Some Windows programs write backslashes; on Windows they would be separators, so they are here.
    path = unicodedata.normalize("NFC", name).replace("\\", "/")
    parts = path.rstrip("/").split("/")
    if path.startswith("/") or parts[0].endswith(":") or ".." in parts or "" in parts:
        raise unsafe(f"The name {shown} points outside its folder: names must be relative and without '..'.")
    if len(parts) > limits.max_depth:
        raise unsafe(f"The name {shown} lies {len(parts)} levels deep; at most {limits.max_depth} are read.")
    if len(path) > _MAX_LENGTH:
        raise unsafe(f"The name {shown}… has {len(path)} characters; at most {_MAX_LENGTH} are read.")
    return "/".join(part for part in parts if part != ".")


def quoted(path: str) -> str:
    """A name as sentences show it: in quotes, shortened, everything invisible escaped."""
    shown = path if len(path) <= 120 else f"{path[:60]}…{path[-50:]}"
    return f"'{printable(shown)}'"
