"""Setting up our TUN devices and looking at what is there, through pyroute2."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, summarize_address_range
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from dispatcher import rtnl
from ops.networks import Network, parse_network
from ops.ranges import parse_ranges
from ops.settings import Pool

QUEUE_LENGTH: Final = 4096  # packets (super-packets count once) that wait for a worker
IN6_ADDR_GEN_MODE_NONE: Final = 1
TABLE_MAIN: Final = 254
IFA_F_NODAD: Final = 0x02  # nobody answers there who could have the same


def prefixes(pools: Iterable[Pool]) -> set[Network]:
    """The least set of prefixes that covers the pools' addresses and not one more."""
    found: set[Network] = set()
    for pool in pools:
        for text in pool.ranges:
            for first, last in parse_ranges(text):
                for part in summarize_address_range(IPv4Address(first), IPv4Address(last)):
                    found.add(Network(part.network_address.packed, part.prefixlen))
    return found


def link_local(interface_id: str) -> str:
    """The link-local address of an identifier that is written as the low half of one."""
    return str(IPv6Address(0xFE80 << 112 | int(IPv6Address(interface_id))))


class Links:
    """One rtnetlink connection for everything that is not per session."""

    def __init__(self) -> None:
        self._ipr: Any = IPRoute()

    def set_up(self, ifindex: int, mtu: int) -> None:
        """MTU, queue, no IPv6 link-local address (its chatter is no subscriber's), up."""
        try:
            self._ipr.link(
                "set",
                index=ifindex,
                IFLA_AF_SPEC={
                    "attrs": [
                        (
                            "AF_INET6",
                            {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", IN6_ADDR_GEN_MODE_NONE)]},
                        )
                    ]
                },
            )
        except NetlinkError as e:
            if e.code not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL):
                raise
        self._ipr.link("set", index=ifindex, mtu=mtu, txqlen=QUEUE_LENGTH)
        self._ipr.link("set", index=ifindex, state="up")

    def addresses(self) -> dict[int, set[int]]:
        """The host's IPv4 addresses: interface indexes by host-order value."""
        found: dict[int, set[int]] = {}
        for message in self._ipr.get_addr(family=socket.AF_INET):
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if text:
                found.setdefault(int(IPv4Address(text)), set()).add(message["index"])
        return found

    def add_address(self, address: int, ifindex: int) -> None:
        """A /32 of ours on a TUN; no error if it is there already."""
        try:
            self._ipr.addr("add", index=ifindex, address=str(IPv4Address(address)), prefixlen=32)
        except NetlinkError as e:
            if e.code != errno.EEXIST:
                raise

    def delete_address(self, address: int, ifindex: int) -> None:
        """Take it back; no error if it is gone."""
        try:
            self._ipr.addr("del", index=ifindex, address=str(IPv4Address(address)), prefixlen=32)
        except NetlinkError as e:
            if e.code not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                raise

    def add_link_local(self, text: str, ifindex: int) -> None:
        """An address of fe80::/64 on a TUN, with the route that goes with it."""
        try:
            self._ipr.addr(
                "add",
                index=ifindex,
                address=text,
                prefixlen=64,
                family=socket.AF_INET6,
                flags=IFA_F_NODAD,
            )
        except NetlinkError as e:
            if e.code != errno.EEXIST:
                raise

    def delete_link_local(self, text: str, ifindex: int) -> None:
        """Take it back; no error if it is gone."""
        try:
            self._ipr.addr("del", index=ifindex, address=text, prefixlen=64, family=socket.AF_INET6)
        except NetlinkError as e:
            if e.code not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                raise

    def blackholes(self) -> set[tuple[Network, int]]:
        """Blackhole routes that carry our protocol number, with their metrics."""
        found: set[tuple[Network, int]] = set()
        for family, none in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104
            for message in self._ipr.get_routes(family=family, table=TABLE_MAIN):
                if message["proto"] == rtnl.PROTOCOL and message["type"] == rtnl.RTN_BLACKHOLE:
                    text = message.get_attr("RTA_DST") or none  # none: a default route
                    prefix = parse_network(f"{text}/{message['dst_len']}")
                    found.add((prefix, message.get_attr("RTA_PRIORITY") or 0))
        return found

    def close(self) -> None:
        """End the connection."""
        self._ipr.close()
