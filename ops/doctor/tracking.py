"""Connection tracking: room for subscribers' flows, and the PPTP helper."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ops.doctor.finding import Finding
from ops.doctor.host import Host

FLOWS: Final = 16  # tracked connections of one subscriber, at the least
MAX: Final = "net.netfilter.nf_conntrack_max"


def look(host: Host) -> Iterator[Finding]:
    """nf_conntrack's table; nf_conntrack_pptp."""
    most = host.number("net/netfilter/nf_conntrack_max")
    used = host.number("net/netfilter/nf_conntrack_count")
    sessions = host.settings.limits.max_sessions
    if most and used and used > most * 0.8:
        text = f"{used} of {most} connections are tracked: when it is full, new ones are dropped"
        yield Finding("error", "conntrack", text, f"sysctl -w {MAX}={4 * most}")
    elif most and used and most < FLOWS * sessions:
        text = f"is {most}, less than {FLOWS} connections for each of {sessions} subscribers"
        yield Finding("warning", MAX, text, f"sysctl -w {MAX}={4 * FLOWS * sessions}")
    modules = {line.split(" ")[0] for line in host.text("modules").splitlines()}
    if "nf_conntrack_pptp" in modules and host.number("net/netfilter/nf_conntrack_helper"):
        text = "is given to all of TCP 1723, ours too: it reads and may change our control messages"
        mend = "sysctl -w net.netfilter.nf_conntrack_helper=0"
        yield Finding("warning", "module nf_conntrack_pptp", text, mend)
