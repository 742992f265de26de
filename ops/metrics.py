"""Closed lists of names: why a call was refused, why a session ended, what is counted.

Leaf module: standard library only. The positions are the counter slots of the
shared memory, so append only; ops.console turns them into Prometheus series.
"""

from __future__ import annotations

from typing import Final

# Why the dispatcher refused a call or a control connection.
REFUSALS: Final[tuple[str, ...]] = (
    "no_slot",  # limits.max_sessions reached
    "no_address",  # the pool is empty
    "per_ip_limit",
    "per_user_limit",
    "connection_limit",
    "starting_limit",
    "shutting_down",
    "no_worker",  # none up, or none with credit
    "worker_failed",  # Install not answered or refused
    "bad_request",
    "address_in_use",  # a static address another session has
    "address_not_allowed",
    "incoming_call",  # ICRQ: Do Not Accept
    "per_realm_limit",
    "start_rate",  # this source began too many calls in a minute
    "banned",  # this source or user failed to log in too often
)

# Why a session ended, in the words of the log; each maps to a RADIUS terminate cause later.
END_CAUSES: Final[tuple[str, ...]] = (
    "user_request",  # LCP Terminate-Request, Call-Clear-Request or Call-Disconnect from the peer
    "lost_carrier",  # TCP closed without a word
    "lost_service",  # control Echo unanswered
    "echo_timeout",  # LCP Echo unanswered
    "idle_timeout",
    "session_timeout",
    "admin_reset",  # terminate
    "admin_reboot",  # we are stopping
    "auth_failed",
    "lcp_failed",
    "ccp_failed",  # MPPE required and not agreed
    "ipcp_failed",
    "negotiation_timeout",
    "no_gre",  # control up, no GRE arrived
    "refused",  # admission said no
    "worker_lost",  # the link was negotiating when its worker died
    "poison",  # its packets killed a worker twice
    "protocol_error",
    "internal_error",
    "replaced",  # the same user, or one with the same address, logged in anew
    "volume_limit",
)

# Results of control connections, the label of pptp_control_connections_total.
CONNECTION_RESULTS: Final[tuple[str, ...]] = (
    "accepted",
    "refused_limit",
    "refused_acl",
    "timeout",
    "protocol_error",
    "closed",
    "refused_ban",
)

AUTH_METHODS: Final[tuple[str, ...]] = (
    "none",
    "pap",
    "chap-md5",
    "mschap",
    "mschapv2",
    "eap-md5",
    "eap-mschapv2",
    "eap",  # no type agreed yet, or one that is only passed through
)
AUTH_RESULTS: Final[tuple[str, ...]] = ("accept", "reject", "timeout")

# Slots of the dispatcher's counter page, in order.
DISPATCHER_COUNTERS: Final[tuple[str, ...]] = (
    *(f"connections_{r}" for r in CONNECTION_RESULTS),
    "connections_open",  # gauge
    "calls_requested",
    "calls_accepted",
    *(f"refused_{r}" for r in REFUSALS),
    "control_messages_received",
    "control_messages_sent",
    "control_protocol_errors",
    "link_info_unmatched",
    "wan_errors_received",
    "bus_messages_received",
    "bus_messages_sent",
    "bus_errors",
    "sessions_started",
    *(f"ended_{c}" for c in END_CAUSES),
    "no_gre_seen",
    "bans_user",  # begun
    "bans_source",
    "bans_now",  # gauge
    "prefixes6_refused",  # of accounts or pools
)

# Slots of a worker's control-thread counter page, in order.
CONTROL_COUNTERS: Final[tuple[str, ...]] = (
    *(f"auth_{m}_{r}" for m in AUTH_METHODS for r in AUTH_RESULTS),
    "bus_messages_received",
    "bus_messages_sent",
    "bus_errors",
    "frames_received",
    "frames_sent",
    "frames_malformed",
    "protocol_rejects_sent",
    "netops_requests",
    "netops_failures",
    "sessions_resumed",  # taken over from a dead predecessor
    "secrets_loaded",
    "secrets_errors",
    "networks_refused",  # routes of accounts: no network, or another session's
    "ipv6_received",  # router solicitations and DHCPv6
    "ipv6_sent",  # advertisements and DHCPv6
    "ipv6_malformed",
    "filters_unknown",  # named by an account, and not there
    "kernel_drops_receive",  # no room in the GRE socket
    "kernel_drops_transmit",  # no room in the TUN's queue
)

NETOPS_COUNTERS: Final[tuple[str, ...]] = (
    "requests",
    "failures",
    "routes_added",
    "routes_deleted",
    "isolated_packets",  # from subscriber to subscriber, dropped by lan.isolate
    "proxy_failures",
    "list_failures",
)
