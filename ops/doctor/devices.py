"""What the kernel and the system must have: TUN, packet sockets, libnftables, the user."""

from __future__ import annotations

import os
import pwd
import socket
import sys
from collections.abc import Iterator

from dispatcher import nft
from ops.doctor.finding import Finding
from ops.doctor.host import Host


def look(host: Host) -> Iterator[Finding]:
    """Devices, socket kinds, libraries."""
    tun = host.dev / "net/tun"
    if not tun.exists():
        text = "is missing: subscribers have no network device"
        yield Finding("error", str(tun), text, "modprobe tun (in a container: pass it through)")
    elif not os.access(tun, os.R_OK | os.W_OK):
        yield Finding("error" if host.root else "note", str(tun), "can't be opened by this user")
    if host.root:
        try:
            socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0).close()
        except OSError as e:
            text = f"can't be had ({os.strerror(e.errno or 0)}): raw ones serve, at twice the cost"
            yield Finding("warning", "packet sockets", text, "modprobe af_packet; CAP_NET_RAW")
    if not nft.available():
        text = "is not there: the kernel looks at each GRE packet once more"
        yield Finding("warning", "libnftables", text, f"apt install {nft.PACKAGE}")
    user = host.settings.server.user
    try:
        pwd.getpwnam(user)
    except KeyError:
        text = f"server.user: this host has no user {user}"
        yield Finding("error", "users", text, f"useradd -r {user}")
    if sys.byteorder != "little":
        yield Finding("error", "processor", "is big-endian, which the data path does not speak")
