#!/usr/bin/env python3
"""Time in the concentrator of pings while another session downloads at full rate.

Two sessions of one client. A host of the LAN pings the first; the second downloads by
iperf3. Packet sockets stamp each ping as it comes in and as it leaves (SO_TIMESTAMPNS), request
and reply: inside on the server's interface, outside on the client's end of the cable, for AF_XDP
passes by those of the server's. So neither the client nor the hosts are in the figure. MPPE
hides what a packet is, so each ping of 64 in a row has a length of its own.
The data thread and the server's packet reception have CPU 1 alone, all else is on CPU 0.
Microseconds.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dispatcher import descriptors
from dispatcher.filters import (
    AD_OFF,
    JEQ_K,
    LD_B_ABS,
    LD_H_ABS,
    RET_K,
    Instruction,
    Program,
)
from ops.client import netns
from ops.client.child import ChildError
from ops.client.netns import NetnsError
from ops.client.playground import LAN_HOST, Playground, why_not
from tests.bench import datapath
from tests.bench.datapath import DOWN
from tests.bench.results import BenchError, Result, arguments, cannot
from tests.bench.service import DATA_CPU, OTHER_CPU, serving, steer
from tests.bench.ways import Ways, argument

LENGTHS: Final = 64
SMALLEST: Final = 400  # octets of ICMP payload
ICMP_HEADERS: Final = 28
FAR: Final = 0.15  # seconds: an answer later than that belongs to another ping of its length
SO_TIMESTAMPNS: Final = 35
ETH_P_ALL: Final = 3
PACKET_OUTGOING: Final = 4
JGE_K: Final = 0x35
SLEEPS: Final = 1000
NAP: Final = 0.001
WAKEUP_REFERENCE: Final = 204.0  # us, p99 on the reference machine
TIMESPEC: Final = struct.Struct("=qq")
INTERVAL: Final = (0.004, 0.008)
GOAL_TIMES: Final = 3.0
GOAL_MORE_US: Final = 1000.0


def only(protocol: int) -> Program:
    """A filter: IPv4 packets of this protocol and about a ping's length."""
    least, most = SMALLEST, SMALLEST + LENGTHS + 120
    return (
        Instruction(LD_H_ABS, 0, 0, AD_OFF),  # SKF_AD_PROTOCOL
        Instruction(JEQ_K, 0, 6, 0x0800),
        Instruction(LD_B_ABS, 0, 0, 9),
        Instruction(JEQ_K, 0, 4, protocol),
        Instruction(LD_H_ABS, 0, 0, 2),
        Instruction(JGE_K, 0, 2, least),
        Instruction(JGE_K, 1, 0, most),
        Instruction(RET_K, 0, 0, 256),
        Instruction(RET_K, 0, 0, 0),
    )


@dataclass(slots=True)
class Seen:
    """Stamps of one interface, by direction and length class of the ping."""

    incoming: dict[int, list[float]] = field(default_factory=dict)
    outgoing: dict[int, list[float]] = field(default_factory=dict)

    def add(self, out: bool, key: int, stamp: float) -> None:
        """Note one."""
        (self.outgoing if out else self.incoming).setdefault(key, []).append(stamp)


class Tap:
    """A packet socket that stamps what passes an interface."""

    def __init__(self, device: str, protocol: int) -> None:
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self.protocol = protocol
        descriptors.attach(self.sock, only(protocol))
        self.sock.setsockopt(socket.SOL_SOCKET, descriptors.SO_RCVBUFFORCE, 32 << 20)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.sock.bind((device, ETH_P_ALL))
        self.sock.setblocking(False)

    def read(self) -> Seen:
        """All that has been seen; of GRE only the call, each way, that most packets are of."""
        seen = Seen()
        rows: list[tuple[bool, int, int, float]] = []
        while True:
            try:
                data, extra, _, address = self.sock.recvmsg(256, 256)
            except BlockingIOError:
                break
            seconds, nanos = next(
                TIMESPEC.unpack(value)
                for level, kind, value in extra
                if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS
            )
            size, call = int.from_bytes(data[2:4], "big") - 20, 0
            if self.protocol == descriptors.IPPROTO_GRE:
                call = int.from_bytes(data[26:28], "big")
                if not data[20] & 0x10:
                    continue
                size = int.from_bytes(data[24:26], "big")
            rows.append((address[2] == PACKET_OUTGOING, call, size, seconds + nanos * 1e-9))
        for out in (False, True):
            calls = Counter(call for is_out, call, _, _ in rows if is_out == out)
            wanted = out, calls.most_common(1)[0][0] if calls else 0
            sizes = [size for *which, size, _ in rows if tuple(which) == wanted]
            for *which, size, stamp in rows:
                if tuple(which) == wanted:  # what PPP and MPPE add is the same for all of them
                    seen.add(out, size - min(sizes), stamp)
        return seen


class Pinger(threading.Thread):
    """Echo requests from the LAN's host (RFC 792), each of the next length."""

    def __init__(self, ground: Playground, target: str, count: int) -> None:
        super().__init__(name="pinger")
        self.sock = netns.inside(
            ground.name("lan"),
            lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        )
        self.sock.bind((LAN_HOST, 0))
        self.sock.connect((target, 0))
        self.sock.setblocking(False)
        self.count = count
        self.answers = 0
        self.rng = random.Random(1)

    def run(self) -> None:
        """Send them all, then wait for the last."""
        os.sched_setaffinity(0, {OTHER_CPU})
        for number in range(self.count):
            self.sock.send(self._request(number))
            self._collect(self.rng.uniform(*INTERVAL))
        self._collect(0.3)

    def _request(self, number: int) -> bytes:
        payload = bytes(SMALLEST + number % LENGTHS)
        head = struct.pack(">BBHHH", 8, 0, 0, 77, number & 0xFFFF)
        text = head + payload + bytes(len(payload) % 2)
        total = sum(struct.unpack(f">{len(text) // 2}H", text))
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        return head[:2] + struct.pack(">H", ~total & 0xFFFF) + head[4:] + payload

    def _collect(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self.sock], [], [], left)[0]:
                try:
                    self.answers += self.sock.recv(2048)[20] == 0
                except BlockingIOError:
                    pass


def pairs(entered: dict[int, list[float]], left: dict[int, list[float]]) -> list[float]:
    """Seconds from entering to leaving, of all that did both."""
    found = []
    for key, begins in entered.items():
        ends = iter(sorted(left.get(key, [])))
        end = next(ends, None)
        for begin in sorted(begins):
            while end is not None and end < begin:
                end = next(ends, None)
            if end is not None and end - begin < FAR:
                found.append(end - begin)
                end = next(ends, None)
    return found


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def run(
    ground: Playground, address: str, download: str, count: int, seconds: float
) -> tuple[dict[str, list[float]], float, int]:
    """Pings, and a download meanwhile if there is one: (times in us, Mbit/s, unanswered)."""
    with ExitStack() as exits:
        server = ground.name("server")
        wan = netns.inside(ground.name("clients"), lambda: Tap("wan", descriptors.IPPROTO_GRE))
        lan = netns.inside(server, lambda: Tap("lan", socket.IPPROTO_ICMP))
        for tap in (wan, lan):
            exits.callback(tap.sock.close)
        pinger = Pinger(ground, address, count)
        exits.callback(pinger.sock.close)
        rate = 0.0
        load = None
        result: list[tuple[float, float]] = []
        if download:
            load = threading.Thread(
                target=lambda: result.append(datapath.iperf(ground, seconds, DOWN, bind=download))
            )
            load.start()
            time.sleep(1.0)  # past its slow start
        pinger.start()
        pinger.join()
        if load is not None:
            load.join()
            if not result:
                raise BenchError("the download failed")
            rate = result[0][0] * 8e-6 / result[0][1]
        outer, inner = wan.read(), lan.read()
    request = pairs(inner.incoming, outer.incoming)
    reply = pairs(outer.outgoing, inner.outgoing)
    if min(len(request), len(reply)) < 0.98 * count:
        raise BenchError(
            f"of {count} pings {len(request)} requests and {len(reply)} replies were seen on "
            f"both sides; {pinger.answers} were answered"
        )
    times = {
        "request": [value * 1e6 for value in request],
        "reply": [value * 1e6 for value in reply],
    }
    return times, rate, count - pinger.answers


def wakeups(result: Result) -> None:
    """How late a sleeper wakes up on the data thread's CPU: whether that is idle at all."""
    late: list[float] = []

    def sleeper() -> None:
        os.sched_setaffinity(0, {DATA_CPU})
        for _ in range(SLEEPS):
            due = time.monotonic() + NAP
            time.sleep(NAP)
            late.append((time.monotonic() - due) * 1e6)

    thread = threading.Thread(target=sleeper)
    thread.start()
    thread.join()
    p99 = quantile(late, 0.99)
    result.figure("a sleeper's wake-up", p50_us=quantile(late, 0.5), p99_us=p99)
    result.yardstick("a sleeper's wake-up, p99 in us", p99, WAKEUP_REFERENCE)


def bench(count: int, rounds: int, ways: Ways) -> Result:
    """All rows: medians over rounds in which idle and download take turns, as a p99 of one
    run stands on fifteen pings."""
    result = Result("latency")
    seconds = count * statistics.mean(INTERVAL) * 1.15 + 3.0
    found: dict[str, list[list[float]]] = {}
    rates: list[float] = []
    unanswered = 0
    with Playground() as ground:
        port = str(datapath.IPERF_PORT)
        ground.start("lan", "iperf3", ["iperf3", "-s", "-p", port], cpus=(OTHER_CPU,))
        steer(ground, DATA_CPU, OTHER_CPU)
        wakeups(result)
        with serving(ground, mppe=True, sessions=2, ways=ways) as service:
            first, second = service.addresses
            for _ in range(rounds):
                for case, download in (("idle", ""), ("download", second)):
                    run(ground, first, "", 100, 0.0)  # both sides know each other
                    times, rate, lost = run(ground, first, download, count, seconds)
                    unanswered += lost
                    if download:
                        rates.append(rate)
                    for leg, values in times.items():
                        found.setdefault(f"{case}, {leg}", []).append(values)
    wakeups(result)
    p99 = {}
    for row, runs in found.items():
        tails = [quantile(values, 0.99) for values in runs]
        p99[row] = statistics.median(tails)
        result.figure(
            row,
            p50_us=statistics.median(quantile(values, 0.5) for values in runs),
            p90_us=statistics.median(quantile(values, 0.9) for values in runs),
            p99_us=p99[row],
            p99_least_us=min(tails),
            p99_most_us=max(tails),
            most_us=max(max(values) for values in runs),
            pings=sum(len(values) for values in runs),
        )
    result.figure("download", mbit=statistics.median(rates), unanswered=unanswered)
    for leg in ("request", "reply"):
        limit = GOAL_TIMES * p99[f"idle, {leg}"] + GOAL_MORE_US
        row = f"ping {leg} p99 under a download, of 3 x idle + 1 ms"
        result.ratio(row, p99[f"download, {leg}"] / limit, at_most=1.0)
    return result


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pings", type=int, default=1500, help="of a run")
    parser.add_argument("--rounds", type=int, default=5, help="of two runs each")
    argument(parser)
    words = arguments("latency", parser)
    lacking = why_not()
    if shutil.which("iperf3") is None:
        lacking = lacking or "iperf3 is missing: apt-get install iperf3"
    if lacking:
        return cannot("latency", lacking)
    try:
        result = bench(words.pings, words.rounds, words.ways)
    except (BenchError, ChildError, NetnsError, OSError, subprocess.SubprocessError) as e:
        print(f"latency: {e}", file=sys.stderr)
        return 1
    return result.finish(as_json=words.json)


if __name__ == "__main__":
    sys.exit(main())
