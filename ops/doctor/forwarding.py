"""Whether the kernel forwards, and whether its check of source addresses is in the way."""

from __future__ import annotations

from collections.abc import Iterator

from ops.doctor.finding import Finding
from ops.doctor.host import Host

FORWARD = "net.ipv4.ip_forward"
STRICT = 1


def look(host: Host) -> Iterator[Finding]:
    """net.ipv4.ip_forward; rp_filter on several uplinks."""
    if host.number("net/ipv4/ip_forward") == 0:
        text = "is 0: subscribers reach this host and nothing behind it"
        yield Finding("error", FORWARD, text, f"sysctl -w {FORWARD}=1")
    if len({uplink.name for uplink in host.uplinks}) < 2:
        return
    everywhere = host.number("net/ipv4/conf/all/rp_filter") or 0
    for name in sorted({uplink.name for uplink in host.uplinks}):
        here = host.number(f"net/ipv4/conf/{name}/rp_filter") or 0
        if max(everywhere, here) == STRICT:
            key = f"net.ipv4.conf.{name}.rp_filter"
            text = "is strict with several uplinks: TCP that comes by the other one is dropped"
            yield Finding("warning", key, text, f"sysctl -w {key}=2")
