"""From settings to what a link is told to be."""

from __future__ import annotations

from ops.ranges import parse_address
from ops.settings import Settings
from workers.ppp.actions import Policy


def policy_of(settings: Settings) -> Policy:
    """What new links are told to be."""
    return Policy(
        role="server",
        name=settings.server.name,
        mtu=settings.ppp.mtu,
        mru=settings.ppp.mru,
        auth=tuple(settings.ppp.auth),
        mppe=settings.mppe.policy,
        mppe_strengths=settings.mppe.strengths,
        dns=tuple(parse_address(a) for a in settings.ip.dns),
        wins=tuple(parse_address(a) for a in settings.ip.wins),
        restart_interval=settings.ppp.restart_interval_s,
        max_configure=settings.ppp.max_configure,
        max_terminate=settings.ppp.max_terminate,
        max_failure=settings.ppp.max_failure,
        negotiation_timeout=settings.ppp.negotiation_timeout_s,
        auth_timeout=settings.ppp.auth_timeout_s,
    )
