"""Whether AF_XDP is for a device, where the configuration leaves it to us. linux/rtnetlink.h.

Chosen only where it was measured to be faster and takes nothing away: a program or a ring
goes past the device's queueing discipline and past whatever is hooked in at its ingress or
egress, and attaching a program makes some drivers lose their link for a moment.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
from collections.abc import Iterator
from ctypes import addressof, create_string_buffer
from struct import Struct
from typing import Final

from dispatcher import xdp

MEASURED: Final = frozenset({"veth"})  # drivers: tests/bench/RESULTS.md
MAPS: Final = (6, 4)  # since then a worker may map the rings of a socket that the keeper has bound
# Since then the kernel keeps apart what sockets that share a queue's frames do at once: before 6.15
# they may receive into each other's frames, and from 6.6 on lose some that were sent from.
SHARES: Final = (6, 18)
# Queueing disciplines that shape nothing and drop nothing while the device keeps up.
PLAIN: Final = frozenset({"noqueue", "pfifo_fast", "fq_codel", "fq", "mq", "pfifo", "bfifo"})
RTM_NEWQDISC, RTM_GETQDISC = 36, 38
NLM_F_DUMP: Final = 0x301
NLMSG_ERROR, NLMSG_DONE = 2, 3
TCA_KIND: Final = 1
ETHTOOL_GDRVINFO: Final = 3
DRVINFO_SIZE: Final = 196
NLMSG: Final = Struct("=IHHII")
TCMSG: Final = Struct("=BBHiIII")
ATTRIBUTE: Final = Struct("=HH")


def driver(name: str) -> str:
    """The driver's name; "" if the device does not tell."""
    room = create_string_buffer(struct.pack("=I", ETHTOOL_GDRVINFO), DRVINFO_SIZE)
    request = struct.pack("=16sQ16x", name.encode(), addressof(room))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, xdp.SIOCETHTOOL, request)
        except OSError:
            return ""
    return room.raw[4:36].split(b"\0")[0].decode("ascii", "replace")


def disciplines(ifindex: int) -> list[str]:
    """Kinds of all queueing disciplines of a device, classless ones and hooks included."""
    found: list[str] = []
    request = NLMSG.pack(NLMSG.size + TCMSG.size, RTM_GETQDISC, NLM_F_DUMP, 0, 0)
    request += TCMSG.pack(0, 0, 0, ifindex, 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as sock:
        sock.settimeout(2.0)
        sock.send(request)
        while True:
            for kind, body in _messages(sock.recv(65536)):
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    return found
                if kind == RTM_NEWQDISC and TCMSG.unpack_from(body)[3] == ifindex:
                    found.append(_kind(body[TCMSG.size :]))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= NLMSG.size:
        length, kind, *_ = NLMSG.unpack_from(data)
        if not NLMSG.size <= length <= len(data):
            return
        yield kind, data[NLMSG.size : length]
        data = data[(length + 3) & ~3 :]


def _kind(data: bytes) -> str:
    while len(data) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(data)
        if not ATTRIBUTE.size <= length <= len(data):
            break
        if kind == TCA_KIND:
            return data[ATTRIBUTE.size : length].split(b"\0")[0].decode("ascii", "replace")
        data = data[(length + 3) & ~3 :]
    return "?"


def kernel() -> tuple[int, int]:
    """Its version; (0, 0) if it can't be told."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def why_not_on(name: str, workers: int) -> str:
    """What speaks against AF_XDP on the device of gre.interface; "" if nothing."""
    if not name:
        return "gre.interface is not set"
    try:
        where = xdp.device(name)
    except xdp.XdpError as e:
        return str(e)
    kind = driver(name)
    if kind not in MEASURED:
        return f'not measured with driver {kind or "unknown"}: try gre.mode and gre.send = "xdp"'
    if kernel() < MAPS:
        return f"workers can map its rings since Linux {MAPS[0]}.{MAPS[1]}"
    if workers > 1 and kernel() < SHARES:
        return f"several workers share a queue well since Linux {SHARES[0]}.{SHARES[1]}"
    try:
        kinds = disciplines(where.ifindex)
    except OSError as e:
        return f"queueing disciplines can't be read: {os.strerror(e.errno or 0)}"
    odd = sorted(set(kinds) - PLAIN)
    if odd:
        return f"it would go past tc qdisc {', '.join(odd)}"
    return ""


def attach_mode(name: str) -> str:
    """By the driver where it can, except where that is known to be the slower one."""
    return "generic" if driver(name) in MEASURED else "auto"
