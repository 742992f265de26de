"""Every cause of a failure in words, and what a network engineer does about it.

The causes are the closed lists of ops.metrics; a test holds that none is missing here.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Cause(NamedTuple):
    """What it means, and what helps; "" where nothing is wrong."""

    words: str
    advice: str


# Ends that somebody wanted: no failures.
WANTED: Final[frozenset[str]] = frozenset(
    {
        "user_request",
        "idle_timeout",
        "session_timeout",
        "admin_reset",
        "admin_reboot",
        "replaced",
        "volume_limit",
        "refused",  # counted with its own reason
    }
)

ENDED: Final[dict[str, Cause]] = {
    "user_request": Cause("The subscriber hung up", ""),
    "lost_carrier": Cause(
        "The TCP connection closed without a word",
        "Single ones are laptops that go to sleep. Many at once: look for a link or NAT that went"
        " down between them and here.",
    ),
    "lost_service": Cause(
        "The client no longer answers on its control connection",
        "Many at once: a path that went down. One network alone: a NAT or firewall there that"
        " forgets idle TCP sessions.",
    ),
    "echo_timeout": Cause(
        "The tunnel went silent: LCP Echo unanswered",
        "GRE (IP protocol 47) no longer passes; check firewalls and NAT timeouts on the way.",
    ),
    "idle_timeout": Cause("Nothing was sent for the time allowed", ""),
    "session_timeout": Cause("The time allowed is used up", ""),
    "admin_reset": Cause("Ended by an administrator or by RADIUS", ""),
    "admin_reboot": Cause("The concentrator was stopping", ""),
    "auth_failed": Cause(
        "Login refused",
        "Wrong name or password, or no answer from RADIUS: compare with the RADIUS servers'"
        " state; `pptpcon show session USER` has the reason.",
    ),
    "lcp_failed": Cause(
        "No agreement on the link (LCP)",
        "Check the client's PPP settings: which authentication it allows, and whether"
        " multilink or callback is forced.",
    ),
    "ccp_failed": Cause(
        "No agreement on encryption (MPPE)",
        "The client does not encrypt, or with fewer bits than mppe.strengths wants; error 742"
        " or 741 on Windows.",
    ),
    "ipcp_failed": Cause(
        "No agreement on an IP address",
        "The client insists on an address of its own; let it take the one it is given.",
    ),
    "negotiation_timeout": Cause(
        "The link was not up in time",
        "Packets are lost or the client stopped half-way; look at loss on the path.",
    ),
    "no_gre": Cause(
        "Control connection up, but no GRE came",
        "A firewall on the way drops IP protocol 47, or a NAT has no PPTP helper; error 619 or"
        " 806 on Windows. `pptpcon doctor` checks this host.",
    ),
    "refused": Cause("Refused; see the reasons for refusals", ""),
    "worker_lost": Cause(
        "Its worker process died before the link was up",
        "The client dials again by itself; the log around that time says why the worker died.",
    ),
    "poison": Cause(
        "Its packets killed a worker twice",
        "Keep the log and report it: this is a fault of pptpcon.",
    ),
    "protocol_error": Cause(
        "The client broke the protocol",
        "A port scanner, or a client with a fault; the log names its address.",
    ),
    "internal_error": Cause(
        "An error inside the concentrator",
        "Keep the log and report it: this is a fault of pptpcon.",
    ),
    "replaced": Cause("The same user or address logged in anew", ""),
    "volume_limit": Cause("The volume allowed is used up", ""),
}

REFUSED: Final[dict[str, Cause]] = {
    "no_slot": Cause(
        "All slots are taken",
        "Raise limits.max_sessions if the machine can carry more, or add a concentrator.",
    ),
    "no_address": Cause(
        "The address pool is used up",
        "Widen the pool, or name another one to go on with (pools.NAME.next).",
    ),
    "per_ip_limit": Cause(
        "Too many sessions from one address",
        "A NAT with many subscribers behind it? Raise limits.per_ip_sessions.",
    ),
    "per_user_limit": Cause(
        "The user is logged in as often as allowed",
        "Shared passwords, or a session that still hangs: `pptpcon show session USER`.",
    ),
    "connection_limit": Cause(
        "Too many control connections",
        "Raise limits.max_connections and the open-files limit, or look for who opens them.",
    ),
    "starting_limit": Cause(
        "Too many calls are being set up at once",
        "Normal for a minute after an outage. If it stays: RADIUS is slow, or"
        " limits.max_starting is low.",
    ),
    "shutting_down": Cause("The concentrator is stopping or drained", ""),
    "no_worker": Cause(
        "No worker process takes calls",
        "See the workers' state and the log; `pptpcon doctor` checks the host.",
    ),
    "worker_failed": Cause(
        "A worker did not take the session",
        "See the workers' state and the log around that time.",
    ),
    "bad_request": Cause(
        "The client's call request made no sense", "A client with a fault, or a scanner."
    ),
    "address_in_use": Cause(
        "The user's fixed address is in use",
        "The old session still hangs, or two accounts have one address; ip.conflict says who wins.",
    ),
    "address_not_allowed": Cause(
        "The account names an address that can't be given",
        "Correct it in RADIUS or in chap-secrets.",
    ),
    "incoming_call": Cause(
        "The client asked for an incoming call",
        "It is set up as a dial-in server; set it up as a client.",
    ),
    "per_realm_limit": Cause(
        "The realm has as many sessions as allowed", "Raise limits.per_realm_sessions."
    ),
    "start_rate": Cause(
        "One source dials too often",
        "A client that loops, or many behind one NAT; limits.per_ip_starts_per_minute.",
    ),
    "banned": Cause(
        "Banned after too many failed logins",
        "`pptpcon show bans` lists them, `pptpcon unban` lifts one.",
    ),
}

CONNECTIONS: Final[dict[str, Cause]] = {
    "refused_limit": Cause(
        "TCP connection over the limit", "Raise limits.max_connections or per_ip_connections."
    ),
    "refused_acl": Cause(
        "TCP connection from an address that may not connect", "listen.allow and listen.deny."
    ),
    "timeout": Cause(
        "TCP connection without a PPTP request",
        "Port scanners, or monitoring that only opens the port.",
    ),
    "protocol_error": Cause("TCP connection that spoke no PPTP", "Port scanners mostly."),
    "refused_ban": Cause(
        "TCP connection from a banned source", "`pptpcon show bans` lists the bans."
    ),
}
