"""How often somebody may ask."""

from __future__ import annotations

import threading
import time

MOST_NAMES = 10_000  # remembered at once


class Limiter:
    """Lets each name through so many times a minute, all at once or spread over it (a token bucket).

    Args:
        a_minute: how often; None: always.

    >>> limiter = Limiter(2)
    >>> [limiter.wait("ann", now=0.0), limiter.wait("ann", now=0.0), limiter.wait("ann", now=0.0)]
    [0.0, 0.0, 30.0]
    """

    def __init__(self, a_minute: int | None) -> None:
        self.a_minute = a_minute
        self._left: dict[str, tuple[float, float]] = {}  # by name: what is left, and when that was
        self._lock = threading.Lock()

    def wait(self, name: str, cost: float = 1.0, now: float | None = None) -> float:
        """Seconds to wait; 0: go ahead, which is counted. A cost of 0 only looks whether any is left."""
        if self.a_minute is None:
            return 0.0
        now = time.monotonic() if now is None else now
        with self._lock:
            left, since = self._left.get(name, (float(self.a_minute), now))
            left = min(float(self.a_minute), left + (now - since) * self.a_minute / 60)
            if left < max(cost, 1.0):
                return (max(cost, 1.0) - left) * 60 / self.a_minute
            self._forget_all_if_full()
            self._left[name] = (left - cost, now)
            return 0.0

    def _forget_all_if_full(self) -> None:
        if len(self._left) >= MOST_NAMES:
            self._left.clear()
