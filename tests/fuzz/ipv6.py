"""A subscriber's router solicitations and DHCPv6: any octets are answered or named."""

from __future__ import annotations

from tests.fuzz.targets import allowed
from workers.ipv6 import packets
from workers.ipv6.dhcpv6 import Message
from workers.ipv6.errors import RemoteError
from workers.ipv6.link import Given, Link6
from workers.ipv6.ndp import Advertisement
from workers.ipv6.server import Offer

IID = bytes(7) + b"\7"
OWN = packets.link_local(IID)
NET = bytes.fromhex("20010db8000000000000000000000000")
OFFER = Offer(bytes(18), NET, NET, 56, (NET,), ("example.net",))
GIVEN = Given(bytes(7) + b"\1", IID, 1400, OFFER, NET, 64)


def one(data: bytes) -> None:
    """As they are; then with right headers around them."""
    link = Link6(GIVEN)
    with allowed(RemoteError):
        link.receive(data, 1.0)
    with allowed(RemoteError):
        link.receive(packets.icmpv6(OWN, packets.ALL_ROUTERS, data), 1.0)
    with allowed(RemoteError):
        link.receive(packets.udp(OWN, packets.ALL_DHCP_AGENTS, 546, 547, data), 1.0)
    for answer in link.take():
        found = packets.parse(answer)
        if found.port:
            Message.decode(found.payload)
        else:
            Advertisement.decode(found.payload)
    again = Link6(GIVEN)
    again.thaw(link.freeze())
    assert again.freeze() == link.freeze()
