"""A client that means harm: its sockets, its half-decent manners, and a good client beside it.

`Field` is the concentrator in a playground with a canary, a session of our own client that
is pinged all the while. `Caller` is a control connection that does what it is told, right
or wrong; `Peer` is a caller that also speaks PPP over GRE, through our own link when it
wants to come up and with any octets it likes afterwards.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from dispatcher.pptp import messages as pptp
from fastpath import gre
from ops.client import netns
from ops.client.child import PYTHON, Child
from ops.client.concentrator import Concentrator, Samples
from ops.client.lines import Lines
from ops.client.playground import LAN_HOST, LAN_NET, WAN_SERVER, Playground, sources
from workers.ppp import actions as ppp
from workers.ppp.link import Link
from workers.ppp.mppe_twin import Decryptor, Encryptor

PASSWORD: Final = "correct horse"
SOURCES: Final = 8
IP, LCP, CHAP, PAP = b"\x00\x21", b"\xc0\x21", b"\xc2\x23", b"\xc0\x23"
IPCP, CCP, MPPE = b"\x80\x21", b"\x80\xfd", b"\x00\xfd"


def frame(protocol: bytes, code: int, identifier: int, data: bytes, length: int = -1) -> bytes:
    """A PPP frame whose length field may lie."""
    size = 4 + len(data) if length < 0 else length
    return protocol + struct.pack(">BBH", code & 255, identifier & 255, size & 0xFFFF) + data


class Caller:
    """One control connection."""

    def __init__(self, field_: Field, source: int) -> None:
        self.source = sources(SOURCES)[source]
        self.sock = field_.tcp(self.source)
        self.rest = b""
        field_.callers.append(self)

    def say(self, *said: pptp.Message | bytes) -> Self:
        """Send messages, or octets that are none, in one piece."""
        octets = (m if isinstance(m, bytes) else m.encode() for m in said)
        self.sock.sendall(b"".join(octets))
        return self

    def hear(self, seconds: float = 5.0) -> pptp.Message | None:
        """The next message; None at the end of the connection."""
        until = time.monotonic() + seconds
        while True:
            if len(self.rest) >= 12:
                size = pptp.check_header(self.rest[:12])
                if len(self.rest) >= size:
                    message, self.rest = self.rest[:size], self.rest[size:]
                    return pptp.decode(message)
            self.sock.settimeout(max(0.01, until - time.monotonic()))
            try:
                octets = self.sock.recv(65536)
            except ConnectionError:
                return None
            if not octets:
                return None
            self.rest += octets

    def start(self) -> Self:
        """SCCRQ and its answer."""
        self.say(pptp.StartRequest())
        assert isinstance(self.hear(), pptp.StartReply)
        return self

    def call(self, call_id: int) -> int:
        """OCRQ and the call ID it is answered with; 0: refused."""
        self.say(pptp.OutgoingRequest(call_id))
        answer = self.hear()
        assert isinstance(answer, pptp.OutgoingReply), answer
        return answer.call_id if answer.result == pptp.OutgoingResult.CONNECTED else 0

    def reset(self) -> None:
        """TCP RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """FIN."""
        self.sock.close()


class Peer(Caller):
    """A call with PPP."""

    def __init__(self, field_: Field, source: int, call_id: int) -> None:
        super().__init__(field_, source)
        self.call_id = call_id
        self.server_id = self.start().call(call_id)
        self.wire = field_.raw(self.source)
        self.seq = 0
        self.up = False
        self.address = 0
        self.cause = ""
        self.encrypt: Encryptor | None = None
        self.decrypt: Decryptor | None = None
        self.link: Link | None = None

    def gre(self, payload: bytes, *, seq: int | None = None, ack: int | None = None) -> bytes:
        """An enhanced GRE packet with the next sequence number, unless one is given."""
        if seq is None:
            seq, self.seq = self.seq, self.seq + 1
        return gre.build(self.server_id, payload, seq & 0xFFFFFFFF, ack)

    def raw(self, packet: bytes) -> None:
        """Octets behind the outer IP header."""
        with contextlib.suppress(OSError):  # full or refused: an attacker does not care
            self.wire.sendto(packet, (WAN_SERVER, 0))

    def send(self, ppp_frame: bytes, **numbers: int) -> None:
        """A frame in GRE."""
        self.raw(self.gre(ppp_frame, **numbers))

    def data(self, packet: bytes, protocol: bytes = IP) -> None:
        """An inner packet, encrypted as agreed."""
        if self.encrypt is None:
            self.send(protocol + packet)
        else:
            self.send(MPPE + self.encrypt.encrypt(protocol + packet))

    def frames(self, seconds: float) -> Iterator[bytes]:
        """PPP frames for us, until nothing comes for so long."""
        while select.select([self.wire], [], [], seconds)[0]:
            packet = self.wire.recv(65535)
            packet = packet[(packet[0] & 15) * 4 :]
            try:
                call_id, _, _, at, size = gre.parse(packet)
            except ValueError:
                continue
            if call_id == self.call_id and size:
                octets = packet[at : at + size]
                yield octets[2:] if octets[:2] == b"\xff\x03" else octets

    def login(
        self, user: str, password: str = PASSWORD, seconds: float = 30.0, **wishes: Any
    ) -> bool:
        """Come up by all the rules."""
        policy = ppp.Policy(role="client", name=user, password=password, **wishes)
        rng = random.Random(self.call_id)
        self.link = link = Link(policy, magic=rng.getrandbits(32), challenge=rng.randbytes(16))
        link.start(time.monotonic())
        until = time.monotonic() + seconds
        self._act(link)
        while not self.up and not self.cause and time.monotonic() < until:
            for octets in self.frames(0.2):
                link.receive(octets, time.monotonic())
                self._act(link)
                if self.up or self.cause:
                    break
            link.handle_timer(time.monotonic())
            self._act(link)
        return self.up

    def _act(self, link: Link) -> None:
        for action in link.take():
            match action:
                case ppp.Send(octets):
                    self.send(octets)
                case ppp.SetMppe() if action.tx_bits:
                    self.encrypt = Encryptor(action.tx_key, action.tx_bits)
                    self.decrypt = Decryptor(action.rx_key, action.rx_bits)
                case ppp.NetworkUp(agreed):
                    self.up, self.address = True, agreed.address
                case ppp.Finished(cause, _):
                    self.cause = cause

    def close(self) -> None:
        self.wire.close()
        super().close()


@dataclass
class Field:
    """The concentrator, the canary, and what strangers need."""

    users: dict[str, str] = field(default_factory=dict)
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)
    canaries: int = 1
    silent: int = 0  # of these: without pings, nothing but LCP
    callers: list[Caller] = field(default_factory=list)
    _spoofer: socket.socket | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.ground = stack.enter_context(Playground(source_count=SOURCES))
            self.users = {f"user{i}": PASSWORD for i in range(1, 9)} | self.users
            self.concentrator = Concentrator(self.ground, self.users, extra=self.extra)
            self.concentrator.start()
            self._canary = self._start_canary()
            self._before = self.metrics()
            self._ping = self._start_ping()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    # -- the canary

    def _start_canary(self) -> Child:
        read, write = os.pipe()
        os.write(write, PASSWORD.encode() + b"\n")
        os.close(write)
        argv = [*PYTHON, "ops.client", "--server", WAN_SERVER, "--password-fd", str(read)]
        argv += ["--user", "user1", "--source", sources(1)[0], "--route", LAN_NET, "--json"]
        argv += ["--count", str(self.canaries)]
        child = self.ground.start(
            "clients", "canary", argv, pass_fds=(read,), stdout=subprocess.PIPE
        )
        os.close(read)
        self._lines = Lines()
        self._lines.add("canary", child.process.stdout)
        self.canary_events: list[dict[str, Any]] = []
        until = time.monotonic() + 20
        while len([e for e in self.canary_events if e["event"] == "up"]) < self.canaries:
            assert time.monotonic() < until, (self.canary_events, child.tail())
            self.canary_events += [line for _, line in self._lines.read(0.2)]
        addresses = [e["address"] for e in self.canary_events if e["event"] == "up"]
        self.canary_addresses = addresses[self.silent :]
        return child

    def _start_ping(self) -> list[Child]:
        found = []
        for address in self.canary_addresses:
            argv = ["ping", "-n", "-I", address, "-i", "0.05", "-W", "2", LAN_HOST]
            found.append(self.ground.start("clients", "ping", argv))
        until = time.monotonic() + 10
        while not all("icmp_seq=" in child.tail() for child in found):
            assert time.monotonic() < until, [child.tail() for child in found]
            time.sleep(0.02)
        return found

    def canary_report(self) -> tuple[int, int, float]:
        """Begins new pings; of the old: sent, received, and the longest round trip in ms."""
        sent = received = 0
        worst = 0.0
        for child in self._ping:
            child.signal(signal.SIGINT)
            child.process.wait(10)
            text = child.log.read_text()
            answered = [int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", text)]
            sent += max(answered)  # what came after it may have been under way
            received += len(set(answered))
            worst = max(worst, float(text.rpartition(" = ")[2].split("/")[2]))
        self._ping = self._start_ping()
        self.canary_events += [line for _, line in self._lines.read(0.0)]
        assert not [e for e in self.canary_events if e["event"] == "down"], self.canary_events
        return sent, received, worst

    # -- what strangers need

    def open(self, *words: int) -> socket.socket:
        """A socket in the clients' namespace."""
        return netns.inside(self.ground.name("clients"), lambda: socket.socket(*words))

    def tcp(self, source: str) -> socket.socket:
        """A connection to TCP 1723."""
        sock = self.open(socket.AF_INET, socket.SOCK_STREAM)
        sock.bind((source, 0))
        sock.settimeout(5)
        sock.connect((WAN_SERVER, 1723))
        return sock

    def raw(self, source: str) -> socket.socket:
        """A GRE socket of one address."""
        sock = self.open(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_GRE)
        sock.bind((source, 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        return sock

    def spoof(
        self, source: str, payload: bytes, *, options: bytes = b"", number: int = 7, offset: int = 0
    ) -> None:
        """GRE behind an IP header of any kind."""
        if self._spoofer is None:
            self._spoofer = self.open(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        head = struct.pack(
            ">BBHHHBBH4s4s",
            0x45 + len(options) // 4,
            0,
            20 + len(options) + len(payload),
            number,
            offset,
            64,
            socket.IPPROTO_GRE,
            0,
            socket.inet_aton(source),
            socket.inet_aton(WAN_SERVER),
        )
        with contextlib.suppress(OSError):
            self._spoofer.sendto(head + options + payload, (WAN_SERVER, 0))

    # -- what the operator sees

    def metrics(self) -> Samples:
        """/metrics."""
        return self.concentrator.metrics()

    def log(self) -> str:
        """All that the concentrator's processes wrote."""
        return self.concentrator.child.log.read_text("utf-8", "replace")

    @property
    def run_dir(self) -> Path:
        """Its run folder."""
        inode = os.stat(f"{netns.FOLDER}/{self.ground.name('server')}").st_ino
        return Path(f"/run/pptpcon-{inode}")

    def processes(self) -> dict[int, str]:
        """Its processes by id, with the module each runs."""
        found = {}
        for pid in self.concentrator.processes():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"-m" in words:
                    found[pid] = words[words.index(b"-m") + 1].decode()
        return found

    def usage(self) -> dict[str, tuple[int, int]]:
        """Resident KB and descriptors by process."""
        found = {}
        for pid, name in self.processes().items():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                kb = int(status.partition("VmRSS:")[2].split()[0])
                found[f"{name}:{pid}"] = (kb, len(os.listdir(f"/proc/{pid}/fd")))
        return found

    def quiet(self, seconds: float = 20.0, slots: int | None = None) -> Samples:
        """Wait until only the canaries are left; the metrics then."""
        wanted = self.canaries if slots is None else slots
        until = time.monotonic() + seconds
        while True:
            found = self.metrics()
            if found.total("pptp_slots_used") == wanted:
                return found
            assert time.monotonic() < until, f"{found.total('pptp_slots_used')} slots still used"
            time.sleep(0.1)

    def hang_up(self) -> None:
        """Close what a test has left open, as one that fails does."""
        for caller in self.callers:
            caller.close()
        self.callers.clear()

    def drops(self, *reasons: str) -> bool:
        """Whether all these reasons for drops have been counted."""
        counted = self.metrics().by("pptp_drops_total", "reason")
        missing = [reason for reason in reasons if not counted.get(reason)]
        assert not missing, (missing, counted)
        return True

    def reload(self) -> None:
        """SIGHUP, and wait until it is over."""

        def told() -> int:
            return self.log().count("configuration loaded") + self.log().count("the old one stays")

        before = told()
        self.concentrator.child.signal(signal.SIGHUP)
        until = time.monotonic() + 20
        while told() == before:
            assert time.monotonic() < until, self.log()[-2000:]
            time.sleep(0.05)

    def settled(self, before: dict[str, tuple[int, int]], seconds: float = 10.0) -> None:
        """Wait until no process has more descriptors than `before`, nor much more memory."""
        until = time.monotonic() + seconds
        while True:
            grown = {
                name: (before[name], now)
                for name, now in self.usage().items()
                if now[0] > before[name][0] + 12288 or now[1] > before[name][1] + 1
            }
            if not grown:
                return
            assert time.monotonic() < until, f"grown, (KB, descriptors): {grown}"
            time.sleep(0.2)

    def check_sums(self) -> None:
        """Every GRE packet read has exactly one end, over all workers."""
        m = self.metrics()
        read = m.total("pptp_gre_packets_total", direction="receive")
        ends = sum(
            m.total(name, direction="receive")
            for name in (
                "pptp_gre_ack_only_packets_total",
                "pptp_gre_control_packets_total",
                "pptp_traffic_packets_total",
                "pptp_drops_total",
                "pptp_packets_queued",
            )
        )
        # A batch of each worker may be under way while the page is made.
        assert abs(read - ends) <= 64 * len(m.by("pptp_gre_packets_total", "worker")), (read, ends)
