"""Our call IDs: whose they are, and when one may be used again.

The low 6 bits of a call ID are its bucket, and bucket b belongs to worker b % W: the
GRE fanout program steers by the same rule. 0 is never given out. An ID is used again
the longest free first, so that late GRE of an old call does not meet a new one: hours
later in everyday life. QUARANTINE_S is the least, for who asks for calls and clears them
as fast as he can: 65,535 of them in that time are more than we set up, so he can't use
up the IDs that others need.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Final

BUCKETS: Final = 64
QUARANTINE_S: Final = 10.0


class CallIds:
    """Free call IDs of each worker. Both operations are O(1)."""

    def __init__(self, workers: int, used: set[int], entropy: random.Random) -> None:
        """`used` are IDs of calls that a dispatcher before us left.

        The order is shuffled: what that one gave back lately is then not our first choice.
        """
        if not 1 <= workers <= BUCKETS:
            raise ValueError(f"{workers} workers, not 1 to {BUCKETS}")
        self.workers = workers
        free: list[list[int]] = [[] for _ in range(workers)]
        for call_id in range(1, 65536):
            if call_id not in used:
                free[self.worker(call_id)].append(call_id)
        for ids in free:
            entropy.shuffle(ids)
        self._free: list[deque[tuple[float, int]]] = [
            deque((float("-inf"), call_id) for call_id in ids) for ids in free
        ]

    def worker(self, call_id: int) -> int:
        """The worker whose data thread gets the GRE of this call ID."""
        return call_id % BUCKETS % self.workers

    def take(self, worker: int, now: float) -> int | None:
        """A free ID; None if all of the worker's are in use or in quarantine."""
        ids = self._free[worker]
        if not ids or ids[0][0] > now:
            return None
        return ids.popleft()[1]

    def give_back(self, call_id: int, now: float) -> None:
        """The call ended; its ID waits."""
        self._free[self.worker(call_id)].append((now + QUARANTINE_S, call_id))

    def available(self, worker: int, now: float) -> bool:
        """Whether `take` would succeed."""
        ids = self._free[worker]
        return bool(ids) and ids[0][0] <= now
