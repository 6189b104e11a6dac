"""Whether there is room on the disk for another job."""

from app.settings import settings
from app.storage import disk


def trouble() -> str | None:
    """Why this worker should take no job just now, in a sentence; None: it may."""
    folder, least = settings().resolved_data_dir, settings().min_free_bytes
    free = disk.free_bytes(folder)
    if free >= least:
        return None
    return f"Its disk has {free} bytes free, less than the {least} that a job is started with (FEWBYTES_MIN_FREE_BYTES)."
