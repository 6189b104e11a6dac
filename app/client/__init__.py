"""A client of the service, for Python programs: `from app.client import Client`.

It needs httpx and pydantic, and nothing else of this package.
"""

from app.client.client import Client
from app.client.errors import FewbytesError

__all__ = ["Client", "FewbytesError"]
