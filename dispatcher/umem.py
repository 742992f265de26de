"""Frames of a device's queue and the AF_XDP sockets that share them. Linux, if_xdp.h.

All in copy mode, which every driver can do. A queue has one memfd, which its workers map, too:
frames to receive into, frames to send from, then two locks and the workers' notes about what
they have in hand (fastpath/umem.pxd). The queue's first socket registers it; it has the fill
and the completion ring, which all of them use. Each worker's *unit* is a socket of its own,
with its own receive and send ring. The keeper puts all receive frames into the fill ring once;
from then on they go round between kernel and workers. All of it stays open here, so that a
worker's successor finds rings and frames as they were left.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import socket
import struct
from dataclasses import dataclass, field
from typing import Any, Final

from dispatcher import descriptors

AF_XDP: Final = 44
SOL_XDP: Final = 283
XDP_MMAP_OFFSETS: Final = 1
XDP_RX_RING: Final = 2
XDP_TX_RING: Final = 3
XDP_UMEM_REG: Final = 4
XDP_UMEM_FILL_RING: Final = 5
XDP_UMEM_COMPLETION_RING: Final = 6
XDP_MAX_TX_SKB_BUDGET: Final = 9  # since 6.17: packets of one system call
XDP_SHARED_UMEM: Final = 1 << 0
XDP_COPY: Final = 1 << 1
PGOFF_FILL: Final = 0x100000000
PROCESS_SHARED: Final = 1  # pthread.h
ROBUST: Final = 1

FRAME: Final = 2048
SEND_FRAMES: Final = 2048  # of each sender
LEAST_FRAMES, MOST_FRAMES = 512, 16384  # to receive into: of a worker, of a queue
LOCK_SIZE: Final = 64
PAGE_SIZE: Final = 192  # fastpath/umem.pxd: umem_page,
NOTES_SIZE: Final = 8320  # umem_notes
TX_BATCH: Final = 128


@dataclass(frozen=True, slots=True)
class Device:
    """An Ethernet device."""

    name: str
    ifindex: int
    mac: bytes


@dataclass(frozen=True, slots=True)
class Share:
    """How a queue's frames are divided."""

    workers: int  # that may have a unit here
    ring: int = 0  # packets that may wait for one of them; 0: nothing is received here
    senders: tuple[int, ...] = ()  # workers that send from here

    @property
    def frames(self) -> int:
        """To receive into, of all. As many as wait in all rings: a worker that stands still keeps
        those of its own ring, and what comes for it then is dropped there, not others'."""
        return self.ring * power(self.workers)

    @property
    def size(self) -> int:
        """Octets of all frames."""
        return (self.frames + len(self.senders) * SEND_FRAMES) * FRAME

    @property
    def memory(self) -> int:
        """Octets with locks and notes."""
        notes = self.workers * NOTES_SIZE + len(self.senders) * SEND_FRAMES
        return self.size + PAGE_SIZE + notes


def share(workers: int, buffer: int, senders: tuple[int, ...]) -> Share:
    """For receiving: `buffer` octets for each worker, within limits of a worker and a queue."""
    most = max(MOST_FRAMES // power(workers), 1)
    ring = min(LEAST_FRAMES, most)
    while ring < most and ring * FRAME < buffer:
        ring *= 2
    return Share(workers, ring, senders)


@dataclass(slots=True)
class Unit:
    """One worker's socket on a queue."""

    queue: Queue
    worker: int
    sock: socket.socket

    @property
    def sends(self) -> bool:
        """Whether its worker sends from here."""
        return self.worker in self.queue.share.senders

    def told(self) -> dict[str, Any]:
        """What its worker has to know, as plain values: fastpath/xdp.pyx, xdp_add."""
        split = self.queue.share
        return {
            "ifindex": self.queue.device.ifindex,
            "mac": self.queue.device.mac.hex(),
            "frames": split.frames,
            "ring": split.ring,
            "senders": len(split.senders),
            "place": split.senders.index(self.worker) if self.sends else len(split.senders),
            "workers": split.workers,
        }


@dataclass(slots=True)
class Queue:
    """What is open of a queue."""

    device: Device
    number: int
    share: Share
    memory: int  # memfd
    units: list[Unit] = field(default_factory=list)

    def close(self) -> None:
        """Give all back."""
        for unit in self.units:
            unit.sock.close()
        os.close(self.memory)


def open_queue(device: Device, number: int, split: Share) -> Queue:
    """Sockets of all workers that have something to do on a queue; OSError: nothing is open."""
    memory = descriptors.memfd("xdp")
    made = Queue(device, number, split, memory)
    try:
        os.ftruncate(memory, split.memory)
        _locks(memory, split)
        _raise_memlock(split.size)
        for worker in range(split.workers) if split.ring else split.senders:
            made.units.append(Unit(made, worker, _socket(made, worker)))
        if made.units:
            _see_that_others_can_map(made.units[0].sock)
    except BaseException:
        made.close()
        raise
    return made


def _socket(queue: Queue, worker: int) -> socket.socket:
    split = queue.share
    first = queue.units[0].sock.fileno() if queue.units else -1
    sock = socket.socket(AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        descriptors._enlarge(
            sock, descriptors.SO_SNDBUFFORCE, socket.SO_SNDBUF, descriptors.SEND_BUFFER
        )
        if first < 0:
            _register(sock, queue.memory, split.size)
            done = len(split.senders) * SEND_FRAMES
            sock.setsockopt(SOL_XDP, XDP_UMEM_FILL_RING, power(split.frames or 64))
            sock.setsockopt(SOL_XDP, XDP_UMEM_COMPLETION_RING, power(done or 64))
            if split.ring:
                _fill(sock, split.frames)
        if split.ring:
            sock.setsockopt(SOL_XDP, XDP_RX_RING, split.ring)
        if worker in split.senders:
            sock.setsockopt(SOL_XDP, XDP_TX_RING, SEND_FRAMES)
            try:
                sock.setsockopt(SOL_XDP, XDP_MAX_TX_SKB_BUDGET, TX_BATCH)
            except OSError:
                pass  # 32 a call then
        _bind(sock, queue, first)
    except BaseException:
        sock.close()
        raise
    return sock


def _see_that_others_can_map(bound: socket.socket) -> None:
    """Workers map what we have bound, and so do their successors; before Linux 6.4 nobody may."""
    try:
        mmap.mmap(bound.fileno(), mmap.PAGESIZE, offset=PGOFF_FILL).close()
    except OSError as e:
        if e.errno != errno.EBUSY:
            raise
        why = "this kernel lets nobody map a bound socket's rings; Linux 6.4 and later do"
        raise OSError(errno.EBUSY, why) from None


def power(n: int) -> int:
    """The power of two that is not less."""
    return 1 << (n - 1).bit_length()


def _locks(memory: int, split: Share) -> None:
    """Robust mutexes that processes share: who gets one is told if its last owner died."""
    libc = ctypes.CDLL(None)
    kind = ctypes.create_string_buffer(LOCK_SIZE)
    libc.pthread_mutexattr_init(kind)
    libc.pthread_mutexattr_setpshared(kind, PROCESS_SHARED)
    libc.pthread_mutexattr_setrobust(kind, ROBUST)
    with mmap.mmap(memory, split.memory) as view:
        for at in (split.size, split.size + LOCK_SIZE):
            start = ctypes.c_char.from_buffer(view, at)
            try:
                code = libc.pthread_mutex_init(ctypes.byref(start), kind)
            finally:
                del start
            if code:
                raise OSError(code, os.strerror(code))


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
    length = entries + 8 * power(frames)
    with mmap.mmap(sock.fileno(), length, offset=PGOFF_FILL) as ring:
        struct.pack_into(f"={frames}Q", ring, entries, *range(0, frames * FRAME, FRAME))
        struct.pack_into("=I", ring, producer, frames)


def _bind(sock: socket.socket, queue: Queue, first: int) -> None:
    """`first`: socket whose frames and rings it shares; -1: it has them itself."""
    where = queue.device.ifindex, queue.number
    if first < 0:
        address = struct.pack("=HHIII", AF_XDP, XDP_COPY, *where, 0)
    else:
        address = struct.pack("=HHIII", AF_XDP, XDP_SHARED_UMEM, *where, first)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(sock.fileno(), address, len(address)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"queue {queue.number}: {os.strerror(code)}")
