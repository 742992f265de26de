"""Proxy ARP and proxy NDP: hosts of a LAN find subscribers at this host's hardware address.

One entry (linux/neighbour.h, NTF_PROXY) for each subscriber's address, on the interface that
is configured or to which the routing table leads without our own routes. pppd looks for an
interface in the subscriber's subnet and gives up without one; an entry needs no such thing.

Entries carry our protocol number: `ip neigh show proxy` lists them as ours, and whatever
kills us, the next start finds them. An entry whose address has a route of ours to a device of
somebody else is another instance's.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from dispatcher import rtnl
from dispatcher.rtnl import RouteSocket
from ops.log import Log
from ops.settings import Lan

RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30
NLM_F_DUMP: Final = 0x300
NLMSG_DONE: Final = 3
NTF_PROXY: Final = 0x08
NUD_PERMANENT: Final = 0x80
NDA_DST: Final = 1
NDA_PROTOCOL: Final = 12
NDMSG: Final = struct.Struct("=BxxxiHBB")  # family, ifindex, state, flags, type

IFF_UP: Final = 0x1
IFF_LOOPBACK: Final = 0x8
IFF_NOARP: Final = 0x80
# Routes that lead to a LAN were made by the kernel, by hand, at boot, by DHCP or by an RA;
# those of routing daemons may be a million and are not asked for.
ROUTE_PROTOCOLS: Final = (2, 3, 4, 9, 16)
TABLE_MAIN: Final = 254
FRESH_S: Final = 5.0  # for which what was read of interfaces and routes holds
LOG_EVERY_S: Final = 10.0  # between lines about entries that fail

Address = tuple[int, int]  # family and number
Entry = tuple[Address, int]  # and interface


@dataclass(frozen=True, slots=True)
class Proxy:
    """Add or delete one proxy entry."""

    add: bool
    address: Address
    ifindex: int

    def encode(self, sequence: int) -> bytes:
        """The netlink message."""
        family, number = self.address
        octets = number.to_bytes(4 if family == socket.AF_INET else 16, "big")
        body = NDMSG.pack(family, self.ifindex, NUD_PERMANENT, NTF_PROXY, 0)
        body += struct.pack("=HH", 4 + len(octets), NDA_DST) + octets
        body += struct.pack("=HHBxxx", 5, NDA_PROTOCOL, rtnl.PROTOCOL)
        kind = RTM_NEWNEIGH if self.add else RTM_DELNEIGH
        flags = rtnl.NLM_F_REQUEST | rtnl.NLM_F_ACK
        if self.add:
            flags |= rtnl.NLM_F_CREATE | rtnl.NLM_F_REPLACE
        return rtnl.NLMSG.pack(rtnl.NLMSG.size + len(body), kind, flags, sequence, 0) + body


@dataclass(frozen=True, slots=True)
class Choice:
    """An interface, and why this one; `ifindex` 0: none, and why not."""

    ifindex: int
    name: str
    why: str


class Ways:
    """The interfaces that could answer for a subscriber, and the routes to them."""

    def __init__(self, ipr: Any, lan: Lan, own: Collection[int]) -> None:
        self._lan = lan
        self._names: dict[int, str] = {}
        self._routes: dict[int, list[tuple[Any, int, str]]] = {}  # longest first
        links = list(ipr.get_links())
        for link in links:
            flags = link["flags"]
            if flags & IFF_UP and not flags & (IFF_LOOPBACK | IFF_NOARP):
                self._names[link["index"]] = link.get_attr("IFLA_IFNAME")
        for index in own:
            self._names.pop(index, None)
        self._known = {link.get_attr("IFLA_IFNAME"): link["index"] for link in links}
        if lan.interface:
            return
        for family in (socket.AF_INET, socket.AF_INET6):
            found = []
            for protocol in ROUTE_PROTOCOLS:
                for route in ipr.get_routes(family=family, table=TABLE_MAIN, proto=protocol):
                    index = route.get_attr("RTA_OIF") or 0
                    if route["proto"] != protocol or index not in self._names:
                        continue
                    everything = "0.0.0.0" if family == socket.AF_INET else "::"  # noqa: S104
                    text = f"{route.get_attr('RTA_DST') or everything}/{route['dst_len']}"
                    metric = route.get_attr("RTA_PRIORITY") or 0
                    found.append((ip_network(text), metric, index))
            found.sort(key=lambda route: (-route[0].prefixlen, route[1]))
            self._routes[family] = [
                (net, index, "its subnet" if net.prefixlen else "the default route")
                for net, _, index in found
            ]

    def choose(self, address: Address) -> Choice:
        """Where entries for an address belong."""
        name = self._lan.interface
        if name:
            index = self._known.get(name, 0)
            if index in self._names:
                return Choice(index, name, "lan.interface")
            state = "is down or has no ARP" if index else "does not exist"
            return Choice(0, name, f"the interface of lan.interface {state}")
        family, number = address
        for net, index, why in self._routes.get(family, ()):
            shift = net.max_prefixlen - net.prefixlen
            if number >> shift == int(net.network_address) >> shift:
                reason = f"{why} {net}" if net.prefixlen else why
                return Choice(index, self._names[index], reason)
        return Choice(0, "-", "no route leads to a LAN: set lan.interface")


class Neighbours:
    """The entries that are ours. A failure costs its subscriber the LAN, not the session."""

    def __init__(self, log: Log, own: Collection[int]) -> None:
        """`own`: the interface indexes of our TUNs."""
        self._log = log
        self._own = frozenset(own)
        self._lan = Lan()
        self._sock = RouteSocket()
        self._ipr: Any = IPRoute(strict_check=True)
        self._placed: dict[Address, int] = {}
        self._ways: Ways | None = None
        self._read_at = 0.0
        self._said: set[Choice] = set()
        self._failed = 0
        self.failures = 0  # that the owner has not counted
        self._failed_at = -LOG_EVERY_S

    @property
    def count(self) -> int:
        """Entries that stand now."""
        return len(self._placed)

    def restore(self, lan: Lan, wanted: Iterable[Address]) -> None:
        """Make exactly the entries of these addresses ours: at the start and after a reload."""
        before, self._lan = self._lan, lan
        if before != lan:
            self._ways = None
            self._said.clear()
        present = self._present()
        keep: set[Entry] = set()
        if lan.proxy == "on":
            for address in wanted:
                choice = self._choose(address)
                if choice.ifindex:
                    keep.add((address, choice.ifindex))
        stale = present - keep
        if stale:
            others = self._others()
            stale = {entry for entry in stale if entry[0] not in others}
        changes = [Proxy(False, *entry) for entry in sorted(stale)]
        changes += [Proxy(True, *entry) for entry in sorted(keep - present)]
        self._placed = dict(keep & present)
        self._apply(changes)
        if changes or keep:
            self._log.notice(
                "proxy entries in place",
                entries=len(keep),
                restored=len(keep - present),
                swept=len(stale),
            )

    def follow(self, changes: Iterable[tuple[bool, Address]]) -> None:
        """Routes of subscribers have come (True) or gone: their entries with them."""
        wanted: list[Proxy] = []
        for add, address in changes:
            if not add:
                index = self._placed.get(address)
                if index is not None:
                    wanted.append(Proxy(False, address, index))
            elif self._lan.proxy == "on":
                choice = self._choose(address)
                if choice.ifindex and self._placed.get(address) != choice.ifindex:
                    if address in self._placed:
                        wanted.append(Proxy(False, address, self._placed[address]))
                    wanted.append(Proxy(True, address, choice.ifindex))
        if wanted:
            self._apply(wanted)

    def leave(self) -> None:
        """Take all back."""
        self._apply([Proxy(False, *entry) for entry in list(self._placed.items())])
        self._sock.close()
        self._ipr.close()

    # -- inside

    def _apply(self, changes: list[Proxy]) -> None:
        for change, code in zip(changes, self._sock.apply(changes), strict=True):
            if code:
                self._failed += 1
                self.failures += 1
                now = time.monotonic()
                if now - self._failed_at >= LOG_EVERY_S:
                    self._log.warning(
                        "proxy entry failed",
                        add=change.add,
                        address=_text(change.address),
                        error=os.strerror(code),
                        count=self._failed,
                    )
                    self._failed_at, self._failed = now, 0
            elif change.add:
                self._placed[change.address] = change.ifindex
            elif self._placed.get(change.address) == change.ifindex:
                del self._placed[change.address]

    def _choose(self, address: Address) -> Choice:
        now = time.monotonic()
        if self._ways is None or now - self._read_at > FRESH_S:
            self._read_at = now
            try:
                self._ways = Ways(self._ipr, self._lan, self._own)
            except (OSError, NetlinkError) as e:
                # Routes wait for us: what was read before holds, if there was any.
                self._log.warning("interfaces and routes not read", reason=str(e)[:200])
                if self._ways is None:
                    return Choice(0, "-", "interfaces and routes could not be read")
        choice = self._ways.choose(address)
        if choice not in self._said and len(self._said) < 64:
            self._said.add(choice)
            if choice.ifindex:
                self._log.notice(
                    "proxy ARP" if address[0] == socket.AF_INET else "proxy NDP",
                    interface=choice.name,
                    reason=choice.why,
                    first=_text(address),
                )
            else:
                self._log.error(
                    "no interface for proxy entries",
                    interface=choice.name,
                    reason=choice.why,
                    first=_text(address),
                )
        return choice

    def _present(self) -> set[Entry]:
        found: set[Entry] = set()
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
            sock.settimeout(rtnl.ANSWER_S)
            for family in (socket.AF_INET, socket.AF_INET6):
                body = NDMSG.pack(family, 0, 0, NTF_PROXY, 0)
                flags = rtnl.NLM_F_REQUEST | NLM_F_DUMP
                size = rtnl.NLMSG.size + len(body)
                sock.send(rtnl.NLMSG.pack(size, RTM_GETNEIGH, flags, family, 0) + body)
                while True:
                    more, entries = _read(sock.recv(1 << 17))
                    found |= entries
                    if not more:
                        break
        return found

    def _others(self) -> set[Address]:
        """Addresses that another instance has a session for."""
        found: set[Address] = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            for route in self._ipr.get_routes(family=family, table=TABLE_MAIN, proto=rtnl.PROTOCOL):
                text, index = route.get_attr("RTA_DST"), route.get_attr("RTA_OIF")
                if text and index and index not in self._own:
                    found.add((family, int(ip_address(text))))
        return found


def _read(data: bytes) -> tuple[bool, set[Entry]]:
    """Whether more of a dump follows, and our entries in this part."""
    found: set[Entry] = set()
    at = 0
    while at + rtnl.NLMSG.size <= len(data):
        length, kind, _, _, _ = rtnl.NLMSG.unpack_from(data, at)
        if kind in (NLMSG_DONE, rtnl.NLMSG_ERROR) or length < rtnl.NLMSG.size:
            return False, found
        if kind == RTM_NEWNEIGH:
            family, index, _, flags, _ = NDMSG.unpack_from(data, at + rtnl.NLMSG.size)
            values: dict[int, bytes] = {}
            spot, end = at + rtnl.NLMSG.size + NDMSG.size, at + length
            while spot + 4 <= end:
                size, name = struct.unpack_from("=HH", data, spot)
                values[name] = data[spot + 4 : spot + size]
                spot += max(4, (size + 3) & ~3)
            ours = values.get(NDA_PROTOCOL, b"")[:1] == bytes((rtnl.PROTOCOL,))
            if ours and flags & NTF_PROXY and NDA_DST in values:
                found.add(((family, int.from_bytes(values[NDA_DST], "big")), index))
        at += (length + 3) & ~3
    return True, found


def _text(address: Address) -> str:
    family, number = address
    width = 4 if family == socket.AF_INET else 16
    return socket.inet_ntop(family, number.to_bytes(width, "big"))
