"""Reading a stranger's archive, or the operator's folder, file by file. Nothing is ever extracted.

`extractall` is not used even with a filter: `filter="data"` was escaped in CVE-2025-4517 and again in
CVE-2026-11940. A name from an archive is only ever a key in our index, never a path that is opened.
"""

from collections.abc import Iterator
from pathlib import Path

from worker.datasets.entries import Entry, Limits, damage_explained, unreadable
from worker.datasets.folders import folder_entries
from worker.datasets.packed import unpacked
from worker.datasets.recognised import HEAD, foreign_archive
from worker.datasets.tars import is_tar, tar_entries
from worker.datasets.zips import zip_entries


def read_entries(source: Path, limits: Limits) -> Iterator[Entry]:
    """The files and folders of a zip, a tar (plain, .gz, .xz; by content, not by name) or a folder on disk.

    Raises Problem ARCHIVE_UNREADABLE (damaged, or not an archive) or ARCHIVE_UNSAFE (what it holds breaks a
    rule).
    """
    if source.is_dir():
        yield from folder_entries(source, limits)
        return
    with damage_explained(), source.open("rb") as file:
        head = file.read(HEAD)
        file.seek(0)
        # A tar begins with the name of its first file, which may be any letters.
        if not is_tar(head) and (what := foreign_archive(head)):
            raise unreadable(f"The file is {what}, and a data set is a zip or tar (.tar, .tar.gz, .tar.xz).")
        if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            yield from zip_entries(file, limits)
        else:
            yield from tar_entries(file, unpacked(file, head), limits)
