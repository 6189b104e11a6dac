"""On the PYTHONPATH of one process: its wall clock is FEWBYTES_TEST_SKEW_SECONDS wrong. Python imports this by itself."""

import os
import time

_seconds = float(os.environ.get("FEWBYTES_TEST_SKEW_SECONDS", "0"))
_time, _time_ns = time.time, time.time_ns

if _seconds:
    time.time = lambda: _time() + _seconds
    time.time_ns = lambda: _time_ns() + int(_seconds * 1e9)
