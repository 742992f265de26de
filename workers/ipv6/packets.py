"""IPv6 packets with ICMPv6 or UDP in them: RFC 8200, RFC 4443 section 2.3, RFC 768."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from struct import Struct
from typing import Final

from workers.ipv6.errors import RemoteError

HEAD: Final = Struct(">IHBB16s16s")  # version to flow label, length, next header, hop limit
UDP_HEAD: Final = Struct(">HHHH")
UDP: Final = 17
ICMPV6: Final = 58
HOPS: Final = 255  # of what never leaves a link: RFC 4861 section 6.1.1

UNSPECIFIED: Final = bytes(16)
ALL_NODES: Final = bytes.fromhex("ff02") + bytes(13) + b"\x01"
ALL_ROUTERS: Final = bytes.fromhex("ff02") + bytes(13) + b"\x02"
ALL_DHCP_AGENTS: Final = bytes.fromhex("ff02") + bytes(11) + bytes.fromhex("010002")


def link_local(iid: bytes) -> bytes:
    """fe80::/64 and an interface identifier."""
    return b"\xfe\x80" + bytes(6) + iid


@dataclass(frozen=True, slots=True)
class Packet:
    """`payload` begins with the ICMPv6 type, or behind the UDP header; ports 0: ICMPv6."""

    source: bytes
    target: bytes
    hops: int
    payload: bytes
    source_port: int = 0
    port: int = 0


def checksum(source: bytes, target: bytes, protocol: int, data: bytes) -> int:
    """Over the pseudo-header, RFC 8200 section 8.1; 0 where a valid checksum is in `data`."""
    whole = source + target + struct.pack(">II", len(data), protocol) + data
    if len(whole) % 2:
        whole += b"\0"
    total: int = sum(struct.unpack(f">{len(whole) // 2}H", whole))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def parse(packet: bytes) -> Packet:
    """A packet without extension headers; RemoteError says what is wrong with it."""
    if len(packet) < HEAD.size:
        raise RemoteError(f"IPv6 packet of {len(packet)} octets")
    first, length, protocol, hops, source, target = HEAD.unpack_from(packet)
    if first >> 28 != 6:
        raise RemoteError(f"IP version {first >> 28}")
    data = packet[HEAD.size : HEAD.size + length]
    if len(data) != length:
        raise RemoteError(f"{len(data)} octets of a payload of {length}")
    if protocol not in (UDP, ICMPV6):
        raise RemoteError(f"next header {protocol}")
    if length < UDP_HEAD.size:
        raise RemoteError(f"payload of {length} octets")
    if checksum(source, target, protocol, data):
        raise RemoteError("wrong checksum")
    if protocol == ICMPV6:
        return Packet(source, target, hops, data)
    source_port, port, size, found = UDP_HEAD.unpack_from(data)
    if size != length or not found:
        raise RemoteError(f"UDP length {size} in {length} octets" if found else "UDP checksum 0")
    if not source_port or not port:
        raise RemoteError("UDP port 0")
    return Packet(source, target, hops, data[UDP_HEAD.size :], source_port, port)


def icmpv6(source: bytes, target: bytes, message: bytes) -> bytes:
    """A packet of an ICMPv6 message, whose checksum field (octets 2 and 3) is filled in."""
    message = message[:2] + b"\0\0" + message[4:]
    found = checksum(source, target, ICMPV6, message)
    message = message[:2] + struct.pack(">H", found) + message[4:]
    return HEAD.pack(6 << 28, len(message), ICMPV6, HOPS, source, target) + message


def udp(source: bytes, target: bytes, source_port: int, port: int, data: bytes) -> bytes:
    """A packet of a UDP datagram."""
    size = UDP_HEAD.size + len(data)
    head = UDP_HEAD.pack(source_port, port, size, 0)
    found = checksum(source, target, UDP, head + data) or 0xFFFF  # 0 says "none"
    head = UDP_HEAD.pack(source_port, port, size, found)
    return HEAD.pack(6 << 28, size, UDP, HOPS, source, target) + head + data
