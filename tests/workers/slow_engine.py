"""A slow, obvious twin of fastpath.engine: the interface of engine.pyi, no packets.

Operations happen at once and in order; frames for the peer are kept in `sent`. Tests
put in what a peer says by `deliver`.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from dataclasses import dataclass, field

from workers.live import Handle
from workers.ports import EventKinds

KINDS = EventKinds(
    frame=1,
    installed=2,
    removed=3,
    echo_lost=4,
    desync=5,
    resumed=6,
    bound=8,
    packet=9,
    traced=10,
)
Event = tuple[int, int, int, bytes]


@dataclass
class SlowEngine:
    """`room`: operations the ring still takes; None: any number."""

    kinds: EventKinds = KINDS
    room: int | None = None
    installed: set[Handle] = field(default_factory=set)
    is_up: set[Handle] = field(default_factory=set)
    is_up6: set[Handle] = field(default_factory=set)
    filters: list[bytes] = field(default_factory=list)
    mppe: dict[Handle, tuple[int, bytes, bool, int, bytes, bool]] = field(default_factory=dict)
    sent: deque[tuple[Handle, bytes]] = field(default_factory=deque)
    packets: deque[tuple[Handle, bytes]] = field(default_factory=deque)
    done: list[tuple[str, Handle]] = field(default_factory=list)
    queue: deque[Event] = field(default_factory=deque)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK)

    def close(self) -> None:
        os.close(self.event_fd)

    def run(self) -> None:
        self.stopped.wait()

    def stop(self) -> None:
        self.stopped.set()

    def events(self, limit: int = 256) -> list[Event]:
        taken = [self.queue.popleft() for _ in range(min(limit, len(self.queue)))]
        if not self.queue:
            try:
                os.eventfd_read(self.event_fd)
            except BlockingIOError:
                pass
        return taken

    def emit(self, kind: int, handle: Handle, data: bytes = b"") -> None:
        self.queue.append((kind, *handle, data))
        os.eventfd_write(self.event_fd, 1)

    def deliver(self, handle: Handle, frame: bytes) -> None:
        """A frame of the peer; dropped like GRE for a call that is not installed."""
        if handle in self.installed:
            self.emit(self.kinds.frame, handle, frame)

    def install(self, index: int, generation: int) -> bool:
        if not self._take("install", (index, generation)):
            return False
        self.installed.add((index, generation))
        self.emit(self.kinds.installed, (index, generation))
        return True

    def send(self, index: int, generation: int, frame: bytes) -> bool:
        if not self._take("send", (index, generation)):
            return False
        if (index, generation) in self.installed:
            self.sent.append(((index, generation), frame))
        return True

    def set_mppe(
        self,
        index: int,
        generation: int,
        rx_bits: int,
        rx_key: bytes,
        rx_stateful: bool,
        tx_bits: int,
        tx_key: bytes,
        tx_stateful: bool,
    ) -> bool:
        if not self._take("set_mppe", (index, generation)):
            return False
        keys = (rx_bits, rx_key, rx_stateful, tx_bits, tx_key, tx_stateful)
        self.mppe[index, generation] = keys
        return True

    def up(self, index: int, generation: int) -> bool:
        if not self._take("up", (index, generation)):
            return False
        self.is_up.add((index, generation))
        return True

    def down(self, index: int, generation: int) -> bool:
        if not self._take("down", (index, generation)):
            return False
        self.is_up.discard((index, generation))
        return True

    def up6(self, index: int, generation: int) -> bool:
        if not self._take("up6", (index, generation)):
            return False
        self.is_up6.add((index, generation))
        return True

    def down6(self, index: int, generation: int) -> bool:
        if not self._take("down6", (index, generation)):
            return False
        self.is_up6.discard((index, generation))
        return True

    def set_rates(self, index: int, generation: int) -> bool:
        return self._take("set_rates", (index, generation))

    def set_nets(self, index: int, generation: int) -> bool:
        return self._take("set_nets", (index, generation))

    def packet(self, index: int, generation: int, packet: bytes) -> bool:
        if not self._take("packet", (index, generation)):
            return False
        if (index, generation) in self.is_up & self.is_up6:
            self.packets.append(((index, generation), packet))
        return True

    def set_peers(self, block: bytes) -> bool:
        return self._take("set_peers", (0, 0))

    def set_filters(self, block: bytes) -> bool:
        if not self._take("set_filters", (0, 0)):
            return False
        self.filters.append(block)
        return True

    def trace(self, index: int, generation: int, what: int) -> bool:
        return self._take(f"trace {what}", (index, generation))

    def remove(self, index: int, generation: int) -> bool:
        if not self._take("remove", (index, generation)):
            return False
        self.installed.discard((index, generation))
        self.is_up.discard((index, generation))
        self.is_up6.discard((index, generation))
        self.emit(self.kinds.removed, (index, generation))
        return True

    def _take(self, name: str, handle: Handle) -> bool:
        if self.room is not None:
            if self.room == 0:
                return False
            self.room -= 1
        self.done.append((name, handle))
        return True
