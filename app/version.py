"""Which version of fewbytes this is."""

from functools import lru_cache
from importlib import metadata


@lru_cache
def version() -> str:
    """As it was installed; "0" when it was not: run from a checkout."""
    try:
        return metadata.version("fewbytes")
    except metadata.PackageNotFoundError:
        return "0"
