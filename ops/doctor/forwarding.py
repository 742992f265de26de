"""Whether the kernel forwards, and whether its check of source addresses is in the way."""

from __future__ import annotations

from collections.abc import Iterator

from ops.doctor.finding import Finding
from ops.doctor.host import Host

FORWARD = "net.ipv4.ip_forward"
FORWARD6 = "net.ipv6.conf.all.forwarding"
STRICT = 1


def look(host: Host) -> Iterator[Finding]:
    """net.ipv4.ip_forward and its like of IPv6."""
    if host.number("net/ipv4/ip_forward") == 0:
        text = "is 0: subscribers reach this host and nothing behind it"
        yield Finding("error", FORWARD, text, f"sysctl -w {FORWARD}=1")
    six = host.settings.ipv6
    gives = six.ipv6cp == "on" and six.pools
    if gives and host.number("net/ipv6/conf/all/disable_ipv6") == 1:
        key = "net.ipv6.conf.all.disable_ipv6"
        text = "is 1, and [[ipv6.pools]] give prefixes: no IPv6 at all"
        yield Finding("error", key, text, f"sysctl -w {key}=0")
    elif gives and host.number(f"{FORWARD6.replace('.', '/')}") == 0:
        text = "is 0, and [[ipv6.pools]] give prefixes: they lead nowhere"
        yield Finding("error", FORWARD6, text, f"sysctl -w {FORWARD6}=1")


def uplinks(host: Host) -> Iterator[Finding]:
    """rp_filter on several uplinks, on the side of TCP."""
    if len({uplink.name for uplink in host.uplinks}) < 2:
        return
    everywhere = host.number("net/ipv4/conf/all/rp_filter") or 0
    for name in sorted({uplink.name for uplink in host.uplinks}):
        here = host.number(f"net/ipv4/conf/{name}/rp_filter") or 0
        if max(everywhere, here) == STRICT:
            key = f"net.ipv4.conf.{name}.rp_filter"
            text = "is strict with several uplinks: TCP that comes by the other one is dropped"
            yield Finding("warning", key, text, f"sysctl -w {key}=2")
