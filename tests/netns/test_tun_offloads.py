"""A TUN on kernels without UDP segmentation (before 6.2) or without any: what is asked for
less is done by the kernel, and nothing is lost. Here the refusal is forced."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from typing import Any, Final

import pytest

from dispatcher import descriptors
from dispatcher.descriptors import Tun
from tests.netns.spaces import Space, wait_for

pytestmark = pytest.mark.netns

UDP_SEGMENT: Final = 103  # linux/udp.h
GSO_UDP_L4: Final = 5  # linux/virtio_net.h
PORT: Final = 7000
STEP: Final = 1000
USO: Final = descriptors.TUN_F_USO4 | descriptors.TUN_F_USO6


def older_kernel(known: int) -> Any:
    """ioctl() of a kernel that knows these offloads and refuses a set with any other."""
    ioctl = fcntl.ioctl

    def refuse(fd: int, request: int, argument: Any = 0) -> Any:
        if request == descriptors.TUNSETOFFLOAD and argument & ~known:
            raise OSError(errno.EINVAL, "refused")
        return ioctl(fd, request, argument)

    return refuse


def tun_of(space: Space, known: int, monkeypatch: pytest.MonkeyPatch) -> Tun:
    """A TUN that is up, with a route to 192.0.2.0/24 through it."""
    with monkeypatch.context() as patch, space.inside():
        patch.setattr(fcntl, "ioctl", older_kernel(known))
        tun = descriptors.tun(0)
    space.sh(f"ip link set {tun.name} up && ip route add 192.0.2.0/24 dev {tun.name}")
    space.sh("ip addr add 198.51.100.1/32 dev lo")
    return tun


def read(fd: int) -> bytes:
    """What the device hands over next, or nothing."""
    try:
        return os.read(fd, 70000)
    except BlockingIOError:
        return b""


def datagrams(tun: Tun, count: int) -> list[bytes]:
    """Read until `count` UDP packets came; only those to PORT."""
    found: list[bytes] = []

    def enough() -> bool:
        while data := read(tun.fd):
            ip = data[descriptors.VNET_HEADER :]
            if ip[0] == 0x45 and ip[9] == socket.IPPROTO_UDP:
                found.append(data)
        return len(found) >= count

    wait_for(enough, 5)
    return found


def send_super_packet(space: Space, segments: int) -> bytes:
    """One send() that is `segments` datagrams; the octets of all."""
    payload = bytes(range(256)) * (segments * STEP // 256 + 1)
    payload = payload[: segments * STEP]
    with space.inside():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, STEP)
        sock.sendto(payload, ("192.0.2.9", PORT))
    return payload


@pytest.mark.parametrize(
    ("known", "names"),
    [
        (descriptors.TUN_F_CSUM | descriptors.TUN_F_TSO4 | descriptors.TUN_F_TSO6, "tso4 tso6"),
        (0, ""),
    ],
)
def test_without_udp_segmentation_the_kernel_does_it(
    space: Space, monkeypatch: pytest.MonkeyPatch, known: int, names: str
) -> None:
    tun = tun_of(space, known, monkeypatch)
    try:
        assert tun.segmentation == tuple(names.split())
        sent = send_super_packet(space, 5)
        got = datagrams(tun, 5)
    finally:
        os.close(tun.fd)
    assert len(got) == 5
    assert [data[1] for data in got] == [0] * 5  # no gso_type: each is whole
    assert b"".join(data[descriptors.VNET_HEADER + 28 :] for data in got) == sent


def test_with_udp_segmentation_it_comes_in_one(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    tun = tun_of(space, ~0, monkeypatch)
    try:
        if "uso4" not in tun.segmentation:
            pytest.skip("this kernel has no UDP segmentation for TUN")
        sent = send_super_packet(space, 5)
        (data,) = datagrams(tun, 1)
    finally:
        os.close(tun.fd)
    assert data[1] == GSO_UDP_L4
    assert struct.unpack_from("<H", data, 4)[0] == STEP
    assert data[descriptors.VNET_HEADER + 28 :] == sent
