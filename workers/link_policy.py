"""From settings to what a link is told to be."""

from __future__ import annotations

import socket
from dataclasses import replace

from ops.ranges import parse_address
from ops.settings import Settings
from workers import policy
from workers.ppp.actions import Policy


def interface_id(settings: Settings) -> bytes:
    """Ours, as 8 octets."""
    return socket.inet_pton(socket.AF_INET6, settings.ipv6.interface_id)[8:]


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
        mppe_stateful=settings.mppe.stateful != "refuse",
        mppe_ask_stateful=settings.mppe.stateful == "ask",
        # A RADIUS server may require MPPE for a user where we only prefer it.
        mppe_by_user=any(rule.mppe or rule.strengths for rule in settings.accounts.rules)
        or (bool(settings.radius.servers) and settings.mppe.policy != "require"),
        eap=tuple(settings.ppp.eap),
        auth_retries=settings.ppp.auth_retries,
        chap_rechallenge=settings.ppp.chap_rechallenge_s,
        ipv6=settings.ipv6.ipv6cp == "on",
        interface_id=interface_id(settings),
        subscriber_id=settings.ipv6.subscriber_id,
        subscriber_may_choose=settings.ipv6.subscriber_may_choose,
    )


def account_policy(general: Policy, account: policy.Policy) -> Policy:
    """What one session's link is told: the account's name servers before the general ones."""
    if not account.dns and not account.wins:
        return general
    return replace(general, dns=account.dns or general.dns, wins=account.wins or general.wins)
