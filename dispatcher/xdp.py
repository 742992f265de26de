"""AF_XDP sockets of the workers: frames, rings, the program that fills them. Linux, if_xdp.h.

All in copy mode, which every driver can do. A *unit* is one socket with its frames in a
memfd, which its worker maps too: frames to receive into, frames to send from, then the
worker's notes about both (fastpath/xdp.pxd). The keeper puts all receive frames into the
fill ring once; from then on they go round between kernel and worker. All of it stays open
here, so that a worker's successor finds rings and frames as they were left.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import socket
import struct
from dataclasses import dataclass, field
from typing import Any, Final

from dispatcher import bpf, descriptors, xdp_program

AF_XDP: Final = 44
SOL_XDP: Final = 283
XDP_MMAP_OFFSETS: Final = 1
XDP_RX_RING: Final = 2
XDP_TX_RING: Final = 3
XDP_UMEM_REG: Final = 4
XDP_UMEM_FILL_RING: Final = 5
XDP_UMEM_COMPLETION_RING: Final = 6
XDP_MAX_TX_SKB_BUDGET: Final = 9  # since 6.17: packets of one system call
XDP_COPY: Final = 1 << 1
PGOFF_FILL: Final = 0x100000000
SIOCGIFFLAGS: Final = 0x8913
SIOCGIFHWADDR: Final = 0x8927
ARPHRD_ETHER: Final = 1
IFF_UP: Final = 1

FRAME: Final = 2048
SEND_FRAMES: Final = 2048
STATE_SIZE: Final = 12288  # a unit's notes: fastpath/xdp.pxd, xsk_state
LEAST_FRAMES, MOST_FRAMES = 512, 16384
MAX_UNITS: Final = 32  # of a worker: fastpath/xdp.pxd, XSK_MAX
TX_BATCH: Final = 128
ROOM: Final = 256  # the kernel's before each frame it fills


class XdpError(Exception):
    """AF_XDP can't be had here; why, in a few words."""


@dataclass(frozen=True, slots=True)
class Device:
    """An Ethernet device."""

    name: str
    ifindex: int
    mac: bytes


@dataclass(slots=True)
class Unit:
    """One socket and its memory."""

    device: Device
    queue: int
    sock: socket.socket
    memory: int  # memfd
    receive_frames: int
    send_frames: int

    def told(self) -> dict[str, Any]:
        """What its worker has to know, as plain values."""
        return {
            "ifindex": self.device.ifindex,
            "mac": self.device.mac.hex(),
            "receive_frames": self.receive_frames,
            "send_frames": self.send_frames,
        }


@dataclass(slots=True)
class Xdp:
    """What is open, by worker; `mode`: how the program is attached, "" for sending only."""

    device: Device
    units: list[list[Unit]]
    mode: str = ""
    calls: int = -1
    kept: list[int] = field(default_factory=list)  # maps, program, link

    def close(self) -> None:
        """Detach and free everything."""
        for fd in self.kept:
            os.close(fd)
        self.kept = []
        for units in self.units:
            for unit in units:
                unit.sock.close()
                os.close(unit.memory)
        self.units = []


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


def open_all(
    where: Device, workers: int, *, receive: bool, send: bool, buffer: int, mode: str
) -> Xdp:
    """Sockets of all workers on a device.

    Receiving: one worker, all queues. `buffer`: octets of frames to receive into. Sending:
    worker n on queue n. `mode`: "native", "generic", or "auto" for native where the driver
    has it. XdpError: something is not to be had, and nothing is open.
    """
    made = Xdp(where, [[] for _ in range(workers)])
    try:
        if receive:
            if workers != 1:
                raise XdpError("the queues of a device can't be shared by several workers")
            _receive(made, send=send, buffer=buffer)
            made.mode = _attach(made, workers, mode)
        else:
            for worker in range(workers):
                made.units[worker].append(_unit(where, worker, 0, SEND_FRAMES))
    except OSError as e:
        made.close()
        raise XdpError(f"{where.name}: {e.strerror}") from None
    except BaseException:
        made.close()
        raise
    return made


def _receive(made: Xdp, *, send: bool, buffer: int) -> None:
    """A unit for each queue; the first one sends, too."""
    frames = LEAST_FRAMES
    while frames < MOST_FRAMES and frames * FRAME < buffer:
        frames *= 2
    for queue in range(MAX_UNITS):
        try:
            unit = _unit(made.device, queue, frames, SEND_FRAMES if send and queue == 0 else 0)
        except OSError as e:
            if queue and e.errno == errno.EINVAL:
                return  # there are no more
            raise
        made.units[0].append(unit)


def _unit(where: Device, queue: int, receive: int, send: int) -> Unit:
    memory = descriptors.memfd("xdp")
    sock = None
    try:
        frames = receive + send
        size = frames * FRAME
        os.ftruncate(memory, size + STATE_SIZE)
        _raise_memlock(size)
        sock = socket.socket(AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        descriptors._enlarge(
            sock, descriptors.SO_SNDBUFFORCE, socket.SO_SNDBUF, descriptors.SEND_BUFFER
        )
        _register(sock, memory, size)
        sock.setsockopt(SOL_XDP, XDP_UMEM_FILL_RING, _power(receive or 64))
        sock.setsockopt(SOL_XDP, XDP_UMEM_COMPLETION_RING, _power(send or 64))
        if receive:
            sock.setsockopt(SOL_XDP, XDP_RX_RING, _power(receive))
            _fill(sock, receive)
        if send:
            sock.setsockopt(SOL_XDP, XDP_TX_RING, _power(send))
            try:
                sock.setsockopt(SOL_XDP, XDP_MAX_TX_SKB_BUDGET, TX_BATCH)
            except OSError:
                pass  # 32 a call then
        _bind(sock, where.ifindex, queue)
        return Unit(where, queue, sock, memory, receive, send)
    except BaseException:
        os.close(memory)
        if sock is not None:
            sock.close()
        raise


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _raise_memlock(size: int) -> None:
    """Frames are pinned and count, where the keeper has no CAP_IPC_LOCK."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        if soft != resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft + size, max(hard, soft + size)))
    except (OSError, ValueError):
        pass  # the registration says whether it is enough


def _register(sock: socket.socket, memory: int, size: int) -> None:
    """The kernel pins the memfd's pages; our own view of them may go then."""
    with mmap.mmap(memory, size) as view:
        start = ctypes.c_char.from_buffer(view)
        try:
            at = ctypes.addressof(start)
            sock.setsockopt(SOL_XDP, XDP_UMEM_REG, struct.pack("=QQIIII", at, size, FRAME, 0, 0, 0))
        finally:
            del start


def _fill(sock: socket.socket, frames: int) -> None:
    """All frames to receive into go to the kernel."""
    offsets = struct.unpack("=16Q", sock.getsockopt(SOL_XDP, XDP_MMAP_OFFSETS, 128))
    producer, _consumer, entries, _flags = offsets[8:12]
    length = entries + 8 * _power(frames)
    with mmap.mmap(sock.fileno(), length, offset=PGOFF_FILL) as ring:
        struct.pack_into(f"={frames}Q", ring, entries, *range(0, frames * FRAME, FRAME))
        struct.pack_into("=I", ring, producer, frames)


def _bind(sock: socket.socket, ifindex: int, queue: int) -> None:
    address = struct.pack("=HHIII", AF_XDP, XDP_COPY, ifindex, queue, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(sock.fileno(), address, len(address)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"queue {queue}: {os.strerror(code)}")


def _attach(made: Xdp, workers: int, mode: str) -> str:
    """Maps, program and link; how it is attached."""
    units = [(worker, unit) for worker, own in enumerate(made.units) for unit in own]
    queues = 1 + max(unit.queue for _, unit in units)

    def keep(fd: int) -> int:
        made.kept.append(fd)
        return fd

    size = xdp_program.ENTRY_SIZE
    made.calls = keep(bpf.create_map(bpf.MAP_ARRAY, 4, size, xdp_program.CALLS, bpf.F_MMAPABLE))
    sockets = keep(bpf.create_map(bpf.MAP_XSK, 4, 4, queues * workers))
    for worker, unit in units:
        bpf.update(sockets, unit.queue * workers + worker, unit.sock.fileno())
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
