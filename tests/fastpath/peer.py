"""An engine on loopback with a peer made of plain Python at its other end.

The engine's GRE sockets are real raw sockets on 127.77.0.0/16; its TUN is one end of a
datagram pair, which carries the same octets (virtio header and packet).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from fastpath import engine, gre
from fastpath.layout import Table

GRE = socket.IPPROTO_GRE
# Of this process: a raw socket also gets what another one sends to the same address.
NET = f"127.77.{os.getpid() % 254 + 1}"
SERVER, PEER, STRANGER = f"{NET}.1", f"{NET}.2", f"{NET}.9"
INNER = 0x0A630105
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
VNET = struct.Struct("=BBHHHH")
writes = "plain"  # gre.tun_writes; conftest.py's each_way has the others, too


def number(address: str) -> int:
    """Host-order number of an IPv4 address."""
    return int.from_bytes(socket.inet_aton(address), "big")


def ip_sum(data: bytes) -> int:
    """The Internet checksum, the slow way."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source: int, target: int, payload: bytes, protocol: int = 17, df: bool = False) -> bytes:
    """A plain IPv4 packet."""
    head = struct.pack(
        ">BBHHHBBHII",
        0x45,
        0,
        20 + len(payload),
        7,
        0x4000 if df else 0,
        64,
        protocol,
        0,
        source,
        target,
    )
    return head[:10] + struct.pack(">H", ip_sum(head)) + head[12:] + payload


def udp(source: int, target: int, data: bytes) -> bytes:
    """A UDP datagram without checksum in IPv4."""
    return ipv4(source, target, struct.pack(">HHHH", 1000, 2000, 8 + len(data), 0) + data)


def tcp(
    source: int,
    target: int,
    data: bytes,
    *,
    seq: int = 0,
    flags: int = 0x10,
    options: bytes = b"",
    df: bool = True,
) -> bytes:
    """A TCP segment with a right checksum."""
    head = struct.pack(
        ">HHIIBBHHH", 1000, 2000, seq, 1, (20 + len(options)) // 4 << 4, flags, 500, 0, 0
    )
    segment = head + options + data
    pseudo = struct.pack(">IIBBH", source, target, 0, 6, len(segment))
    total = ip_sum(pseudo + segment)
    segment = segment[:16] + struct.pack(">H", total) + segment[18:]
    return ipv4(source, target, segment, 6, df)


@dataclass
class Peer:
    """The engine, its table, and the subscriber's side of one call."""

    table: Table
    engine: engine.Engine
    wire: socket.socket
    tun: socket.socket
    index: int = 3
    generation: int = 0
    call_id: int = 640
    peer_call_id: int = 0
    inner: int = INNER
    seq: int = 0
    inbox: list[tuple[int, int | None, int | None, bytes]] = field(default_factory=list)
    seen: list[tuple[int, int, int, bytes]] = field(default_factory=list)

    def send(self, frame: bytes, *, seq: int | None = None, ack: int | None = None) -> None:
        """A PPP frame in GRE; the next sequence number unless one is given."""
        if seq is None:
            seq = self.seq
            self.seq += 1
        self.raw(gre.build(self.call_id, frame, seq, ack))

    def raw(self, packet: bytes) -> None:
        """Octets after the outer IP header."""
        self.wire.sendto(packet, (SERVER, 0))

    def receive(self, wait: float = 2.0) -> tuple[int | None, int | None, bytes]:
        """The next GRE packet for us: (seq, ack, payload); TimeoutError if none comes."""
        self.wire.settimeout(wait)
        packet = self.wire.recv(65535)
        packet = packet[(packet[0] & 15) * 4 :]
        call_id, seq, ack, at, size = gre.parse(packet)
        assert call_id == self.peer_call_id
        return seq, ack, packet[at : at + size]

    def data(self, wait: float = 2.0) -> bytes:
        """The next GRE packet with a payload."""
        while True:
            _, _, payload = self.receive(wait)
            if payload:
                return payload

    def from_tun(self, wait: float = 2.0) -> tuple[tuple[int, ...], bytes]:
        """What the engine wrote: (virtio fields, packet)."""
        self.tun.settimeout(wait)
        octets = self.tun.recv(70000)
        return VNET.unpack_from(octets), octets[VNET.size :]

    def to_tun(self, packet: bytes, vnet: tuple[int, ...] = (0,) * 6) -> None:
        """As if the kernel routed this packet into the TUN."""
        self.tun.send(VNET.pack(*vnet) + packet)

    def event(self, kind: int, wait: float = 2.0) -> bytes:
        """Data of the next event of that kind."""
        until = time.monotonic() + wait
        while True:
            for i, found in enumerate(self.seen):
                if found[0] == kind:
                    del self.seen[i]
                    return found[3]
            if time.monotonic() > until:
                raise TimeoutError(f"no event {kind}")
            self.seen += self.engine.events()
            time.sleep(0.002)

    def count(self, name: str) -> int:
        """One counter of the data thread."""
        return self.table.data_counters(0)[name]

    def wait_count(self, name: str, least: int, wait: float = 2.0) -> int:
        """Wait until a counter has reached a value."""
        until = time.monotonic() + wait
        while self.count(name) < least:
            if time.monotonic() > until:
                raise TimeoutError(f"{name} is {self.count(name)}, not {least}")
            time.sleep(0.002)
        return self.count(name)

    def install(self, *, peer_window: int = 64, peer_address: str = PEER) -> None:
        """Allot the record and let the engine know it."""
        self.generation, _ = self.table.allot(
            self.index,
            worker=0,
            call_id=self.call_id,
            peer_call_id=self.peer_call_id,
            local_address=number(SERVER),
            peer_address=number(peer_address),
            peer_port=1,
            peer_window=peer_window,
            peer_speed=0,
            connection=1,
        )
        self.table.begin_link(self.index, self.generation)
        assert self.engine.install(self.index, self.generation)
        self.event(engine.EVENT_INSTALLED)

    def up(
        self,
        *,
        bits: int = 0,
        rx: bytes = b"",
        tx: bytes = b"",
        mtu: int = 1400,
        echo_s: int = 0,
        stateful: int = 0,
        mppe_bits: int = 0,
    ) -> None:
        """Let data flow, encrypted if keys are given."""
        if bits:
            self.engine.set_mppe(self.index, self.generation, bits, rx, False, bits, tx, False)
        self.table.set_link(
            self.index,
            address=self.inner,
            local=0x0A630001,
            mtu=mtu,
            mru=1400,
            mppe_rx_bits=bits or mppe_bits,
            mppe_tx_bits=bits or mppe_bits,
            stateful=stateful,
            framing=0,
            magic=0x11223344,
            peer_magic=5,
            echo_interval_s=echo_s,
            echo_failures=2,
        )
        self.table.set_state(self.index, 2)
        assert self.engine.up(self.index, self.generation)
        until = time.monotonic() + 2
        while self.table.session(self.index).data_state != 2:
            assert time.monotonic() < until
            time.sleep(0.001)


def bound(address: str) -> socket.socket:
    """A raw GRE socket of an address. Until it is bound it gets what is for all others, such as
    a test's that runs beside this one: that is thrown away."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, GRE)
    sock.bind((address, 0))
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(65535)
    sock.setblocking(True)
    return sock


@contextmanager
def running(
    table: Table | None = None,
    *,
    waiting: Sequence[bytes] = (),
    arrived: Sequence[bytes] = (),
    **options: int,
) -> Iterator[Peer]:
    """An engine with its thread, on a new table or on a predecessor's.

    `waiting`: what its TUN holds already, virtio header first. `arrived`: what its GRE socket
    does, without the outer header.
    """
    if table is None:
        fd = os.memfd_create("table")
        table = Table.create(fd, 64, 1, 7)
        os.close(fd)
    sockets = [bound(SERVER), bound(PEER)]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    theirs.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)
    sockets[1].setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    sockets[0].setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    for octets in waiting:
        theirs.send(octets)
    for octets in arrived:
        sockets[1].sendto(octets, (SERVER, 0))
    made = engine.Engine(
        table,
        0,
        role=options.pop("role", engine.SERVER),
        gre_fd=sockets[0].fileno(),
        raw_fd=sockets[0].fileno(),
        tun_fd=ours.fileno(),
        packet_mode=False,
        writes=writes,
        **options,  # type: ignore[arg-type]
    )
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    try:
        yield Peer(table, made, sockets[1], theirs)
    finally:
        made.stop()
        thread.join(5)
        for each in (*sockets, ours, theirs):
            each.close()
        assert not thread.is_alive()
