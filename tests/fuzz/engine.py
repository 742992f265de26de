"""The data thread itself: packets from the subscriber and from the TUN, orders between them.

The engine runs in its own thread as it does in a worker. What it receives comes through
datagram pairs, so that nothing is lost and any octets may be an "IP packet"; what it sends
goes through a real raw socket on loopback. Each input gets a new session on the same
record, in clear or with MPPE; checked after it: every packet has been accounted for, and
the session can be removed.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time

from fastpath import engine, gre, mppe
from fastpath.layout import Table
from tests.fastpath.peer import GRE, INNER, VNET, ip_sum, number
from tests.fuzz.targets import Reader
from workers.ppp.mppe_twin import Encryptor

SERVER, PEER = "127.77.255.1", "127.77.255.2"  # not those of tests/fastpath
INDEX = 3
LOOPBACK = socket.if_nametoindex("lo")
CALL = 640
HOST = 0xC6130005
RX, TX = bytes(range(16)), bytes(range(16, 32))
OWN6, OUR6 = bytes(range(8)), b"\0" * 7 + b"\1"
MAX_STEPS = 48
BITS = (0, 128, 40, 56)


def put(sock: socket.socket, data: bytes) -> None:
    """Into the pair, when the data thread has made room."""
    until = time.monotonic() + 20
    while True:
        try:
            sock.send(data)
            return
        except BlockingIOError:
            assert time.monotonic() < until, "the data thread hangs"
            time.sleep(0)


class Cipher:
    """The subscriber's side of stateless MPPE: what it seals is opened, so that the inner
    packet gets where it is read."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.start = RX if bits == 128 else RX[:8]
        self.key = mppe.initial_key(self.start, bits)
        self.count = 0

    def seal(self, plain: bytes) -> bytes:
        head = struct.pack(">H", 0x9000 | self.count)
        self.key = mppe.changed_key(self.start, self.key, self.bits)
        self.count = (self.count + 1) & 0xFFF
        return b"\x00\xfd" + head + mppe.crypt_batch([plain], [self.key])[0]


class Ground:
    """One engine of a role for the whole run; it is never stopped."""

    def __init__(self, role: int) -> None:
        fd = os.memfd_create("fuzz")
        self.table = Table.create(fd, 64, 1, 7)
        os.close(fd)
        wire, self.wire = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        tun, self.tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, GRE)
        raw.bind((SERVER, 0))
        self.sink = socket.socket(socket.AF_INET, socket.SOCK_RAW, GRE)  # so that no ICMP comes
        self.sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        self.sink.bind((PEER, 0))
        for each in (wire, tun, self.tun):
            each.setblocking(False)
        hop = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self.kept = (wire, tun, raw, hop)
        self.engine = engine.Engine(
            self.table,
            0,
            role=role,
            gre_fd=wire.fileno(),
            raw_fd=raw.fileno(),
            tun_fd=tun.fileno(),
            hop_fd=hop.fileno(),
            packet_mode=role == engine.CLIENT,  # header checksums are verified
            reorder_depth=8,
            reorder_timeout_ms=1,
            ack_delay_ms=1,
        )
        self.generation = 0
        self.seq = 0
        self.address = socket.inet_aton(PEER) + socket.inet_aton(SERVER)
        threading.Thread(target=self.engine.run, daemon=True).start()

    def event(self, kind: int) -> None:
        """Wait for an event; others are of no interest here."""
        until = time.monotonic() + 20
        while not any(found[0] == kind for found in self.engine.events()):
            assert time.monotonic() < until, f"no event {kind}: the data thread hangs"
            select.select([self.engine.event_fd], [], [], 0.02)

    def begin(self, mode: int) -> None:
        """A new call on the record; `mode` chooses strength, state and IPv6."""
        self.generation, _ = self.table.allot(
            INDEX,
            worker=0,
            call_id=CALL,
            peer_call_id=0,
            local_address=number(SERVER),
            peer_address=number(PEER),
            peer_port=1,
            peer_window=64,
            peer_speed=0,
            connection=1,
        )
        self.table.begin_link(INDEX, self.generation)
        assert self.engine.install(INDEX, self.generation)
        self.event(engine.EVENT_INSTALLED)
        self.bits = bits = BITS[mode & 3]
        self.stateful = bool(bits and mode & 4)
        rx, tx = (RX, TX) if bits == 128 else (RX[:8], TX[:8])
        self.cipher = Cipher(bits) if bits else None
        self.twin = Encryptor(rx, bits, True) if self.stateful else None
        if bits:
            state = self.stateful
            self.engine.set_mppe(INDEX, self.generation, bits, rx, state, bits, tx, state)
        self.table.set_link(
            INDEX,
            address=INNER,
            local=0x0A630001,
            mtu=(1400, 576)[mode >> 3 & 1],
            mru=1400,
            mppe_rx_bits=bits,
            mppe_tx_bits=bits,
            stateful=3 if self.stateful else 0,
            framing=mode >> 4 & 3,
            magic=0x11223344,
            peer_magic=5,
            echo_interval_s=0,
            echo_failures=2,
        )
        self.table.set_state(INDEX, 2)
        assert self.engine.up(INDEX, self.generation)
        if mode & 0x40:
            self.table.set_six(INDEX, OWN6, OUR6)
            assert self.engine.up6(INDEX, self.generation)
        until = time.monotonic() + 20
        while self.table.session(INDEX).data_state != 2:
            assert time.monotonic() < until, "the data thread hangs"
            time.sleep(0)

    def seal(self, plain: bytes) -> bytes:
        """The frame as this session's subscriber would encrypt it."""
        if self.twin is not None:
            return b"\x00\xfd" + self.twin.encrypt(plain)
        return self.cipher.seal(plain) if self.cipher is not None else plain

    def end(self) -> None:
        """Remove the session, then the record is free for the next input."""
        assert self.engine.remove(INDEX, self.generation)
        self.event(engine.EVENT_REMOVED)
        self.table.set_ending(INDEX)
        self.table.release(INDEX)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.tun.recv(70000)

    def outer(self, packet: bytes) -> None:
        """A GRE packet inside an IP header that fits it."""
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(packet), 0, 0, 64, 47, 0) + self.address
        head = head[:10] + struct.pack(">H", ip_sum(head)) + head[12:]
        put(self.wire, head + packet)

    def accounted(self, sent: int) -> None:
        """Every packet that came in went somewhere."""
        until = time.monotonic() + 20
        while (c := self.table.data_counters(0))["gre_rx_packets"] < sent:
            assert time.monotonic() < until, "the data thread hangs"
            time.sleep(0)
        ends = 0
        for _ in range(1000):
            c = self.table.data_counters(0)
            ends = c["rx_ack_only"] + c["rx_control"] + c["rx_data"] + c["queued"]
            ends += sum(v for k, v in c.items() if k.startswith("drop_rx_"))
            if ends == c["gre_rx_packets"]:
                return
            time.sleep(0.001)
        raise AssertionError(f"{c['gre_rx_packets']} packets came in, {ends} went somewhere")


_grounds: dict[int, Ground] = {}


def one(data: bytes) -> None:
    reader = Reader(data)
    mode = reader.number()
    role = engine.CLIENT if mode & 0x80 else engine.SERVER
    if role not in _grounds:
        _grounds[role] = Ground(role)
    ground = _grounds[role]
    before = ground.table.data_counters(0)["gre_rx_packets"]
    ground.begin(mode)
    sent = ground.seq = 0
    for _ in range(MAX_STEPS):
        if not reader:
            break
        step = reader.number()
        kind, detail = step & 7, step >> 3
        if kind == 0:  # any octets for an IP packet
            put(ground.wire, reader.block()[:4000])
            sent += 1
        elif kind == 1:  # any octets for a GRE packet
            ground.outer(reader.block()[:4000])
            sent += 1
        elif kind in (2, 3, 4):  # a frame, in order or a little out of it
            jump = (0, 0, 0, 0, 1, -1, 9, 300)[detail & 7]
            body = reader.block()[:1600]
            if kind == 3:
                body = (b"\x00\x21", b"\x21", b"\xff\x03\x00\x57", b"\xc0\x21")[detail >> 3] + body
            if kind == 4:
                body = ground.seal((b"\x00\x21", b"\x21", b"\x57", b"")[detail >> 3] + body)
            ack = 3 if detail & 8 else None
            ground.outer(gre.build(CALL, body, (ground.seq + jump) & 0xFFFFFFFF, ack))
            ground.seq += 1
            sent += 1
        elif kind == 5:  # from the TUN, with any virtio header
            head = reader.octets(10) if detail & 1 else bytes(10)
            packet = reader.block()[:9000]
            if detail & 2:
                packet += bytes(min(500 * (detail >> 2), 9000))
            put(ground.tun, head + packet)
        elif kind == 6:
            ground.engine.send(INDEX, ground.generation, b"\x80\xfd" + reader.block()[:1500])
        else:
            sent += orders(ground, detail, reader)
    ground.accounted(before + sent)
    ground.end()


def burst(ground: Ground, reader: Reader) -> int:
    """UDP with right checksums; now and then one of another size, or a bit that is wrong."""
    sizes = reader.octets(1 + reader.number() % 24)
    for i, size in enumerate(sizes):
        data = bytes([i]) * (size & 0x3F if size & 0x40 else 32)
        head = struct.pack(">HHHH", 1, 2, 8 + len(data), 0)
        pseudo = struct.pack(">IIBBH", INNER, HOST, 0, 17, 8 + len(data))
        total = ip_sum(pseudo + head + data) ^ (size >> 7)
        udp = head[:6] + struct.pack(">H", total) + data
        inner = struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(udp), i, 0, 64, 17, 0, INNER, HOST)
        ground.outer(gre.build(CALL, ground.seal(b"\0\x21" + inner + udp), ground.seq, None))
        ground.seq += 1
    return len(sizes)


def orders(ground: Ground, which: int, reader: Reader) -> int:
    """What a control thread may say at any time; and packets the subscriber sent meanwhile."""
    g, e = ground.generation, ground.engine
    match which & 15:
        case 0:
            e.down(INDEX, g)
        case 1:
            e.up(INDEX, g)
        case 2:
            e.down6(INDEX, g)
        case 3:
            ground.table.set_six(INDEX, OWN6, OUR6)
            e.up6(INDEX, g)
        case 4:
            if ground.twin is not None:
                ground.twin.reset_request()
        case 5:
            e.remove(INDEX, g + 1)  # a handle that is not there
        case 6:
            inner = struct.pack(">BBHHHBBHII", 0x45, 0, 28, 0, 0, 9, 17, 0, HOST, INNER)
            put(ground.tun, VNET.pack(*(0,) * 6) + inner + reader.octets(8).ljust(8, b"\0"))
        case 8 | 9:  # a next hop: loopback, a device that is not there, or none; any MTU
            device = (LOOPBACK, 0x7FFFFFFF, 0, LOOPBACK)[reader.number() & 3]
            mac = reader.octets(6).ljust(6, b"\0") if device else b""
            e.set_hop(INDEX, g, device, mac, reader.number(2))
        case 10:  # more than one batch to send, by whichever way holds now
            inner = struct.pack(">BBHHHBBHII", 0x45, 0, 28, 0, 0, 9, 17, 0, HOST, INNER)
            for _ in range(1 + reader.number() % 140):
                put(ground.tun, VNET.pack(*(0,) * 6) + inner + bytes(8))
        case 11 | 12:  # equal datagrams from the subscriber, which go to the TUN as one
            return burst(ground, reader)
        case _:
            e.send(INDEX, g, b"\xc0\x21\x09\x01\x00\x08\0\0\0\0")
    return 0
