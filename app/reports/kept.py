"""What was rendered lately, in memory: the same version of the same job is drawn once a process.

Keys name the job, its version and what was asked for; whoever looks here has found the job through its own tenant first.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

MOST_BYTES = 32 << 20

Key = tuple[object, ...]


class Kept:
    """The most recently used results, up to so many bytes together. Thread-safe; two who ask at once may both render."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._size = 0
        self._content: OrderedDict[Key, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key, render: Callable[[], bytes]) -> bytes:
        with self._lock:
            if key in self._content:
                self._content.move_to_end(key)
                return self._content[key]
        content = render()
        with self._lock:
            if key not in self._content and len(content) <= self._most_bytes:
                self._content[key] = content
                self._size += len(content)
            while self._size > self._most_bytes:
                _, dropped = self._content.popitem(last=False)
                self._size -= len(dropped)
        return content
