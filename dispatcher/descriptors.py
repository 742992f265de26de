"""Opening what needs privilege: the TCP listener, TUN devices, GRE sockets, memfds.

Every function returns a descriptor or socket that its caller owns; nothing is
remembered here. Stdlib only: constants that Python lacks are spelled out.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dispatcher import filters
from dispatcher.filters import Program

# linux/if_tun.h
TUNSETIFF: Final = 0x400454CA
TUNSETOFFLOAD: Final = 0x400454D0
TUNSETVNETHDRSZ: Final = 0x400454D8
IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000
IFF_TUN_EXCL: Final = 0x8000
TUN_F_CSUM: Final = 0x01
TUN_F_TSO4: Final = 0x02
TUN_F_TSO6: Final = 0x04
TUN_F_USO4: Final = 0x20
TUN_F_USO6: Final = 0x40
VNET_HEADER: Final = 10  # struct virtio_net_hdr without num_buffers

# asm-generic/socket.h, linux/if_packet.h, linux/in.h
SO_ATTACH_FILTER: Final = 26
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33
SO_LOCK_FILTER: Final = 44
SOL_PACKET: Final = 263
PACKET_FANOUT: Final = 18
PACKET_FANOUT_DATA: Final = 22
PACKET_IGNORE_OUTGOING: Final = 23
FANOUT_CBPF: Final = 6
FANOUT_UNIQUEID: Final = 0x2000
FANOUT_DEFRAG: Final = 0x8000
ETH_P_IP: Final = 0x0800
NETLINK_XFRM: Final = 6
XFRM_MSG_NEWPOLICY, XFRM_MSG_GETPOLICY = 0x13, 0x15
NLM_F_DUMP: Final = 0x301  # request and dump
IPPROTO_GRE: Final = 47
IP_MTU_DISCOVER: Final = 10
IP_PMTUDISC_DONT: Final = 0

TUN_PREFIX: Final = "pptp"
TUN_NAMES: Final = 1024
SEND_BUFFER: Final = 4 << 20


class UnavailableError(Exception):
    """Something this host must have is missing or taken; says what mends it (exit 69)."""


class _SockFprog(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def _set_program(sock: socket.socket, level: int, option: int, program: Program) -> None:
    code = filters.pack(program)
    buffer = ctypes.create_string_buffer(code, len(code))
    fprog = _SockFprog(len(program), ctypes.addressof(buffer))
    sock.setsockopt(level, option, bytes(fprog))


def attach(sock: socket.socket, program: Program) -> None:
    """Set or replace the socket's filter."""
    _set_program(sock, socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def _enlarge(sock: socket.socket, force: int, option: int, octets: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, octets)
    except OSError:  # without CAP_NET_ADMIN in the first namespace: as much as is allowed
        sock.setsockopt(socket.SOL_SOCKET, option, octets)


def listener(address: str, port: int, backlog: int) -> socket.socket:
    """The TCP listener, bound and listening. OSError as the kernel gave it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


@dataclass(frozen=True, slots=True)
class Tun:
    """A TUN device and the descriptor that keeps it alive."""

    fd: int
    name: str
    ifindex: int
    segmentation: tuple[str, ...]  # what the kernel may hand over as one super-packet


def _open_tun() -> int:
    try:
        return os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise UnavailableError(
            "/dev/net/tun is missing: run `modprobe tun` (in a container: pass the device "
            "/dev/net/tun through)"
        ) from None
    except OSError as e:
        raise UnavailableError(
            f"/dev/net/tun can't be opened ({os.strerror(e.errno or 0)}): run `modprobe tun`, "
            "or allow the device if this is a container"
        ) from None


def tun(first: int) -> Tun:
    """A new TUN under the first free name pptpN, N from `first` on, with the virtio header."""
    fd = _open_tun()
    try:
        flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL
        for number in range(first, TUN_NAMES):
            name = f"{TUN_PREFIX}{number}"
            try:
                fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
                break
            except OSError as e:
                if e.errno not in (errno.EBUSY, errno.EEXIST, errno.EINVAL):
                    raise
        else:
            raise UnavailableError(
                f"no free device name {TUN_PREFIX}0 to {TUN_PREFIX}{TUN_NAMES - 1}"
            )
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER))
        segmentation = _offload(fd)
        return Tun(fd, name, socket.if_nametoindex(name), segmentation)
    except BaseException:
        os.close(fd)
        raise


def _offload(fd: int) -> tuple[str, ...]:
    tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
    # Kernels before 6.2 know no UDP segmentation and refuse the whole set.
    for flags, names in (
        (tcp | TUN_F_USO4 | TUN_F_USO6, ("tso4", "tso6", "uso4", "uso6")),
        (tcp, ("tso4", "tso6")),
        (0, ()),
    ):
        try:
            fcntl.ioctl(fd, TUNSETOFFLOAD, flags)
        except OSError:
            continue
        return names
    return ()


def _bind(sock: socket.socket, interface: int) -> None:
    """Bind a packet socket to IPv4 of an interface, or of all (0): socket.bind wants a name."""
    address = struct.pack("=HHiHBB8x", socket.AF_PACKET, socket.htons(ETH_P_IP), interface, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(sock.fileno(), address, len(address)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bind of a packet socket: {os.strerror(code)}")


def gre_fanout(
    workers: int,
    own_tuns: Sequence[int],
    *,
    address: int,
    receive_buffer: int,
    interface: int = 0,
) -> list[socket.socket]:
    """The packet sockets of a concentrator; place in the list = worker."""
    program = filters.accept(own_tuns, address=address)
    return gre_packets(workers, program, receive_buffer, interface)


def gre_packets(
    count: int, program: Program, receive_buffer: int, interface: int = 0
) -> list[socket.socket]:
    """AF_PACKET sockets, all in one fanout group that spreads by call ID.

    Those of all interfaces (0) are shown every IPv4 packet that comes in anywhere. Newer
    kernels (seen on 6.18) show it to them after IP has it: it is shared then, so IP clones
    and copies it, which costs whatever is forwarded 0.5 us. One interface's are not asked
    about the others'.

    The group numbers its members in the order they join and renumbers them when one
    leaves, so the caller keeps them all open for as long as it lives.
    """
    group: int | None = None  # 0 is a number like any other: the first after a boot
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            # Protocol 0: not hooked in yet. Nothing passes before the group is joined.
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            sockets.append(sock)
            attach(sock, filters.NOTHING)
            sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            _enlarge(sock, SO_RCVBUFFORCE, socket.SO_RCVBUF, receive_buffer)
            _bind(sock, interface)
            kind = FANOUT_CBPF | FANOUT_DEFRAG | (FANOUT_UNIQUEID if group is None else 0)
            sock.setsockopt(SOL_PACKET, PACKET_FANOUT, struct.pack("=I", (group or 0) | kind << 16))
            if group is None:
                group = sock.getsockopt(SOL_PACKET, PACKET_FANOUT) & 0xFFFF
            sock.setblocking(False)
        _set_program(sockets[0], SOL_PACKET, PACKET_FANOUT_DATA, filters.spread(count))
        for sock in sockets:
            attach(sock, program)
            sock.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def gre_raw(program: Program, *, receive_buffer: int = 0) -> socket.socket:
    """A raw GRE socket that receives what `program` takes, and sends with our IP header.

    Fragmentation is left to routers (no DF): a subscriber's packet with both headers
    may be larger than the path, and his client never learns of an ICMP sent to us.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, IPPROTO_GRE)
    try:
        attach(sock, program)
        sock.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        _enlarge(sock, SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER)
        if receive_buffer:
            _enlarge(sock, SO_RCVBUFFORCE, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        # A packet may have come between creation and filter: it is not ours to judge.
        while True:
            try:
                sock.recv(1)
            except OSError:
                break
    except BaseException:
        sock.close()
        raise
    return sock


def packet_sender() -> socket.socket:
    """A packet socket that only sends: IPv4 in, the link's header made by the kernel."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    _enlarge(sock, SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER)
    sock.setblocking(False)
    return sock


def ipsec_policies() -> bool:
    """True if this namespace has an IPsec policy (XFRM_MSG_GETPOLICY, linux/xfrm.h)."""
    header = struct.Struct("=IHHII")
    request = header.pack(header.size + 64, XFRM_MSG_GETPOLICY, NLM_F_DUMP, 0, 0) + bytes(64)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM) as sock:
            sock.settimeout(1.0)
            sock.send(request)
            kind: int = header.unpack_from(sock.recv(65536))[1]
            return kind == XFRM_MSG_NEWPOLICY
    except OSError:
        return False  # a kernel without XFRM has no policies


def memfd(name: str) -> int:
    """An empty memfd that can be sealed."""
    return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def seal(fd: int) -> None:
    """Nobody may change the memfd any more, us included."""
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)


def read_only(fd: int) -> int:
    """A second descriptor of a memfd, through which it can't be written."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
