"""The TUN device's addresses and routes: four rtnetlink requests, rtnetlink(7).

Requests are answered at once by the kernel, in the caller's thread: no wait, no loop.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_REPLACE: Final = 0x100
NLM_F_CREATE: Final = 0x400
NLMSG_ERROR: Final = 2
RTM_NEWLINK: Final = 16
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_NEWROUTE: Final = 24

IFLA_MTU: Final = 4
IFLA_TXQLEN: Final = 13
IFA_ADDRESS: Final = 1
IFA_LOCAL: Final = 2
RTA_DST: Final = 1
RTA_OIF: Final = 4
IFF_UP: Final = 0x1
RT_TABLE_MAIN: Final = 254
RTPROT_STATIC: Final = 4
RT_SCOPE_LINK: Final = 253
RTN_UNICAST: Final = 1

QUEUE: Final = 4096  # packets; the kernel's 500 are 10 ms of a busy load generator

HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ATTRIBUTE: Final = struct.Struct("=HH")


class NetlinkError(Exception):
    """The kernel refused a request; says which and why."""


def _attribute(kind: int, value: bytes) -> bytes:
    padding = bytes(-len(value) % 4)
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + padding


class Device:
    """One network device of this namespace."""

    def __init__(self, ifindex: int) -> None:
        self.ifindex = ifindex
        self._sequence = 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, 0))

    def close(self) -> None:
        """The device stays; only the way to ask goes."""
        self._socket.close()

    def up(self, mtu: int) -> None:
        """Set it up, with this MTU, and a queue that bears a data thread's pause."""
        body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, self.ifindex, IFF_UP, IFF_UP)
        body += _attribute(IFLA_MTU, struct.pack("=I", mtu))
        body += _attribute(IFLA_TXQLEN, struct.pack("=I", QUEUE))
        self._ask(RTM_NEWLINK, 0, body, f"device up, MTU {mtu}")

    def add_address(self, address: int) -> None:
        """Add a /32; one that is there stays."""
        flags = NLM_F_CREATE | NLM_F_REPLACE
        self._ask(RTM_NEWADDR, flags, self._address(address), f"address {_dotted(address)}")

    def delete_address(self, address: int) -> None:
        """Delete a /32; one that is not there is no error."""
        what = f"removal of address {_dotted(address)}"
        self._ask(RTM_DELADDR, 0, self._address(address), what, errno.EADDRNOTAVAIL)

    def _address(self, address: int) -> bytes:
        octets = address.to_bytes(4)
        body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, self.ifindex)
        return body + _attribute(IFA_LOCAL, octets) + _attribute(IFA_ADDRESS, octets)

    def add_route(self, network: int, prefix: int) -> None:
        """Route a network through the device."""
        body = struct.pack(
            "=BBBBBBBBI",
            *(socket.AF_INET, prefix, 0, 0),
            *(RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_LINK, RTN_UNICAST, 0),
        )
        body += _attribute(RTA_DST, network.to_bytes(4)) if prefix else b""
        body += _attribute(RTA_OIF, struct.pack("=I", self.ifindex))
        what = f"route {_dotted(network)}/{prefix}"
        self._ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, what)

    def _ask(self, kind: int, flags: int, body: bytes, what: str, *harmless: int) -> None:
        self._sequence += 1
        length = HEADER.size + len(body)
        flags |= NLM_F_REQUEST | NLM_F_ACK
        self._socket.send(HEADER.pack(length, kind, flags, self._sequence, 0) + body)
        while True:
            answer = self._socket.recv(65536)
            _, answered, _, sequence, _ = HEADER.unpack_from(answer)
            if answered == NLMSG_ERROR and sequence == self._sequence:
                break
        (code,) = struct.unpack_from("=i", answer, HEADER.size)
        if code and -code not in harmless:
            raise NetlinkError(f"{what}: {os.strerror(-code)}")


def _dotted(address: int) -> str:
    return socket.inet_ntoa(address.to_bytes(4))
