"""What has ended lately: a dispatcher that died meanwhile may not have heard of it."""

from __future__ import annotations

from collections import deque
from typing import Final

from workers.live import Handle

KEPT_S: Final = 30.0
KEPT: Final = 65536


class LatelyEnded:
    """Handles with cause and reason, the oldest first."""

    def __init__(self) -> None:
        self._all: deque[tuple[float, Handle, str, str]] = deque(maxlen=KEPT)

    def add(self, handle: Handle, cause: str, reason: str, now: float) -> None:
        """Ended is being said of it."""
        self._forget(now)
        self._all.append((now, handle, cause, reason))

    def handles(self, now: float) -> tuple[Handle, ...]:
        """Of those that are not too long ago."""
        self._forget(now)
        return tuple(handle for _, handle, _, _ in self._all)

    def since(self, now: float) -> list[tuple[Handle, str, str]]:
        """The same with cause, "" if nobody said one, and reason."""
        self._forget(now)
        return [(handle, cause, reason) for _, handle, cause, reason in self._all]

    def _forget(self, now: float) -> None:
        while self._all and self._all[0][0] < now - KEPT_S:
            self._all.popleft()
