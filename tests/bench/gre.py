#!/usr/bin/env python3
"""CPU of GRE sockets alone: ours (packet sockets, nft rule, batches) against raw ones.

The yardstick takes one system call for each packet on a raw socket. ns of CPU a packet of
1400 octets inside: `kernel` is what the receiving kernel spends in the sender's call beyond
the sending, `socket` the receiver's or sender's own calls with what they trigger. Rows
beginning with `part` take ours apart: what each thing that service needs costs the kernel.
"""

from __future__ import annotations

import argparse
import ctypes
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dispatcher import descriptors, gre_sockets, nft
from ops.client import netns
from ops.client.netns import NetnsError
from ops.client.playground import WAN_SERVER, why_not
from ops.settings import Gre, Settings
from tests.bench import rig
from tests.bench.plain import STRIDE, Burst, Counts, Plain, sessions
from tests.bench.results import BenchError, Result, arguments, cannot
from tests.bench.rig import Wire

PACKETS: Final = 256
SIZE: Final = 1412  # GRE, PPP and inner packet of 1396 octets
# ns a packet on the reference machine, the slower end: raw recv with the kernel's share; sendto
RECEIVE_REFERENCE: Final = 1270.0
SEND_REFERENCE: Final = 3315.0
SETTINGS: Final = Settings(gre=Gre(receive_buffer_bytes=rig.RECEIVE_BUFFER))


class Receiver:
    """A namespace with a socket, fed with bursts."""

    def __init__(self, plain: Plain, wire: Wire, fd: int, *, many: bool) -> None:
        self.plain = plain
        self.wire = wire
        self.fd = fd
        self.many = many
        self.kernel: list[float] = []
        self.socket: list[float] = []

    def take(self, burst: Burst) -> None:
        """One burst in, and out of the socket."""
        view = memoryview(burst.data).cast("B")
        for at in burst.at:
            view[at : at + 14] = self.wire.up_ethernet
        sent, got = Counts(), Counts()
        with rig.ahead():
            self.plain.inject(self.wire.from_clients.fileno(), burst, sent)
            if self.fd >= 0:
                work = self.plain.lib.plain_recv_many if self.many else None
                (work or self.plain.lib.plain_recv_each)(self.fd, ctypes.byref(got))
                if got.packets != burst.packets:
                    raise BenchError(f"{got.packets} of {burst.packets} packets were received")
        self.kernel.append(sent.cpu_ns / burst.packets)
        self.socket.append(got.cpu_ns / burst.packets)


def inside(wire: Wire, work: Callable[[], Any]) -> Any:
    """In the server's namespace."""
    return netns.inside(wire.ground.name("server"), work)


@contextmanager
def in_service(
    wire: Wire, *, rules: bool = True, address: str = ""
) -> Iterator[gre_sockets.GreSockets]:
    """The sockets and the rule that the keeper and netops open for one worker."""
    with ExitStack() as exits:
        found = inside(wire, lambda: gre_sockets.open_all(SETTINGS, 1, []))
        for sock in (*found.receive, *found.send, *found.hop, found.drop_all):
            exits.callback(sock.close)
        if rules:
            exits.callback(inside(wire, lambda: rig.service_rules(address)).close)
        yield found


def _simple() -> socket.socket:
    """A packet socket of IPv4 without group or filter."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    sock.setsockopt(socket.SOL_SOCKET, descriptors.SO_RCVBUFFORCE, rig.RECEIVE_BUFFER)
    descriptors._bind(sock, 0)
    return sock


def receive(result: Result, plain: Plain, bursts: int) -> None:
    """Rows of the way in."""
    with ExitStack() as exits:
        enter = exits.enter_context
        nobody = Receiver(plain, enter(Wire(server_drops=True)), -1, many=False)
        raw_wire = enter(Wire())
        raw = Receiver(plain, raw_wire, -1, many=False)
        raw_socket = enter(inside(raw_wire, rig.plain_gre))
        raw.fd = raw_socket.fileno()
        ours_wire = enter(Wire())
        ours = Receiver(
            plain, ours_wire, enter(in_service(ours_wire)).receive[0].fileno(), many=True
        )
        group_wire = enter(Wire())
        group = Receiver(
            *(plain, group_wire, enter(in_service(group_wire, rules=False)).receive[0].fileno()),
            many=True,
        )
        one_wire = enter(Wire())
        one_service = enter(in_service(one_wire, address=WAN_SERVER))
        one = Receiver(plain, one_wire, one_service.receive[0].fileno(), many=True)
        simple_wire = enter(Wire())
        rules = inside(simple_wire, rig.service_rules)
        exits.callback(rules.close)
        simple_socket = enter(inside(simple_wire, _simple))
        simple = Receiver(plain, simple_wire, simple_socket.fileno(), many=True)
        only_wire = enter(Wire())
        exits.callback(inside(only_wire, rig.service_rules).close)
        only = Receiver(plain, only_wire, -1, many=False)
        everyone = {
            "receive, raw recv each": raw,
            "receive, ours": ours,
            "part: ours with listen.address set": one,
            "part: ours without the nft rule": group,
            "part: ours without group and filter": simple,
            "part: the nft rule alone": only,
        }
        made = sessions(rig.calls(1))
        burst = Burst.empty(PACKETS, STRIDE, PACKETS)
        for _ in range(bursts):
            plain.make_up(made, 1, burst, run=1, encrypted=False, ethernet=nobody.wire.up_ethernet)
            for each in (nobody, *everyone.values()):
                each.take(burst)
        base = statistics.median(nobody.kernel)
        totals = {}
        for row, each in everyone.items():
            kernel = statistics.median(each.kernel) - base
            read = statistics.median(each.socket)
            totals[row] = kernel + read
            result.figure(row, kernel_ns=kernel, socket_ns=read, total_ns=kernel + read)
        result.figure("receive, dropped at ingress", put_in_ns=base)
        plain_total, ours_total = totals["receive, raw recv each"], totals["receive, ours"]
        result.ratio("gre receive", plain_total / ours_total)
        result.yardstick("raw recv", plain_total, RECEIVE_REFERENCE)


def send(result: Result, plain: Plain, bursts: int) -> None:
    """Rows of the way out."""
    with ExitStack() as exits:
        wire = exits.enter_context(Wire())
        found = exits.enter_context(in_service(wire))
        session = sessions(rig.calls(1))[0]
        mac = bytes.fromhex(wire.client_mac.replace(":", ""))
        ways: dict[str, Callable[[Counts], None]] = {
            "send, raw sendto each": lambda c: plain.lib.plain_send_each(
                found.send[0].fileno(), ctypes.byref(session), SIZE, PACKETS, ctypes.byref(c)
            ),
            "send, ours": lambda c: plain.lib.plain_send_many(
                *(found.hop[0].fileno(), ctypes.byref(session), SIZE, PACKETS, wire.wan_index),
                *(mac, ctypes.byref(c)),
            ),
            "part: raw sendmmsg": lambda c: plain.lib.plain_send_many(
                *(found.send[0].fileno(), ctypes.byref(session), SIZE, PACKETS, 0),
                *(mac, ctypes.byref(c)),
            ),
        }
        taken: dict[str, list[float]] = {row: [] for row in ways}
        for _ in range(bursts):
            for row, work in ways.items():
                counts = Counts()
                work(counts)
                if counts.packets != PACKETS:
                    raise BenchError(f"{row}: {counts.packets} of {PACKETS} packets were sent")
                taken[row].append(counts.cpu_ns / PACKETS)
        time.sleep(0.1)
        figures = {row: statistics.median(values) for row, values in taken.items()}
        for row, value in figures.items():
            result.figure(row, total_ns=value)
        result.ratio("gre send", figures["send, raw sendto each"] / figures["send, ours"])
        result.yardstick("raw sendto", figures["send, raw sendto each"], SEND_REFERENCE)


def bench(bursts: int) -> Result:
    """All rows."""
    result = Result("gre")
    plain = Plain()
    rig.pin(rig.CPU)
    receive(result, plain, bursts)
    send(result, plain, bursts)
    return result


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bursts", type=int, default=60, help=f"of {PACKETS} packets each")
    words = arguments("gre", parser)
    lacking = why_not() or rig.why_not()
    if lacking:
        return cannot("gre", lacking)
    try:
        result = bench(words.bursts)
    except (BenchError, NetnsError, nft.NftError, OSError, subprocess.SubprocessError) as e:
        print(f"gre: {e}", file=sys.stderr)
        return 1
    return result.finish(as_json=words.json)


if __name__ == "__main__":
    sys.exit(main())
