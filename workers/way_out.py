"""Keeps the data thread's next hops in step with the kernel's routes and neighbours."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Final, Protocol

from workers.hops import Hop, Resolver
from workers.live import Handle

SETTLE_S: Final = 0.05  # changes come in bursts
RETRY_S: Final = 1.0  # a peer without a hop: the raw socket may have made the kernel learn it
PATIENCE: Final = 30  # such tries; then only a change is a reason to ask again
SLICE: Final = 200  # peers asked for in one turn of the loop

Peer = tuple[int, int]  # its outer address, ours


class Engine(Protocol):
    """What is used of fastpath.engine.Engine."""

    def set_hop(self, index: int, generation: int, ifindex: int, mac: bytes, mtu: int) -> bool: ...


class WayOut:
    """The hops of one worker's sessions."""

    def __init__(
        self,
        engine: Engine,
        loop: asyncio.AbstractEventLoop,
        rings: Mapping[int, bytes] | None = None,
    ) -> None:
        self._engine = engine
        self._loop = loop
        self._resolver = Resolver(rings)
        self._handles: dict[Peer, set[Handle]] = {}
        self._hops: dict[Peer, Hop | None] = {}
        self._tries: dict[Peer, int] = {}
        self._todo: deque[Peer] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        loop.add_reader(self._resolver.events.fileno(), self._changed)

    def add(self, handle: Handle, peer: int, here: int) -> None:
        """A session begins."""
        key = (peer, here)
        known = self._handles.setdefault(key, set())
        known.add(handle)
        if self._hops.get(key) is None:
            self._hops[key] = self._resolve((peer, here))
        self._tell(handle, self._hops[key])
        if self._hops[key] is None:
            self._tries[key] = 0
            self._later(RETRY_S)

    def remove(self, handle: Handle, peer: int, here: int) -> None:
        """A session is gone."""
        key = (peer, here)
        known = self._handles.get(key)
        if known is None:
            return
        known.discard(handle)
        if not known:
            del self._handles[key]
            self._hops.pop(key, None)
            self._tries.pop(key, None)

    def close(self, raw_only: bool) -> None:
        """Packet sockets must not be used, or may be again: netops knows the host's rules."""
        if raw_only != self._closed:
            self._closed = raw_only
            self._changes()

    def _resolve(self, key: Peer) -> Hop | None:
        return None if self._closed else self._resolver.resolve(*key)

    def lost(self) -> None:
        """The data thread could not send to a hop."""
        self._resolver.forget()
        self._begin(list(self._handles))

    def _tell(self, handle: Handle, hop: Hop | None) -> None:
        index, generation = handle
        told = (hop.ifindex, hop.mac, hop.mtu) if hop else (0, b"", 0)
        if not self._engine.set_hop(index, generation, *told):
            self._loop.call_later(SETTLE_S, self._again, handle)

    def _again(self, handle: Handle) -> None:
        """The ring was full: what holds by now is told, if the session is still there."""
        for key, handles in self._handles.items():
            if handle in handles:
                self._tell(handle, self._hops.get(key))
                return

    def _changed(self) -> None:
        if self._resolver.changed():
            self._changes()

    def _changes(self) -> None:
        self._resolver.forget()
        self._tries = dict.fromkeys(self._handles, 0)
        self._begin(list(self._handles))

    def _begin(self, peers: list[Peer]) -> None:
        self._todo = deque(peers)
        self._later(SETTLE_S)

    def _later(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._work)

    def _work(self) -> None:
        """Ask again for some; those without a hop a bounded number of times."""
        self._timer = None
        if not self._todo:
            self._todo = deque(key for key, n in self._tries.items() if n < PATIENCE)
        for _ in range(min(SLICE, len(self._todo))):
            key = self._todo.popleft()
            if key not in self._handles:
                continue
            hop = self._resolve(key)
            if hop is None:
                self._tries[key] = self._tries.get(key, 0) + 1
            else:
                self._tries.pop(key, None)
            if hop != self._hops.get(key):
                self._hops[key] = hop
                for handle in self._handles[key]:
                    self._tell(handle, hop)
        if self._todo:
            self._later(0.0)
        elif any(n < PATIENCE for n in self._tries.values()):
            self._later(RETRY_S)
