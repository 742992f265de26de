"""pcapng files of what a trace tells, as Wireshark shows it best.

Two interfaces: PPP frames with their direction (LINKTYPE_PPP_WITH_DIR), decrypted, and the
control connection as the TCP segments it would be (LINKTYPE_IPV4), since its octets come
without headers: sequence numbers begin at 1, ports are 1723 and 49152. Words of a trace that
are no packet are comments of the next packet. Format: draft-ietf-opsawg-pcapng, little-endian.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final, Protocol

SECTION: Final = 0x0A0D0D0A
INTERFACE: Final = 1
PACKET: Final = 6
BYTE_ORDER: Final = 0x1A2B3C4D
PPP_WITH_DIR: Final = 204
IPV4: Final = 228
PPP: Final = 0  # our interfaces, by number
TCP: Final = 1
OPT_END: Final = 0
OPT_COMMENT: Final = 1
IF_NAME: Final = 2
SHB_APPLICATION: Final = 4
EPB_FLAGS: Final = 2
INBOUND, OUTBOUND = 1, 2
PORT: Final = 1723
CLIENT_PORT: Final = 49152
SERVER: Final = "192.0.2.1"  # the trace does not say which of our addresses it was
COMMENT_MAX: Final = 2000


class Sink(Protocol):
    """What is written to."""

    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> None: ...


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _block(kind: int, body: bytes) -> bytes:
    size = 12 + len(body)
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size)


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Pcapng:
    """One file, readable after each packet."""

    def __init__(self, sink: Sink, application: str) -> None:
        self._sink = sink
        self._sent: dict[tuple[str, bool], int] = {}  # octets of TCP by client and direction
        self._comments: list[str] = []
        head = struct.pack("<IHHq", BYTE_ORDER, 1, 0, -1)
        end = _option(OPT_END, b"")
        self._write(SECTION, head + _option(SHB_APPLICATION, application.encode()) + end)
        for link, name in ((PPP_WITH_DIR, b"PPP"), (IPV4, b"PPTP")):
            self._write(INTERFACE, struct.pack("<HHI", link, 0, 0) + _option(IF_NAME, name) + end)
        sink.flush()

    def comment(self, text: str) -> None:
        """Stands at the next packet."""
        self._comments.append(text)

    def frame(self, at: float, from_client: bool, protocol: int, payload: bytes) -> None:
        """A PPP frame; `at` is Unix time."""
        # 0: received by the host that wrote it down, which is the concentrator.
        head = bytes([0 if from_client else 1]) + b"\xff\x03" + protocol.to_bytes(2, "big")
        self._packet(PPP, at, from_client, head + payload)

    def control(self, at: float, from_client: bool, client: str, octets: bytes) -> None:
        """Octets of a control connection."""
        peer, ours = IPv4Address(client).packed, IPv4Address(SERVER).packed
        ports = (CLIENT_PORT, PORT) if from_client else (PORT, CLIENT_PORT)
        ends = (peer, ours) if from_client else (ours, peer)
        sent = self._sent.get((client, from_client), 0)
        heard = self._sent.get((client, not from_client), 0)
        self._sent[client, from_client] = sent + len(octets)
        numbers = (1 + sent) & 0xFFFFFFFF, (1 + heard) & 0xFFFFFFFF
        segment = struct.pack(">HHIIBBHHH", *ports, *numbers, 5 << 4, 0x18, 65535, 0, 0)
        pseudo = ends[0] + ends[1] + struct.pack(">BBH", 0, 6, len(segment) + len(octets))
        check = _checksum(pseudo + segment + octets)
        segment = segment[:16] + struct.pack(">H", check) + segment[18:]
        size = 20 + len(segment) + len(octets)
        ip = struct.pack(">BBHHHBBH", 0x45, 0, size, 0, 0x4000, 64, 6, 0) + ends[0] + ends[1]
        ip = ip[:10] + struct.pack(">H", _checksum(ip)) + ip[12:]
        self._packet(TCP, at, from_client, ip + segment + octets)

    def _packet(self, interface: int, at: float, from_client: bool, data: bytes) -> None:
        stamp = int(at * 1e6)
        flags = struct.pack("<I", INBOUND if from_client else OUTBOUND)
        options = _option(EPB_FLAGS, flags)
        for text in self._comments:
            options += _option(OPT_COMMENT, text.encode("utf-8", "replace")[:COMMENT_MAX])
        self._comments.clear()
        head = struct.pack(
            "<IIIII", interface, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data)
        )
        self._write(PACKET, head + _padded(data) + options + _option(OPT_END, b""))
        self._sink.flush()

    def _write(self, kind: int, body: bytes) -> None:
        self._sink.write(_block(kind, body))
