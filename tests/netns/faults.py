"""A wire that behaves badly: forwards frames between two devices, with seeded faults in GRE.

    python -m tests.netns.faults --between DEVICE DEVICE --seed N --faults JSON

What is lost, doubled, reordered, late or cut to pieces follows from the seed and the order
of packets alone. Only GRE is touched: the control connection's TCP would mend itself. At
SIGTERM the counts of both ways are printed as JSON. The devices' other ends must not leave
checksums or segmentation to hardware: `Way` forwards what it sees.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import select
import signal
import socket
import struct
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Final, Literal

ETH_P_ALL: Final = 0x0003
ETH_HEAD: Final = 14
GRE: Final = 47
PACKET_OUTGOING: Final = 4
SO_RCVBUFFORCE: Final = 33
BUFFER: Final = 8 << 20
PERIOD: Final = 100  # packets from one pattern to the next
GROUP: Final = 10  # packets of a pattern
FLUSH_S: Final = 0.02  # what is kept back goes on then, if nothing else comes

Pattern = Literal["none", "swap", "late", "reverse"]


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens to the GRE of one direction; shares of 1."""

    loss: float = 0.0
    duplicate: float = 0.0
    pattern: Pattern = "none"  # every PERIOD: swap two, one GROUP late, GROUP in reverse
    delayed: float = 0.0
    delay_ms: float = 0.0  # at most; those that are not delayed overtake
    fragment: int = 0  # IP packets longer than this are cut
    shuffle_fragments: float = 0.0


def checksum(head: bytes) -> int:
    """Of an IPv4 header whose own field is zero."""
    total: int = sum(struct.unpack(f">{len(head) // 2}H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def fragments(frame: bytes, mtu: int) -> list[bytes]:
    """The frame, its IPv4 packet cut to `mtu` (RFC 791 section 2.3)."""
    ethernet, packet = frame[:ETH_HEAD], frame[ETH_HEAD:]
    head = (packet[0] & 15) * 4
    total = int.from_bytes(packet[2:4], "big")
    if total <= mtu:
        return [frame]
    word = int.from_bytes(packet[6:8], "big")
    more, first = word & 0x2000, word & 0x1FFF
    step = (mtu - head) // 8 * 8
    made = []
    for at in range(head, total, step):
        part = packet[at : min(at + step, total)]
        flags = (more if at + step >= total else 0x2000) | (first + (at - head) // 8)
        new = bytearray(packet[:head])
        new[2:4] = (head + len(part)).to_bytes(2, "big")
        new[6:8] = flags.to_bytes(2, "big")
        new[10:12] = b"\0\0"
        new[10:12] = checksum(bytes(new)).to_bytes(2, "big")
        made.append(ethernet + bytes(new) + part)
    return made


def is_gre(frame: bytes) -> bool:
    """An Ethernet frame with a first or only fragment of GRE in IPv4."""
    return frame[12:14] == b"\x08\x00" and len(frame) >= ETH_HEAD + 20 and frame[23] == GRE


class Way:
    """One direction; no socket, no clock."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self.faults = faults
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._kept: list[bytes] = []
        self._flush_at: float | None = None
        self._later: list[tuple[float, int, bytes]] = []
        self._number = 0

    @property
    def timer_at(self) -> float | None:
        """When `due` has something."""
        times = [self._later[0][0]] if self._later else []
        if self._flush_at is not None:
            times.append(self._flush_at)
        return min(times, default=None)

    def feed(self, frame: bytes, now: float) -> list[bytes]:
        """A frame came in; what goes out now."""
        if not is_gre(frame):
            return [frame]
        self.counts["in"] += 1
        if self._random.random() < self.faults.loss:
            self.counts["lost"] += 1
            return []
        self._number += 1
        out = self._in_pattern(frame, now)
        sent: list[bytes] = []
        for each in out:
            sent += self._dispatch(each, now)
        return sent

    def due(self, now: float) -> list[bytes]:
        """Time has passed; what goes out now."""
        out = []
        while self._later and self._later[0][0] <= now:
            out.append(heapq.heappop(self._later)[2])
        sent = [piece for frame in out for piece in self._pieces(frame)]
        if self._flush_at is not None and self._flush_at <= now:
            self._flush_at = None
            kept, self._kept = self._kept, []
            for frame in kept:
                sent += self._dispatch(frame, now)
        return sent

    def _in_pattern(self, frame: bytes, now: float) -> list[bytes]:
        at = (self._number + PERIOD // 2) % PERIOD  # the login has passed
        match self.faults.pattern:
            case "swap" if at in (0, 1):
                return self._keep(frame, now, whole=2, turn=True)
            case "late":
                if at == 0:
                    return self._keep(frame, now, whole=2, turn=False)
                if at == GROUP and self._kept:
                    return [frame, *self._let_go()]
            case "reverse" if at < GROUP:
                return self._keep(frame, now, whole=GROUP, turn=True)
            case _:
                pass
        return [frame]

    def _keep(self, frame: bytes, now: float, *, whole: int, turn: bool) -> list[bytes]:
        self._kept.append(frame)
        self.counts["kept_back"] += 1
        if self._flush_at is None:
            self._flush_at = now + FLUSH_S
        if turn and len(self._kept) == whole:
            return self._let_go()[::-1]
        return []

    def _let_go(self) -> list[bytes]:
        kept, self._kept = self._kept, []
        self._flush_at = None
        return kept

    def _dispatch(self, frame: bytes, now: float) -> list[bytes]:
        copies = 1
        if self._random.random() < self.faults.duplicate:
            self.counts["duplicated"] += 1
            copies = 2
        out: list[bytes] = []
        for _ in range(copies):
            if self._random.random() < self.faults.delayed:
                self.counts["delayed"] += 1
                at = now + self._random.random() * self.faults.delay_ms / 1000
                heapq.heappush(self._later, (at, self.counts["delayed"], frame))
            else:
                out += self._pieces(frame)
        return out

    def _pieces(self, frame: bytes) -> list[bytes]:
        if not self.faults.fragment:
            self.counts["out"] += 1
            return [frame]
        made = fragments(frame, self.faults.fragment)
        if len(made) > 1:
            self.counts["fragmented"] += 1
            if self._random.random() < self.faults.shuffle_fragments:
                self._random.shuffle(made)
        self.counts["out"] += len(made)
        return made


class Wire:
    """Two packet sockets and a Way between them each way."""

    def __init__(self, devices: tuple[str, str], ways: tuple[Way, Way]) -> None:
        self.ways = ways
        self._sockets = []
        for name in devices:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            sock.bind((name, ETH_P_ALL))
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
            sock.setblocking(False)
            self._sockets.append(sock)

    def turn(self, patience: float) -> None:
        """Forward what is there, waiting at most so long for it."""
        now = time.monotonic()
        for way in self.ways:
            if way.timer_at is not None:
                patience = min(patience, max(0.0, way.timer_at - now))
        ready, _, _ = select.select(self._sockets, [], [], patience)
        for i in (0, 1):
            if self._sockets[i] in ready:
                self._drain(i)
            self._send(i, self.ways[i].due(time.monotonic()))

    def _drain(self, i: int) -> None:
        for _ in range(64):
            try:
                frame, address = self._sockets[i].recvfrom(65536)
            except BlockingIOError:
                return
            if address[2] != PACKET_OUTGOING:
                self._send(i, self.ways[i].feed(frame, time.monotonic()))

    def _send(self, i: int, frames: list[bytes]) -> None:
        for frame in frames:
            try:
                self._sockets[1 - i].send(frame)
            except OSError:
                self.ways[i].counts["refused"] += 1


def main() -> None:
    """Until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--between", nargs=2, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--faults", nargs=2, required=True, help="JSON, one for each way")
    options = parser.parse_args()
    kinds = [Faults(**json.loads(text)) for text in options.faults]
    ways = Way(kinds[0], options.seed), Way(kinds[1], options.seed + 1)
    wire = Wire(tuple(options.between), ways)
    stopped = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    print(json.dumps({"ready": True}), flush=True)
    while not stopped:
        wire.turn(0.1)
    counts = [dict(way.counts) for way in wire.ways]
    json.dump({"counts": counts, "faults": [asdict(kind) for kind in kinds]}, sys.stdout)
    print(flush=True)


if __name__ == "__main__":
    main()
