"""GRE sockets on a real wire: which worker gets what, and what nobody gets."""

from __future__ import annotations

import itertools
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dispatcher import descriptors, filters
from tests.netns.spaces import Space, enhanced, received

pytestmark = pytest.mark.netns

WORKERS = 3
PORT = 7000  # any: for datagrams that are no GRE


@contextmanager
def wire(space: Space, protocol: int = 47) -> Iterator[socket.socket]:
    """A raw socket that sends to 192.0.2.2 from `space`."""
    with space.inside():
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    sock.connect(("192.0.2.2", 0))
    try:
        yield sock
    finally:
        sock.close()


@pytest.fixture(params=["packet", "raw"])
def sockets(request: pytest.FixtureRequest, pair: tuple[Space, Space]) -> list[socket.socket]:
    """One receiving socket per worker in the server's namespace, in either mode."""
    with pair[1].inside():
        if request.param == "packet":
            return descriptors.gre_fanout(WORKERS, [], address=0, receive_buffer=1 << 20)
        return [
            descriptors.gre_raw(
                filters.accept([], bucket=(worker, WORKERS)), receive_buffer=1 << 20
            )
            for worker in range(WORKERS)
        ]


def call_ids(packets: list[bytes]) -> list[int]:
    """Of IPv4 packets that carry enhanced GRE."""
    return [struct.unpack_from(">H", packet, 4 * (packet[0] & 15) + 6)[0] for packet in packets]


def test_call_id_names_the_worker(pair: tuple[Space, Space], sockets: list[socket.socket]) -> None:
    sent = [*range(1, 130), 0x7FC0, 0xFFFF]
    with wire(pair[0]) as out:
        for call_id in sent:
            out.send(enhanced(call_id))
    for worker, sock in enumerate(sockets):
        expected = [call_id for call_id in sent if call_id % 64 % WORKERS == worker]
        assert call_ids(received(sock)) == expected


class FreshlyBooted(socket.socket):
    """A socket of a kernel that has given out no fanout group yet: the first is number 0."""

    groups = itertools.count()

    def setsockopt(self, level: int, option: int, value: Any) -> None:  # type: ignore[override]
        """The kernel's own choice of a group made here, by number."""
        if (level, option) == (descriptors.SOL_PACKET, descriptors.PACKET_FANOUT):
            (wish,) = struct.unpack("=I", value)
            if wish >> 16 & descriptors.FANOUT_UNIQUEID:
                wish = wish & ~(descriptors.FANOUT_UNIQUEID << 16) | next(self.groups)
                value = struct.pack("=I", wish)
        super().setsockopt(level, option, value)


def test_the_first_fanout_group_after_a_boot_is_one_group(
    pair: tuple[Space, Space], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FreshlyBooted, "groups", itertools.count())
    with pair[1].inside(), monkeypatch.context() as patch:
        patch.setattr(socket, "socket", FreshlyBooted)
        made = descriptors.gre_fanout(WORKERS, [], address=0, receive_buffer=1 << 20)
    with wire(pair[0]) as out:
        for call_id in range(64):
            out.send(enhanced(call_id))
    for worker, sock in enumerate(made):
        assert call_ids(received(sock)) == [i for i in range(64) if i % WORKERS == worker]


def test_ip_options_do_not_confuse(pair: tuple[Space, Space], sockets: list[socket.socket]) -> None:
    with wire(pair[0]) as out:
        out.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01" * 8)
        for call_id in range(64):
            out.send(enhanced(call_id))
    for worker, sock in enumerate(sockets):
        packets = received(sock)
        assert all(packet[0] == 0x47 for packet in packets)
        assert call_ids(packets) == [i for i in range(64) if i % WORKERS == worker]


def test_fragments_arrive_as_one_packet_at_the_right_worker(
    pair: tuple[Space, Space], sockets: list[socket.socket]
) -> None:
    payload = os.urandom(4000)
    with wire(pair[0]) as out:
        out.setsockopt(socket.IPPROTO_IP, descriptors.IP_MTU_DISCOVER, 0)
        for call_id in range(1, 13):
            out.send(enhanced(call_id, payload))
    for worker, sock in enumerate(sockets):
        packets = received(sock)
        assert call_ids(packets) == [i for i in range(1, 13) if i % WORKERS == worker]
        assert all(packet.endswith(payload) for packet in packets)


NOT_OURS = {
    "plain GRE, version 0": struct.pack(">BBH", 0x00, 0x00, 0x0800) + b"x" * 40,
    "GRE with a key, version 0": struct.pack(">BBHL", 0x20, 0x00, 0x0800, 7) + b"x" * 40,
    "version 1 of something else": struct.pack(">BBHHH", 0x30, 0x01, 0x0800, 4, 1) + b"x" * 40,
    "version 2": struct.pack(">BBHHH", 0x30, 0x02, 0x880B, 4, 1) + b"x" * 40,
    "cut short": b"\x30\x01\x88",
    "empty": b"",
}


@pytest.mark.parametrize("name", NOT_OURS)
def test_other_gre_reaches_no_worker(
    name: str, pair: tuple[Space, Space], sockets: list[socket.socket]
) -> None:
    with wire(pair[0]) as out:
        out.send(NOT_OURS[name])
        out.send(enhanced(3))
    assert [call_ids(received(sock, 0.05)) for sock in sockets] == [[3], [], []]


def test_other_protocols_reach_no_worker(
    pair: tuple[Space, Space], sockets: list[socket.socket]
) -> None:
    with wire(pair[0], socket.IPPROTO_UDP) as out:
        out.send(enhanced(1) + b"x" * 20)
    with wire(pair[0], socket.IPPROTO_TCP) as out:
        out.send(enhanced(2) + b"x" * 40)
    assert [received(sock, 0.05) for sock in sockets] == [[], [], []]


def test_only_the_served_address(pair: tuple[Space, Space]) -> None:
    client, server = pair
    server.sh("ip addr add 192.0.2.77/32 dev lo")
    client.sh("ip route add 192.0.2.77 via 192.0.2.2")
    with server.inside():
        (sock,) = descriptors.gre_fanout(1, [], address=0xC0000202, receive_buffer=1 << 20)
    with wire(client) as out:
        out.sendto(enhanced(1), ("192.0.2.77", 0))
        out.sendto(enhanced(2), ("192.0.2.2", 0))
    assert call_ids(received(sock)) == [2]


def test_of_one_interface_only(pair: tuple[Space, Space]) -> None:
    client, server = pair
    with server.inside():
        indexes = {name: index for index, name in socket.if_nameindex()}
        loopback = indexes.pop("lo")
        wan = next(i for name, i in indexes.items() if "192.0.2.2" in server.sh(f"ip a s {name}"))
        (here,), (there,) = (
            descriptors.gre_fanout(1, [], address=0, receive_buffer=1 << 20, interface=index)
            for index in (wan, loopback)
        )
    with wire(client) as out:
        out.send(enhanced(3))
    assert call_ids(received(here)) == [3]
    assert received(there, 0.05) == []


def test_a_tunnel_in_a_tunnel_is_not_taken(space: Space) -> None:
    """What a subscriber sends through our own TUN is left to the kernel."""
    with space.inside():
        tun = descriptors.tun(0)
        space.sh("ip addr add 10.9.9.1/32 dev pptp0 && ip link set pptp0 up")
        (ours,) = descriptors.gre_fanout(1, [tun.ifindex], address=0, receive_buffer=1 << 20)
        (any_tun,) = descriptors.gre_fanout(1, [], address=0, receive_buffer=1 << 20)
    gre = enhanced(5)
    header = struct.pack(
        ">BBHHHBBH4s4s",
        0x45, 0, 20 + len(gre), 0, 0, 64, 47, 0,
        socket.inet_aton("10.9.9.2"), socket.inet_aton("10.9.9.1"),
    )  # fmt: skip
    os.write(tun.fd, bytes(descriptors.VNET_HEADER) + header + gre)
    assert call_ids(received(any_tun)) == [5]
    assert received(ours, 0.05) == []
    os.close(tun.fd)


def test_a_send_only_socket_receives_nothing(pair: tuple[Space, Space]) -> None:
    with pair[1].inside():
        sock = descriptors.gre_raw(filters.NOTHING)
    with wire(pair[0]) as out:
        out.send(enhanced(1))
    assert received(sock, 0.1) == []
    # and a filter is for good: a worker can't take it off
    with pytest.raises(PermissionError):
        sock.setsockopt(socket.SOL_SOCKET, 27, 0)  # SO_DETACH_FILTER


def test_tuns_take_the_first_free_names(space: Space) -> None:
    space.sh("ip tuntap add pptp1 mode tun")
    with space.inside():
        first = descriptors.tun(0)
        second = descriptors.tun(0)
    assert (first.name, second.name) == ("pptp0", "pptp2")
    assert "tso4" in first.segmentation
    os.close(first.fd)
    os.close(second.fd)
    assert "pptp0" not in space.sh("ip link")
