"""Times of single calls, as they are published and compared."""

from __future__ import annotations

import time
from collections.abc import Callable

WARM = 0.02  # seconds of calls to warm up, of which there is at least one


def warm_up(call: Callable[[], object]) -> None:
    """Call for WARM seconds, once at least: the first calls fill caches and wake threads."""
    start = time.perf_counter()
    while True:
        call()
        if time.perf_counter() - start >= WARM:
            return


def seconds_of(call: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
