"""Next hops on the way out: where a packet socket sends a subscriber's GRE packets.

The kernel is asked once for each peer (RTM_GETROUTE, RTM_GETLINK, RTM_GETNEIGH; rtnetlink(7))
and told us of changes by multicast, upon which all is asked anew. Whatever is not one plain
Ethernet next hop with a known hardware address goes by the raw socket, and so does a packet
every now and then, which keeps the kernel's own proof of the neighbour alive.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

NLMSG: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
RTMSG: Final = struct.Struct("=BBBBBBBBI")  # family dst_len src_len tos table protocol scope type
NDMSG: Final = struct.Struct("=BxxxiHBB")  # family, ifindex, state, flags, type
IFINFO: Final = struct.Struct("=BxHiII")  # family, type, index, flags, change
ATTRIBUTE: Final = struct.Struct("=HH")

NLM_F_REQUEST: Final = 1
NLM_F_DUMP: Final = 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWRULE, RTM_GETRULE = 32, 34
RTN_UNICAST: Final = 1
RTM_F_FIB_MATCH: Final = 0x2000
RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_METRICS, RTA_MULTIPATH = 1, 2, 4, 5, 8, 9
RTA_VIA, RTA_ENCAP, RTA_NH_ID = 18, 22, 30
RTAX_MTU: Final = 2
NDA_DST, NDA_LLADDR = 1, 2
NUD_VALID: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80
IFLA_ADDRESS: Final = 1
IFLA_MTU: Final = 4
ARPHRD_ETHER: Final = 1
IFF_UP, IFF_RUNNING = 0x1, 0x40
# Multicast groups: link, neighbour, IPv4 address, IPv4 route, IPv4 rule.
GROUPS: Final = 0x1 | 0x4 | 0x10 | 0x40 | 0x80
DEFAULT_RULES: Final = 3  # local, main, default
OUR_ROUTES: Final = 201  # protocol number of subscribers' own routes: no way out changes by them


@dataclass(frozen=True, slots=True)
class Hop:
    """A plain Ethernet next hop; `mtu` is the link's or the route's, the smaller one."""

    ifindex: int
    mac: bytes
    mtu: int


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each netlink message in a datagram; a broken one ends it."""
    at = 0
    while at + NLMSG.size <= len(data):
        length, kind, _flags, _sequence, _port = NLMSG.unpack_from(data, at)
        if length < NLMSG.size or at + length > len(data):
            return
        yield kind, data[at + NLMSG.size : at + length]
        at += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by type."""
    found: dict[int, bytes] = {}
    at = 0
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < ATTRIBUTE.size or at + length > len(data):
            break
        found[kind & 0x3FFF] = data[at + ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def _attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _number(value: bytes) -> int:
    return int.from_bytes(value, "little" if struct.pack("=H", 1)[0] else "big")


class Resolver:
    """Asks the kernel; what it learned of links and neighbours is kept until `forget`."""

    def __init__(self, rings: Mapping[int, bytes] | None = None) -> None:
        """`rings`: devices that AF_XDP sends on, and the hardware address it writes there. One
        that has another by now is no plain link any more."""
        self._rings = rings or {}
        self._ask = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
        )
        self._ask.bind((0, 0))
        self.events = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
        )
        self.events.bind((0, GROUPS))
        self._links: dict[int, int | None] = {}
        self._neighbours: dict[tuple[int, bytes], bytes | None] = {}
        self._plain_rules: bool | None = None

    def forget(self) -> None:
        """Something has changed: ask for everything again."""
        self._links.clear()
        self._neighbours.clear()
        self._plain_rules = None

    def resolve(self, peer: int, here: int) -> Hop | None:
        """The next hop to `peer` from our address `here` (host order); None: not a plain one."""
        if self._plain_rules is None:
            kinds = [kind for kind, _ in self._request(RTM_GETRULE, RTMSG.pack(2, *(0,) * 8), True)]
            self._plain_rules = kinds.count(RTM_NEWRULE) <= DEFAULT_RULES
        if not self._plain_rules:
            return None
        target = peer.to_bytes(4, "big")
        where = _attribute(RTA_DST, target) + _attribute(RTA_SRC, here.to_bytes(4, "big"))
        found: list[dict[int, bytes]] = []
        for flags in (RTM_F_FIB_MATCH, 0):
            head = RTMSG.pack(2, 32, 32, 0, 0, 0, 0, 0, flags)
            answer = self._request(RTM_GETROUTE, head + where, False)
            if not answer or answer[0][0] != RTM_NEWROUTE:
                return None
            body = answer[0][1]
            if len(body) < RTMSG.size or body[7] != RTN_UNICAST:
                return None
            found.append(attributes(body[RTMSG.size :]))
        match, route = found
        if {RTA_MULTIPATH, RTA_NH_ID} & match.keys() or {RTA_VIA, RTA_ENCAP} & route.keys():
            return None
        if RTA_OIF not in route:
            return None
        ifindex = _number(route[RTA_OIF])
        mtu = self._link(ifindex)
        mac = self._neighbour(ifindex, route.get(RTA_GATEWAY, target))
        if mtu is None or mac is None:
            return None
        limit = attributes(route.get(RTA_METRICS, b"")).get(RTAX_MTU)
        return Hop(ifindex, mac, min(mtu, _number(limit)) if limit else mtu)

    def changed(self) -> bool:
        """Read what the kernel says; True if a way out may have changed."""
        dirty = False
        while True:
            try:
                data = self.events.recv(65536)
            except BlockingIOError:
                return dirty
            except OSError as e:
                if e.errno != errno.ENOBUFS:
                    raise
                dirty = True  # some were lost: take it that all has changed
                continue
            dirty = any(self._matters(kind, body) for kind, body in messages(data)) or dirty

    def _matters(self, kind: int, body: bytes) -> bool:
        if kind in (RTM_NEWROUTE, RTM_DELROUTE):
            return len(body) >= RTMSG.size and body[5] != OUR_ROUTES
        if kind in (RTM_NEWNEIGH, RTM_DELNEIGH):
            if len(body) < NDMSG.size:
                return False
            _family, ifindex, state, _flags, _type = NDMSG.unpack_from(body)
            found = attributes(body[NDMSG.size :])
            key = (ifindex, found.get(NDA_DST, b""))
            if key not in self._neighbours:
                return False
            good = kind == RTM_NEWNEIGH and state & NUD_VALID
            return self._neighbours[key] != (found.get(NDA_LLADDR) if good else None)
        if kind in (RTM_NEWLINK, RTM_DELLINK):
            return len(body) >= IFINFO.size and IFINFO.unpack_from(body)[2] in self._links
        return True

    def _link(self, ifindex: int) -> int | None:
        """MTU of an Ethernet link that is up."""
        if ifindex not in self._links:
            self._links[ifindex] = None
            answer = self._request(RTM_GETLINK, IFINFO.pack(0, 0, ifindex, 0, 0), False)
            if answer and answer[0][0] == RTM_NEWLINK and len(answer[0][1]) >= IFINFO.size:
                body = answer[0][1]
                _family, kind, _index, flags, _change = IFINFO.unpack_from(body)
                up = flags & IFF_UP and flags & IFF_RUNNING
                found = attributes(body[IFINFO.size :])
                ours = self._rings.get(ifindex, found.get(IFLA_ADDRESS))
                same = found.get(IFLA_ADDRESS) == ours
                if kind == ARPHRD_ETHER and up and same and IFLA_MTU in found:
                    self._links[ifindex] = _number(found[IFLA_MTU])
        return self._links[ifindex]

    def _neighbour(self, ifindex: int, address: bytes) -> bytes | None:
        key = (ifindex, address)
        if key not in self._neighbours:
            self._neighbours[key] = None
            body = NDMSG.pack(2, ifindex, 0, 0, 0) + _attribute(NDA_DST, address)
            answer = self._request(RTM_GETNEIGH, body, False)
            if answer and answer[0][0] == RTM_NEWNEIGH and len(answer[0][1]) >= NDMSG.size:
                state = NDMSG.unpack_from(answer[0][1])[2]
                mac = attributes(answer[0][1][NDMSG.size :]).get(NDA_LLADDR)
                if state & NUD_VALID and mac is not None and len(mac) == 6:
                    self._neighbours[key] = mac
        found = self._neighbours[key]
        if found is None:
            del self._neighbours[key]  # the raw socket makes the kernel look for it
        return found

    def _request(self, kind: int, body: bytes, dump: bool) -> list[tuple[int, bytes]]:
        """The answer's messages; the kernel has it ready when the request is sent."""
        flags = NLM_F_REQUEST | (NLM_F_DUMP if dump else 0)
        found: list[tuple[int, bytes]] = []
        try:
            self._ask.send(NLMSG.pack(NLMSG.size + len(body), kind, flags, 0, 0) + body)
            while True:
                part = list(messages(self._ask.recv(65536)))
                found += part
                if not dump or not part or part[-1][0] in (NLMSG_DONE, NLMSG_ERROR):
                    return found
        except OSError:
            return found
