"""Where bursts are measured: namespaces, frames put in at one end and dropped at the other.

      clients --veth-- server --veth-- LAN

Both far ends drop all at their ingress. A frame is put in by a packet socket, so nothing of
the sender's protocols is measured, and what the server's kernel does with it runs in the
sender's system call: the same frames into a server that drops them at its own ingress
tell how much of that call is the sending itself. All that takes part is pinned to one CPU;
who puts in has real-time priority there, so a burst waits whole, as it does under load.
"""

from __future__ import annotations

import fcntl
import gc
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from struct import pack
from typing import Any, Final, Self

from dispatcher import descriptors, gre_sockets, nft
from dispatcher.descriptors import Tun
from dispatcher.gre_sockets import GreSockets
from fastpath import engine as fast
from fastpath.layout import STATE_ACTIVE, Table
from ops import boot
from ops.client import netns
from ops.client.playground import LAN_HOST, WAN_CLIENT, WAN_SERVER, Playground
from ops.settings import Gre, Limits, Settings, TunWrites
from tests.bench.plain import BITS, Burst, Call, Counts, Plain
from tests.bench.results import BenchError
from tests.bench.ways import Ways
from workers.process import make_engine

CPU: Final = 1  # of everything that is measured
PRIORITY: Final = 5
POOL: Final = "10.99.16.0/20"
SUBSCRIBERS: Final = 4096
PACKET_VNET_HDR: Final = 15
MTU: Final = 1400
QUEUE: Final = 10000  # packets a TUN may hold: a burst must fit in
RECEIVE_BUFFER: Final = 128 << 20
PATIENCE: Final = 3.0
NAP_NS: Final = 50000  # by then a thread is awake that what goes ahead of a burst has woken
INGRESS: Final = """
table netdev drop_{device} {{
    chain ingress {{
        type filter hook ingress device {device} priority 0; policy drop;
        counter
    }}
}}
"""


def calls(count: int) -> list[Call]:
    """Calls of one client host, with inner addresses and call IDs in a row."""
    if count >= SUBSCRIBERS:
        raise ValueError(f"{count} calls, fewer than {SUBSCRIBERS} are possible")
    first = ipaddress.IPv4Network(POOL)[1]
    return [
        Call(
            number=i,
            inner=str(first + i),
            lan=LAN_HOST,
            peer=str(WAN_CLIENT),
            here=WAN_SERVER,
            call_id=64 + i,  # bucket i, so worker i modulo their number
            peer_call_id=8192 + i,
        )
        for i in range(count)
    ]


def why_not() -> str:
    """What this host lacks for a rig beyond what a playground needs; "" if nothing."""
    for program, package in (("nft", "nftables"), ("gcc", "gcc"), ("taskset", "util-linux")):
        if shutil.which(program) is None:
            return f"{program} is missing: apt-get install {package}"
    if CPU not in os.sched_getaffinity(0):
        return "two CPUs are needed: one for what is measured alone"
    return ""


def pin(cpu: int) -> None:
    """This thread, and threads made from now on, to one CPU."""
    os.sched_setaffinity(0, {cpu})


@contextmanager
def ahead() -> Iterator[None]:
    """Real-time priority for this thread: nobody else on its CPU while it works."""
    gc.disable()
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        gc.enable()


def service_rules(address: str = "") -> nft.Table:
    """netops' table, in the namespace of the calling thread; `address`: listen.address."""
    return nft.Table("pptpcon_bench", nft.served("pptpcon_bench", address))


def thread_ns(tid: int) -> int:
    """CPU time of another thread of this process (clock_getres(2), CPUCLOCK_SCHED)."""
    return time.clock_gettime_ns((~tid << 3) | 6)


def _frame_socket(device: str, *, virtio: bool) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((device, 0))
    sock.setsockopt(socket.SOL_SOCKET, descriptors.SO_SNDBUFFORCE, 64 << 20)
    if virtio:
        sock.setsockopt(descriptors.SOL_PACKET, PACKET_VNET_HDR, 1)
    return sock


class Wire:
    """A playground with a frame socket at either end, and nobody who listens there."""

    def __init__(self, *, server_drops: bool = False) -> None:
        self.server_drops = server_drops
        self.ground = Playground()
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._exits.enter_context(self.ground)
            self._open()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def _open(self) -> None:
        for place, device in (("clients", "wan"), ("lan", "lan")):
            self._drop(place, device)
        if self.server_drops:
            for device in ("wan", "lan"):
                self._drop("server", device)
        self.client_mac = self._mac("clients", "wan")
        lan_mac = self._mac("lan", "lan")
        for device, address, mac in (
            ("wan", str(WAN_CLIENT), self.client_mac),
            ("lan", LAN_HOST, lan_mac),
        ):
            words = ("neigh", "replace", address, "lladdr", mac, "dev", device, "nud", "permanent")
            netns.ip("-n", self.ground.name("server"), *words)
        self.from_clients = self._socket("clients", "wan", virtio=False)
        self.from_lan = self._socket("lan", "lan", virtio=True)
        self.up_ethernet = self._ethernet(self._mac("server", "wan"), self.client_mac)
        self.down_ethernet = self._ethernet(self._mac("server", "lan"), lan_mac)
        self.wan_index = netns.inside(
            self.ground.name("server"), lambda: socket.if_nametoindex("wan")
        )

    def _socket(self, place: str, device: str, *, virtio: bool) -> socket.socket:
        return self._exits.enter_context(
            netns.inside(self.ground.name(place), lambda: _frame_socket(device, virtio=virtio))
        )

    def _drop(self, place: str, device: str) -> None:
        words = ["ip", "netns", "exec", self.ground.name(place), "nft", "-f", "-"]
        rules = INGRESS.format(device=device)
        done = subprocess.run(words, input=rules, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"nft in {place}: {done.stderr.strip()[-300:]}")

    def _mac(self, place: str, device: str) -> str:
        text = netns.ip("-n", self.ground.name(place), "-j", "link", "show", device)
        return str(json.loads(text)[0]["address"])

    @staticmethod
    def _ethernet(to: str, source: str) -> bytes:
        octets = (bytes.fromhex(mac.replace(":", "")) for mac in (to, source))
        return b"".join(octets) + pack(">H", 0x0800)

    def arrived(self, place: str, device: str) -> tuple[int, int]:
        """(frames, octets) that came to a device of a far end; a super-packet is one frame."""
        text = netns.ip("-n", self.ground.name(place), "-j", "-s", "link", "show", device)
        row = json.loads(text)[0]["stats64"]["rx"]
        return int(row["packets"]), int(row["bytes"])

    def server(self, *words: str) -> str:
        """ip(8) in the server's namespace."""
        return netns.ip("-n", self.ground.name("server"), *words)

    def set_up(self, device: str) -> None:
        """A TUN ready to carry."""
        self.server("link", "set", device, "up", "mtu", str(MTU), "txqueuelen", str(QUEUE))


class PlainServer:
    """The plain loop in a server's namespace: one raw socket, one TUN without offload."""

    def __init__(self, wire: Wire, plain: Plain, made: Sequence[Call]) -> None:
        self.wire = wire
        self.plain = plain
        self.calls = made
        self._exits = ExitStack()
        self.sessions: Any = None

    def __enter__(self) -> Self:
        name = self.wire.ground.name("server")
        self.tun = netns.inside(name, plain_tun)
        self._exits.callback(os.close, self.tun)
        self.gre = self._exits.enter_context(netns.inside(name, plain_gre))
        self.wire.set_up("plain0")
        self.wire.server("route", "add", POOL, "dev", "plain0")
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def begin(self, sessions: Any) -> None:
        """Start with the calls in this state; the array is kept and changed."""
        self.sessions = sessions
        self.by_call = self.plain.pointers(sessions, [c.call_id for c in self.calls], 65536)
        last = [int(ipaddress.IPv4Address(c.inner)) % SUBSCRIBERS for c in self.calls]
        self.by_inner = self.plain.pointers(sessions, last, SUBSCRIBERS)

    def up(self, burst: Burst, *, encrypted: bool) -> tuple[float, float]:
        """One burst of the clients: ns of the sender's call, ns of the loop."""
        sent, done = Counts(), Counts()
        with ahead():
            self.plain.inject(self.wire.from_clients.fileno(), burst, sent)
            self.plain.up(self.gre.fileno(), self.tun, self.by_call, encrypted, done)
        self._check("up", burst, done)
        return sent.cpu_ns, done.cpu_ns

    def down(self, burst: Burst, *, encrypted: bool) -> tuple[float, float]:
        """One burst of the LAN."""
        sent, done = Counts(), Counts()
        with ahead():
            self.plain.inject(self.wire.from_lan.fileno(), burst, sent)
            self.plain.down(self.tun, self.gre.fileno(), self.by_inner, encrypted, done)
        self._check("down", burst, done)
        return sent.cpu_ns, done.cpu_ns

    @staticmethod
    def _check(way: str, burst: Burst, done: Counts) -> None:
        if done.packets != burst.packets or done.bad:
            raise BenchError(
                f"the plain loop carried {done.packets} of {burst.packets} packets {way}, "
                f"{done.bad} of them bad"
            )


def plain_tun() -> int:
    fd = descriptors._open_tun()
    flags = descriptors.IFF_TUN | descriptors.IFF_NO_PI
    fcntl.ioctl(fd, descriptors.TUNSETIFF, pack("16sH22x", b"plain0", flags))
    return fd


def plain_gre() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, descriptors.IPPROTO_GRE)
    sock.setsockopt(socket.IPPROTO_IP, descriptors.IP_MTU_DISCOVER, descriptors.IP_PMTUDISC_DONT)
    sock.setsockopt(socket.SOL_SOCKET, descriptors.SO_RCVBUFFORCE, RECEIVE_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, descriptors.SO_SNDBUFFORCE, RECEIVE_BUFFER)
    return sock


@dataclass(slots=True)
class Opened:
    """What our server has open, as the keeper opens it."""

    tuns: list[Tun]
    gre: GreSockets
    table: nft.Table | None = None


@dataclass(slots=True)
class OurServer:
    """Our engines in a server's namespace, with sockets, devices and rules as in service."""

    wire: Wire
    calls: Sequence[Call]
    encrypted: bool
    workers: int = 1
    cpus: tuple[int, ...] = (CPU,)
    batch: int = 0  # of gre.batch; 0: the default
    ways: Ways = field(default_factory=Ways)
    receive_buffer: int = RECEIVE_BUFFER
    writes: TunWrites = "auto"  # gre.tun_writes
    settings: Settings = field(default_factory=Settings)
    threads: list[threading.Thread] = field(default_factory=list)
    engines: list[fast.Engine] = field(default_factory=list)
    generations: list[int] = field(default_factory=list)
    table: Table = field(init=False)
    opened: Opened = field(init=False)

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        self.settings = Settings(
            gre=Gre(
                receive_buffer_bytes=self.receive_buffer,
                interface=self.ways.interface,
                mode=self.ways.receive,
                send=self.ways.send,
                xdp_mode=self.ways.xdp_mode,
                batch=self.batch or Gre().batch,
                tun_writes=self.writes,
            ),
            limits=Limits(max_sessions=SUBSCRIBERS),
        )
        self.opened = netns.inside(self.wire.ground.name("server"), self._sockets)
        for tun in self.opened.tuns:
            self.wire.set_up(tun.name)
        if self.workers == 1:
            self.wire.server("route", "add", POOL, "dev", self.opened.tuns[0].name)
        fd = os.memfd_create("table")
        self.table = Table.create(fd, SUBSCRIBERS, self.workers, 7)
        os.close(fd)
        for index in range(self.workers):
            self._engine(index)
        for number, call in enumerate(self.calls):
            self._session(number, call)

    def _sockets(self) -> Opened:
        tuns = [descriptors.tun(0) for _ in range(self.workers)]
        opened = Opened(tuns, gre_sockets.open_all(self.settings, self.workers, tuns))
        if opened.gre.packet_mode:
            opened.table = service_rules()
        return opened

    def _engine(self, index: int) -> None:
        gre, tun = self.opened.gre, self.opened.tuns[index]
        fds, extra = gre.handed(index)
        fds["tun"] = tun.fd
        fds["devices"] = os.open("/proc/thread-self/net/dev", os.O_RDONLY)
        started = boot.Boot(
            role="worker",
            index=index,
            run_dir="",
            settings=self.settings,
            fds=fds,
            extra=extra
            | {
                "cpu": self.cpus[index % len(self.cpus)],
                "tun_name": tun.name,
                "tun_ifindex": tun.ifindex,
            },
        )
        made = make_engine(started, self.table)
        thread = threading.Thread(target=made.run, name=f"data-{index}", daemon=True)
        self.engines.append(made)
        self.threads.append(thread)
        thread.start()

    def worker_of(self, call: Call) -> int:
        """Whose the call is: ARCHITECTURE.md, "Call IDs and buckets"."""
        return call.call_id % 64 % self.workers

    def _session(self, number: int, call: Call) -> None:
        worker = self.worker_of(call)
        made = self.engines[worker]

        def host(text: str) -> int:
            return int.from_bytes(socket.inet_aton(text), "big")

        generation, _ = self.table.allot(
            number,
            worker=worker,
            call_id=call.call_id,
            peer_call_id=call.peer_call_id,
            local_address=host(call.here),
            peer_address=host(call.peer),
            peer_port=1,
            peer_window=64,
            peer_speed=0,
            connection=1,
        )
        self.table.begin_link(number, generation)
        made.install(number, generation)
        self._event(made, fast.EVENT_INSTALLED)
        if self.encrypted:
            made.set_mppe(
                number, generation, BITS, call.up_start, False, BITS, call.down_start, False
            )
        bits = BITS if self.encrypted else 0
        self.table.set_link(
            number,
            address=host(call.inner),
            local=host("10.99.0.1"),
            mtu=MTU,
            mru=MTU,
            mppe_rx_bits=bits,
            mppe_tx_bits=bits,
            stateful=0,
            framing=0,
            magic=1,
            peer_magic=2,
            echo_interval_s=0,
            echo_failures=4,
        )
        self.table.set_state(number, STATE_ACTIVE)
        made.up(number, generation)
        if self.opened.gre.hop:
            mac = bytes.fromhex(self.wire.client_mac.replace(":", ""))
            made.set_hop(number, generation, self.wire.wan_index, mac, 1500)
        if self.workers > 1:
            self.wire.server("route", "add", call.inner, "dev", self.opened.tuns[worker].name)
        until = time.monotonic() + PATIENCE
        while self.table.session(number).data_state != 2:
            if time.monotonic() > until:
                raise BenchError(f"session {number} did not come up")
            time.sleep(0.001)

    @staticmethod
    def _event(made: fast.Engine, kind: int) -> None:
        until = time.monotonic() + PATIENCE
        while all(found[0] != kind for found in made.events()):
            if time.monotonic() > until:
                raise BenchError(f"the engine gives no event {kind}")
            time.sleep(0.001)

    # -- bursts

    def tids(self) -> list[int]:
        """The data threads."""
        return [self.table.worker(w).data_tid for w in range(self.workers)]

    def cpu_ns(self) -> list[int]:
        """CPU time of each data thread so far."""
        return [thread_ns(tid) for tid in self.tids()]

    def count(self, name: str) -> int:
        """A counter, all workers together."""
        return sum(self.table.data_counters(w)[name] for w in range(self.workers))

    def burst(self, plain: Plain, burst: Burst, *, up: bool) -> tuple[float, float]:
        """One burst: ns of the sender's call, ns of all data threads."""
        name = "rx_data" if up else "tx_data"
        sock = self.wire.from_clients if up else self.wire.from_lan
        sent = Counts()
        before, target = self.cpu_ns(), self.count(name) + burst.packets
        with ahead():
            plain.inject(sock.fileno(), burst, sent, nap_ns=NAP_NS)
        self.wait(name, target)
        after = self.cpu_ns()
        return sent.cpu_ns, float(sum(after) - sum(before))

    def held_burst(self, plain: Plain, burst: Burst, *, up: bool) -> tuple[float, list[int]]:
        """One burst that all workers begin to work on at once, each on its own CPU: ns of the
        sender's call, ns of each data thread."""
        name = "rx_data" if up else "tx_data"
        sock = self.wire.from_clients if up else self.wire.from_lan
        sent = Counts()
        tids = self.tids()
        before, target = self.cpu_ns(), self.count(name) + burst.packets
        try:
            for tid in tids:
                os.sched_setaffinity(tid, {CPU})
            with ahead():
                plain.inject(sock.fileno(), burst, sent)
                for index, tid in enumerate(tids):
                    os.sched_setaffinity(tid, {self.cpus[index % len(self.cpus)]})
        finally:
            for index, tid in enumerate(tids):
                os.sched_setaffinity(tid, {self.cpus[index % len(self.cpus)]})
        self.wait(name, target)
        after = self.cpu_ns()
        return sent.cpu_ns, [b - a for a, b in zip(before, after, strict=True)]

    def wait(self, name: str, target: int) -> None:
        """Until a counter has reached a value, and a little for the thread to come to rest."""
        until = time.monotonic() + PATIENCE
        while self.count(name) < target:
            if time.monotonic() > until:
                counters = [self.table.data_counters(w) for w in range(self.workers)]
                drops = {
                    key: value
                    for each in counters
                    for key, value in each.items()
                    if key.startswith("drop_") and value
                }
                raise BenchError(f"{name} is {self.count(name)}, not {target}; drops: {drops}")
            time.sleep(0.0005)
        time.sleep(0.0005)

    def close(self) -> None:
        """End the threads, then what they worked with."""
        for made in self.engines:
            made.stop()
        for thread in self.threads:
            thread.join(PATIENCE)
        if not hasattr(self, "opened"):
            return
        opened = self.opened
        if opened.table is not None:
            opened.table.close()
        opened.gre.close()
        for tun in opened.tuns:
            os.close(tun.fd)
