"""IPv6 of sessions: from account and settings to what a `Link6` hands out, and back."""

from __future__ import annotations

import socket
import uuid
from typing import Any

from fastpath import layout
from ops.settings import Settings
from workers.ipv6.link import Given, Link6
from workers.ipv6.server import Offer
from workers.policy import Policy

NO_POOL = "none"  # an account that is to have none, whatever [ipv6] says
DUID_UUID = b"\0\x04"  # RFC 8415 section 11.5


def duid(settings: Settings) -> bytes:
    """Ours: the same after each restart, or clients would not renew with us."""
    return DUID_UUID + uuid.uuid5(uuid.NAMESPACE_DNS, settings.server.name).bytes


def wishes(settings: Settings, policy: Policy) -> tuple[str, ...]:
    """As ops.messages.Admit.six: prefix and pool, for link, delegation, address."""
    six = settings.ipv6
    if six.ipv6cp != "on":
        return ()
    pairs = (
        (policy.prefix6, policy.pool6 or six.pool),
        (policy.delegated6, policy.delegated_pool6 or six.delegated_pool),
        (policy.address6, policy.address_pool6 or six.address_pool),
    )
    found = [word if word != NO_POOL else "" for pair in pairs for word in pair]
    return tuple(found) if any(found) else ()


def link_of(
    table: layout.Table, index: int, settings: Settings, policy: Policy, saved: dict[str, Any]
) -> Link6 | None:
    """The session's IPv6 side as the record has it; None: IPv6CP is down."""
    session = table.session(index)
    if not session.iid:
        return None
    six = settings.ipv6
    (prefix, length), (delegated, size), (address, _) = table.granted6(index)
    offer = Offer(
        duid=duid(settings),
        address=address,
        prefix=delegated,
        prefix_length=size,
        dns=tuple(socket.inet_pton(socket.AF_INET6, text) for text in policy.dns6 or six.dns),
        search=six.search,
        preferred=six.preferred_lifetime_s,
        valid=six.valid_lifetime_s,
    )
    given = Given(
        our_iid=session.our_iid,
        iid=session.iid,
        mtu=session.mtu,
        offer=offer,
        prefix=prefix,
        prefix_length=length,
        interval=six.ra_interval_s,
        lifetime=six.ra_lifetime_s,
        dhcp=six.dhcp == "on",
    )
    link = Link6(given)
    link.thaw(saved)
    return link
