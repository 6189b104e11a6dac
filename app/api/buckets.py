"""Token buckets: so many requests a minute each, in this process's memory.

Several API processes have a bucket each, so what a key may do grows with their number. Of the package `limits` only
the storage in memory would be used, and that starts a thread for nearly every request.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

# Whoever has many addresses can make many buckets; the one that was used longest ago makes room for a new one.
_MOST_BUCKETS = 10_000


@dataclass
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """One bucket for each name, full at first, with room for a minute's worth of requests."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_minute / 60
        self._size = float(per_minute)
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, name: str) -> int:
        """Take one token; 0 when there was one, else the whole seconds until there will be."""
        if not self._size:
            return 0
        now = self._clock()
        bucket = self._buckets.pop(name, None) or _Bucket(self._size, now)
        self._buckets[name] = bucket
        if len(self._buckets) > _MOST_BUCKETS:
            self._buckets.popitem(last=False)
        bucket.tokens = min(self._size, bucket.tokens + (now - bucket.at) * self._per_second)
        bucket.at = now
        if bucket.tokens < 1:
            return math.ceil((1 - bucket.tokens) / self._per_second)
        bucket.tokens -= 1
        return 0
