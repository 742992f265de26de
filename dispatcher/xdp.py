"""AF_XDP sockets of the workers on one device, and the program that fills them. Linux, if_xdp.h.

Receiving, each worker has a socket on each queue: the program knows whose a call is, the
device which queue its packets come by. Sending, each has one queue. How those on a queue share
its frames: umem.py.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass, field
from typing import Final

from dispatcher import bpf, umem, xdp_program
from dispatcher.umem import Device, Queue, Share, Unit

SIOCGIFFLAGS: Final = 0x8913
SIOCGIFHWADDR: Final = 0x8927
SIOCETHTOOL: Final = 0x8946
ETHTOOL_GCHANNELS: Final = 0x3C
ARPHRD_ETHER: Final = 1
IFF_UP: Final = 1
MAX_UNITS: Final = 32  # of a worker: fastpath/xdp.pxd, XSK_MAX


class XdpError(Exception):
    """AF_XDP can't be had here; why, in a few words."""


@dataclass(slots=True)
class Xdp:
    """What is open; `mode`: how the program is attached, "" for sending only."""

    device: Device
    queues: list[Queue] = field(default_factory=list)
    mode: str = ""
    calls: int = -1
    kept: list[int] = field(default_factory=list)  # maps, program, link

    def units(self, worker: int) -> list[Unit]:
        """Of one worker."""
        return [unit for queue in self.queues for unit in queue.units if unit.worker == worker]

    @property
    def sends(self) -> bool:
        """Whether anybody sends."""
        return any(queue.share.senders for queue in self.queues)

    def close(self) -> None:
        """Detach and free everything."""
        for fd in self.kept:
            os.close(fd)
        self.kept = []
        for queue in self.queues:
            queue.close()
        self.queues = []


def device(name: str) -> Device:
    """Look at a device; XdpError if it is no Ethernet or is down."""
    request = struct.pack("16s24x", name.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            flags = struct.unpack_from("=H", fcntl.ioctl(sock, SIOCGIFFLAGS, request), 16)[0]
            answer = fcntl.ioctl(sock, SIOCGIFHWADDR, request)
        except OSError as e:
            raise XdpError(f"{name}: {os.strerror(e.errno or 0)}") from None
    kind = struct.unpack_from("=H", answer, 16)[0]
    if kind != ARPHRD_ETHER:
        raise XdpError(f"{name} is no Ethernet device")
    if not flags & IFF_UP:
        raise XdpError(f"{name} is down")
    return Device(name, socket.if_nametoindex(name), answer[18:24])


def send_queues(name: str) -> int:
    """Queues that a device sends by; 1 if it does not tell. linux/ethtool.h."""
    room = create_string_buffer(struct.pack("=I", ETHTOOL_GCHANNELS), 36)
    request = struct.pack("=16sQ16x", name.encode(), addressof(room))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, SIOCETHTOOL, request)
        except OSError:
            return 1
    send, combined = map(int, struct.unpack("=24xI4xI", room.raw))
    return max(1, min(send + combined, MAX_UNITS))


def open_all(
    where: Device, workers: int, *, receive: bool, send: bool, buffer: int, mode: str
) -> Xdp:
    """Sockets of all workers on a device.

    Receiving: on all queues. `buffer`: octets of frames to receive into, of each worker and
    queue. Sending: worker n on queue n, and so on by turns. `mode`: "native", "generic", or
    "auto" for native where the driver has it. XdpError: something is not to be had, and nothing
    is open.
    """
    made = Xdp(where)
    queues = send_queues(where.name)
    try:
        for number in range(MAX_UNITS if receive else queues):
            senders = tuple(range(number, workers, queues)) if send and number < queues else ()
            split = umem.share(workers, buffer, senders) if receive else Share(workers, 0, senders)
            if not receive and not senders:
                break
            try:
                made.queues.append(umem.open_queue(where, number, split))
            except OSError as e:
                if number >= queues and e.errno == errno.EINVAL:
                    break  # there are no more
                raise
        if receive:
            made.mode = _attach(made, workers, mode)
    except OSError as e:
        made.close()
        raise XdpError(f"{where.name}: {e.strerror}") from None
    except BaseException:
        made.close()
        raise
    return made


def _attach(made: Xdp, workers: int, mode: str) -> str:
    """Maps, program and link; how it is attached."""

    def keep(fd: int) -> int:
        made.kept.append(fd)
        return fd

    size = xdp_program.ENTRY_SIZE
    made.calls = keep(bpf.create_map(bpf.MAP_ARRAY, 4, size, xdp_program.CALLS, bpf.F_MMAPABLE))
    sockets = keep(bpf.create_map(bpf.MAP_XSK, 4, 4, len(made.queues) * workers))
    for queue in made.queues:
        for unit in queue.units:
            bpf.update(sockets, queue.number * workers + unit.worker, unit.sock.fileno())
    program = keep(
        bpf.load_xdp(xdp_program.take(made.device.mac, made.calls, sockets, workers), "pptpcon_gre")
    )
    ways = {"native": bpf.XDP_FLAGS_DRV_MODE, "generic": bpf.XDP_FLAGS_SKB_MODE}
    last = OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    for name, flags in ways.items():
        if mode not in ("auto", name):
            continue
        try:
            keep(bpf.attach_xdp(program, made.device.ifindex, flags))
        except OSError as e:
            if e.errno in (errno.EBUSY, errno.EEXIST):
                raise XdpError(f"{made.device.name} has an XDP program of somebody else") from None
            last = e
            continue
        return name
    raise last
