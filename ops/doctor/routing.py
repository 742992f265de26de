"""Uplinks: MTU, and what makes packet sockets give way to raw ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ops.doctor.finding import Finding
from ops.doctor.host import Host

# Outer IPv4 20, GRE with both numbers 16, PPP ff03 and protocol 4, MPPE 2 and protocol 2.
OVERHEAD: Final = 44


def look(host: Host) -> Iterator[Finding]:
    """Default routes, routing rules, IPsec policies."""
    mtu = host.settings.ppp.mtu
    packet = host.settings.gre.send != "raw"
    if not host.uplinks:
        yield Finding("note", "routes", "there is no IPv4 default route")
    for uplink in dict.fromkeys(host.uplinks):
        if mtu + OVERHEAD > uplink.mtu:
            text = f"ppp.mtu {mtu} and {OVERHEAD} of headers are more than its MTU {uplink.mtu}: "
            text += "full packets go in fragments"
            fits = max(576, uplink.mtu - OVERHEAD)
            yield Finding("warning", f"device {uplink.name}", text, f"set ppp.mtu = {fits}")
    if packet and any(uplink.many for uplink in host.uplinks):
        text = "has several ways: GRE is sent by raw sockets, so that the kernel can choose"
        yield Finding("note", "default route", text)
    if packet and host.rules:
        text = f"{host.rules} of your own: GRE is sent by raw sockets, which obey them"
        yield Finding("note", "ip rule", text)
    if host.ipsec and host.settings.gre.send in ("packet", "xdp"):
        text = "there are policies, and packet sockets pass them by: GRE leaves without IPsec"
        yield Finding("error", "ip xfrm policy", text, 'set gre.send = "auto"')
    elif host.ipsec and packet:
        text = "there are policies: GRE is sent by raw sockets, which obey them"
        yield Finding("note", "ip xfrm policy", text)
