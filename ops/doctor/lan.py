"""Proxy ARP and NDP, and what runs for sessions: does the kernel and the host let them work?"""

from __future__ import annotations

import os
from collections.abc import Iterator

from dispatcher import nft
from ops.doctor.finding import Finding
from ops.doctor.host import Host

STRICT = 1


def look(host: Host) -> Iterator[Finding]:
    """Sysctls of lan.interface; libnftables; programs of [hooks]; files of [records]."""
    lan = host.settings.lan
    if lan.proxy == "on":
        yield from _proxies(host, lan.interface)
    if lan.isolate and not nft.available():
        text = "is set, and libnftables is missing: the service does not start"
        yield Finding("error", "lan.isolate", text, f"apt install {nft.PACKAGE}")
    hooks = host.settings.hooks
    for key in ("ip_up", "ip_down", "ip_change", "auth_up", "auth_down"):
        path = getattr(hooks, key)
        if path and not (os.path.isfile(path) and os.access(path, os.X_OK)):
            text = f"{path} is no program that can be run"
            yield Finding("error", f"hooks.{key}", text, f"chmod 755 {path}")
    records = host.settings.records
    for key in ("utmp", "wtmp"):
        path = getattr(records, key)
        if path and not os.path.exists(path):
            text = f"{path} is not there, and is not made by us"
            mend = f"install -m 664 -g utmp /dev/null {path}"
            yield Finding("warning", f"records.{key}", text, mend)


def _proxies(host: Host, name: str) -> Iterator[Finding]:
    if not name:
        text = "is empty: entries go where the longest route leads; the log names the interface"
        yield Finding("note", "lan.interface", text)
        return
    if host.number(f"net/ipv4/conf/{name}/rp_filter") is None:
        text = f"there is no interface {name}"
        yield Finding("error", "lan.interface", text, "ip link")
        return
    key = f"net.ipv4.conf.{name}.forwarding"
    if host.number(key.replace(".", "/")) == 0:
        text = "is 0: the kernel answers no ARP for subscribers there"
        yield Finding("error", key, text, f"sysctl -w {key}=1")
    if host.settings.ipv6.ipv6cp == "on":
        for key, why in (
            (f"net.ipv6.conf.{name}.proxy_ndp", "no neighbour solicitation is answered"),
            ("net.ipv6.conf.all.forwarding", "IPv6 is not forwarded, and NDP not answered"),
        ):
            if host.number(key.replace(".", "/")) == 0:
                yield Finding("error", key, f"is 0: {why}", f"sysctl -w {key}=1")
