"""How often a source may begin: a token bucket for each address, and no more of them than fit.

A bucket that has filled up again says nothing, so it is forgotten. No clock here.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MINUTE: Final = 60.0
SOURCES_MAX: Final = 65536


class StartRates:
    """`per_minute` starts of each source, all of them at once if it was quiet before."""

    def __init__(self, sources: int = SOURCES_MAX) -> None:
        self._size = sources
        self._left: OrderedDict[int, tuple[float, float]] = OrderedDict()  # tokens, at

    def allow(self, source: int, per_minute: int, now: float) -> bool:
        """Take a token; False: there is none, and nothing is taken."""
        if not per_minute:
            return True
        tokens, at = self._left.pop(source, (float(per_minute), now))
        tokens = min(float(per_minute), tokens + (now - at) * per_minute / MINUTE)
        allowed = tokens >= 1
        self._left[source] = (tokens - 1 if allowed else tokens, now)
        while len(self._left) > self._size:
            self._left.popitem(last=False)  # the one that was quiet longest
        return allowed
