"""The shaper in obvious Python: bucket, fair queue, CoDel, with lists and no shared pool.

Rules and numbers are those of fastpath/shaper.pyx; how they are carried out is not.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

FLOWS, QUANTUM, MTU, PLACE = 32, 1600, 1500, 1664
SECOND, MS = 1_000_000_000, 1_000_000


@dataclass(eq=False)
class Flow:
    """One queue of packets with the time they came, and its CoDel (RFC 8289 section 5)."""

    packets: deque[tuple[bytes, int]] = field(default_factory=deque)
    tag: int = 0
    deficit: int = 0
    dropping: bool = False
    count: int = 0
    last_count: int = 0
    first_above: int = 0
    drop_next: int = 0

    @property
    def octets(self) -> int:
        return sum(len(packet) for packet, _ in self.packets)


class SlowShaper:
    """The twin of fastpath.shaper.Shaper."""

    def __init__(self, rate: int, burst: int = 0, places: int = 1024) -> None:
        self.places = places
        self.flows = [Flow() for _ in range(FLOWS)]
        self.new: list[Flow] = []
        self.old: list[Flow] = []
        self.ready = 0
        self.part = 0
        self.set(rate, burst)

    def set(self, rate: int, burst: int = 0) -> None:
        self.cost = (8 * SECOND << 16) // rate
        if burst == 0:
            burst = rate // 800
        else:
            burst = min(max(burst, rate // 4000), max(rate // 8 * 60, rate // 4000))
        burst = max(burst, 3200)
        self.burst_ns = burst * self.cost >> 16
        packet = (MTU * self.cost >> 16) * 3 // 2
        self.target = max(5 * MS, packet)
        self.interval = 100 * MS
        if packet > 5 * MS:
            self.interval = max(95 * MS + packet, 2 * packet)
        self.most = min(max(49152, rate // 8 * 3 // 10), 1 << 30)

    @property
    def packets(self) -> int:
        return sum(len(flow.packets) for flow in self.flows)

    @property
    def octets(self) -> int:
        return sum(flow.octets for flow in self.flows)

    def pay(self, n: int, now: int) -> None:
        price = n * self.cost + self.part
        self.ready = max(self.ready, now - self.burst_ns) + (price >> 16)
        self.part = price & 0xFFFF

    def passes(self, n: int, now: int) -> bool:
        if self.packets or self.ready > now:
            return False
        self.pay(n, now)
        return True

    def queue_of(self, flow: int) -> Flow:
        """Its own; an idle one, best one that no list has; or the one its hash says."""
        order = [self.flows[(flow + i) % FLOWS] for i in range(FLOWS)]
        listed = [*self.new, *self.old]
        for queue in order:
            if queue.tag == flow:
                return queue
        idle = [queue for queue in order if not queue.packets]
        if not idle:
            return order[0]
        chosen = next((queue for queue in idle if queue not in listed), idle[0])
        chosen.tag = flow
        chosen.dropping = False
        chosen.count = chosen.last_count = chosen.first_above = chosen.drop_next = 0
        return chosen

    def put(self, flow: int, packet: bytes, now: int) -> int:
        if not 0 < len(packet) <= PLACE:
            return 1
        dropped = 0
        while self.packets and (
            self.octets + len(packet) > self.most or self.packets >= self.places - self.packets
        ):
            max(self.flows, key=lambda f: f.octets).packets.popleft()
            dropped += 1
        chosen = self.queue_of(flow)
        chosen.packets.append((packet, now))
        if chosen not in self.new and chosen not in self.old:
            chosen.deficit = QUANTUM
            self.new.append(chosen)
        return dropped

    def too_old(self, flow: Flow, came: int, now: int) -> bool:
        if now - came < self.target or flow.octets <= MTU:
            flow.first_above = 0
            return False
        if flow.first_above == 0:
            flow.first_above = now + self.interval
            return False
        return now >= flow.first_above

    def law(self, since: int, count: int) -> int:
        return since + int(self.interval / math.sqrt(count))

    def codel(self, flow: Flow, now: int) -> tuple[bytes | None, int]:
        dropped = 0
        if not flow.packets:
            flow.first_above = 0
            flow.dropping = False
            return None, 0
        packet, came = flow.packets.popleft()
        old = self.too_old(flow, came, now)
        if flow.dropping:
            flow.dropping = old
            while flow.dropping and now >= flow.drop_next:
                dropped += 1
                flow.count += 1
                packet, came = flow.packets.popleft()
                if self.too_old(flow, came, now):
                    flow.drop_next = self.law(flow.drop_next, flow.count)
                else:
                    flow.dropping = False
        elif old:
            dropped += 1
            flow.dropping = True
            since = flow.count - flow.last_count
            recent = now - flow.drop_next < 16 * self.interval
            flow.count = since if since > 1 and recent else 1
            flow.last_count = flow.count
            flow.drop_next = self.law(now, flow.count)
            packet, came = flow.packets.popleft()
            self.too_old(flow, came, now)
        return packet, dropped

    def next(self, now: int) -> tuple[bytes | None, int]:
        dropped = 0
        while self.packets and self.ready <= now:
            turn = self.new or self.old
            flow = turn[0]
            if flow.deficit <= 0:
                flow.deficit += QUANTUM
                turn.pop(0)
                self.old.append(flow)
                continue
            packet, more = self.codel(flow, now)
            dropped += more
            if packet is None:
                turn.pop(0)
                if turn is self.new and self.old:
                    self.old.append(flow)
                continue
            flow.deficit -= len(packet)
            self.pay(len(packet), now)
            return packet, dropped
        return None, dropped

    def clear(self) -> int:
        n = self.packets
        for flow in self.flows:
            flow.packets.clear()
        return n
