"""What is written together, the obvious way: of each flow only its last group is looked at.

The rules are those of Linux's GRO (net/ipv4: af_inet.c, tcp_offload.c, udp_offload.c), but:
what is not bare ACK or ACK with PSH is always alone (Linux joins a FIN as the last one, and
ECE to ECE); without DF TCP is never joined; with DF an IP identification says nothing (RFC 6864).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.fastpath.peer import ip_sum

TCP, UDP = 6, 17
MOST = 46  # segments: fastpath/tun.pxd
LARGEST = 65535


def u16(packet: bytes, at: int) -> int:
    return int.from_bytes(packet[at : at + 2], "big")


def u32(packet: bytes, at: int) -> int:
    return int.from_bytes(packet[at : at + 4], "big")


def right(packet: bytes) -> bool:
    """TCP's or UDP's checksum."""
    pseudo = packet[12:20] + struct.pack(">BBH", 0, packet[9], len(packet) - 20)
    return ip_sum(pseudo + packet[20:]) == 0


def odd(packet: bytes) -> bool:
    """Its ports are not where a plain header has them, or it has none."""
    least = 40 if packet[9] == TCP else 28
    if packet[0] != 0x45 or u16(packet, 6) & 0x3FFF or len(packet) < least:
        return True
    return packet[9] == TCP and not 40 <= head_size(packet) <= len(packet)


def head_size(packet: bytes) -> int:
    return 28 if packet[9] == UDP else 20 + (packet[32] >> 4) * 4


def data_size(packet: bytes) -> int:
    return len(packet) - head_size(packet)


def df(packet: bytes) -> bool:
    return bool(packet[6] & 0x40)


def joinable(packet: bytes) -> bool:
    """May be written together with others at all."""
    if data_size(packet) == 0 or not right(packet):
        return False
    if packet[9] == TCP:
        return df(packet) and packet[33] & ~0x08 == 0x10
    return u16(packet, 26) != 0 and u16(packet, 24) == len(packet) - 20


@dataclass
class Group:
    """One write."""

    flow: bytes
    packets: list[bytes] = field(default_factory=list)
    open: bool = True

    def takes(self, packet: bytes) -> bool:
        first, last = self.packets[0], self.packets[-1]
        if not (self.open and joinable(packet) and len(self.packets) < MOST):
            return False
        if len(first) + sum(map(data_size, [*self.packets[1:], packet])) > LARGEST:
            return False
        if data_size(packet) > data_size(first):
            return False
        same = packet[1] == first[1] and packet[8] == first[8]  # TOS with ECN, TTL
        if packet[9] == TCP:
            head = head_size(first)
            same = same and u32(packet, 24) == (u32(last, 24) + data_size(last)) % 2**32
            same = same and packet[28:33] == first[28:33]  # acknowledgement, size, reserved bits
            return same and packet[34:36] == first[34:36] and packet[40:head] == first[40:head]
        follows = df(packet) or u16(packet, 4) == (u16(last, 4) + 1) % 2**16
        return same and packet[6:8] == first[6:8] and follows

    def add(self, packet: bytes) -> None:
        self.packets.append(packet)
        pushed = packet[9] == TCP and bool(packet[33] & 0x08)
        shorter = data_size(packet) < data_size(self.packets[0])
        self.open = joinable(packet) and not pushed and not shorter


def groups(packets: list[bytes]) -> list[Group]:
    """The writes in the order of their first packets. For few flows: more than the
    writer has places for make it write out earlier."""
    made: list[Group] = []
    for packet in packets:
        if packet[9] not in (TCP, UDP):
            made.append(Group(b"", [packet], open=False))
            continue
        if odd(packet):  # of whichever flow: it ends all between the two
            for group in made:
                if group.flow[:9] == packet[9:10] + packet[12:20]:
                    group.open = False
            made.append(Group(b"", [packet], open=False))
            continue
        flow = packet[9:10] + packet[12:24]
        of_flow = [group for group in made if group.flow == flow]
        if of_flow and of_flow[-1].takes(packet):
            of_flow[-1].add(packet)
            continue
        made.append(Group(flow))
        made[-1].add(packet)
    return made
