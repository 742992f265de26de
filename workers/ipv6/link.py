"""The concentrator's IPv6 side of one session: it advertises, is solicited, hands out.

RFC 4861 section 6.2. Every subscriber has a link of its own, so an advertisement goes to one
host; to all-nodes all the same, since it may not have told us its address yet.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from workers.ipv6 import dhcpv6, ndp, packets
from workers.ipv6.errors import RemoteError
from workers.ipv6.ndp import Advertisement, PrefixInformation
from workers.ipv6.server import Offer, Server

FIRST_S: Final = (3.0, 16.0, 16.0)  # between the first: MAX_INITIAL_RTR_ADVERT_INTERVAL, 3 of them
SOLICITED_S: Final = 3.0  # MIN_DELAY_BETWEEN_RAS: a host that asks more often waits so long
SLAAC: Final = 64


@dataclass(frozen=True, slots=True)
class Given:
    """What a session has, and how it is told. Times in s; empty: none."""

    our_iid: bytes
    iid: bytes
    mtu: int
    offer: Offer
    prefix: bytes = b""  # of the link
    prefix_length: int = 0
    interval: int = 600  # the longest between two advertisements
    lifetime: int = 1800  # of the default route; 0: none by us
    dhcp: bool = True


class Link6:
    """Packets come in by `receive`, go out by `take`."""

    def __init__(self, given: Given) -> None:
        self.given = given
        self.server = Server(given.offer)
        self.next_at = 0.0  # of the next advertisement that nobody asks for; 0: closed
        self._sent = 0
        self._sent_at = -SOLICITED_S
        self._out: list[bytes] = []

    def freeze(self) -> dict[str, Any]:
        """For the blob."""
        return {
            "next": self.next_at,
            "sent": self._sent,
            "last": self._sent_at,
            "leases": self.server.freeze(),
        }

    def thaw(self, saved: dict[str, Any]) -> None:
        """The inverse; what is missing is as at the beginning."""
        self.next_at = saved.get("next", 0.0)
        self._sent = saved.get("sent", 0)
        self._sent_at = saved.get("last", -SOLICITED_S)
        self.server.thaw(saved.get("leases", {}))

    def take(self) -> list[bytes]:
        """IPv6 packets to the subscriber."""
        out, self._out = self._out, []
        return out

    def open(self, now: float) -> None:
        """IPv6CP is up: the host may just not have its address ready, so it is told again."""
        self._sent = 0
        self._advertise(now)

    def handle_timer(self, now: float) -> None:
        """The next advertisement, if it is due."""
        if self.next_at and now >= self.next_at:
            self._advertise(now)

    def receive(self, data: bytes, now: float) -> None:
        """A packet to us, of the data thread's choice; RemoteError if it is no good."""
        packet = packets.parse(data)
        if packet.port:
            if packet.port != dhcpv6.SERVER_PORT or not self.given.dhcp:
                raise RemoteError(f"UDP port {packet.port}")
            if packet.source != packets.link_local(self.given.iid):
                raise RemoteError("DHCPv6 from an address that is not the link-local one")
            answer = self.server.receive(packet.payload, now)
            if answer:
                self._out.append(
                    packets.udp(
                        packets.link_local(self.given.our_iid),
                        packet.source,
                        dhcpv6.SERVER_PORT,
                        dhcpv6.CLIENT_PORT,
                        answer,
                    )
                )
            return
        ndp.check_solicitation(packet)
        if now - self._sent_at >= SOLICITED_S:
            self._advertise(now)
        elif self.next_at:
            self.next_at = min(self.next_at, self._sent_at + SOLICITED_S)

    def _advertise(self, now: float) -> None:
        given, offer = self.given, self.given.offer
        if not (given.prefix or offer.address or offer.prefix or offer.dns):
            return  # link-local addresses need no router
        prefixes: tuple[PrefixInformation, ...] = ()
        if given.prefix:
            found = PrefixInformation(
                given.prefix,
                given.prefix_length,
                offer.valid,
                offer.preferred,
                autonomous=given.prefix_length == SLAAC,
            )
            prefixes = (found,)
        told = Advertisement(
            lifetime=given.lifetime if given.prefix or offer.address or offer.prefix else 0,
            managed=given.dhcp and bool(offer.address),
            other=given.dhcp,
            prefixes=prefixes,
            mtu=max(1280, given.mtu),
            dns=offer.dns,
            search=offer.search,
            dns_lifetime=max(given.lifetime, 3 * given.interval),
        )
        self._out.append(
            packets.icmpv6(packets.link_local(given.our_iid), packets.ALL_NODES, told.encode())
        )
        wait = FIRST_S[self._sent] if self._sent < len(FIRST_S) else given.interval
        self._sent = min(self._sent + 1, len(FIRST_S))
        self._sent_at = now
        self.next_at = now + min(wait, given.interval) * self._share(now)

    def _share(self, now: float) -> float:
        """0.75 to 1, RFC 4861 section 6.2.4: sessions that came up together drift apart."""
        seed = hashlib.blake2s(self.given.iid + repr(now).encode(), digest_size=2).digest()
        return 0.75 + int.from_bytes(seed, "big") / 0x40000
