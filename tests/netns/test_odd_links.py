"""Links that are not one plain Ethernet: GRE gets through on them, by raw sockets where packet
sockets can't know the way, and by packet sockets again when the link is plain once more.

VLAN sub-interfaces, bonds, GRE and IPIP devices are not in every kernel: `odd_devices.py` looks at
them, in the lab's guest (`interop/test_guest_links.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dispatcher import descriptors
from fastpath import tun
from ops.settings import Gre, Listen
from tests.fastpath.peer import ip_sum, ipv4, number
from tests.netns import rough, spaces
from tests.netns.rough import LAN_HOST, LOCAL, SERVER, Client, Site, client, drops, ping
from tests.netns.spaces import Keeper, Space, enhanced, received

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

CLIENT = "192.0.2.1"
ETHTOOL_SGRO = 0x2C  # linux/ethtool.h
SIOCETHTOOL = 0x8946


def at(space: Space) -> Site:
    """For the console of a server without a wire of ours."""
    return Site(space, space, space, space, ("", ""), ("", ""))


def way(site: Site, from_space: Space, address: str, *words: str) -> str:
    """Pings from the LAN side, all answered; how most of the server's GRE went."""
    before = site.metrics()
    out = ping(from_space, LOCAL, address, 10, *words)
    assert " 0% packet loss" in out, out
    after = site.metrics()

    def more(name: str, **labels: str) -> float:
        return after.total(name, **labels) - before.total(name, **labels)

    sent = more("pptp_gre_packets_total", direction="transmit")
    hops = more("pptp_gre_packets_by_next_hop_total")
    assert sent >= 10
    return "packet" if hops > sent / 2 else "raw"


def becomes(wanted: str, site: Site, space: Space, address: str) -> None:
    """What has changed is noticed within moments."""
    spaces.wait_for(lambda: way(site, space, address) == wanted, 15)


@contextlib.contextmanager
def served(
    pair: tuple[Space, Space], start_keeper: rough.StartKeeper, **changes: Any
) -> Iterator[tuple[Site, Client, Keeper]]:
    """A concentrator, and a session that is up."""
    keeper = start_keeper(pair[1], rough.settings(**changes), module="dispatcher.keeper")
    keeper.heard("keeper: ready", 30)
    with client(pair[0]) as one:
        assert one.address
        yield at(pair[1]), one, keeper
    assert keeper.stop() == 0
    assert pair[1].ours() == []


def test_the_way_changes_under_a_session(
    pair: tuple[Space, Space], start_keeper: rough.StartKeeper
) -> None:
    """Policy routing, two uplinks, a small route MTU: raw sockets meanwhile, nothing lost."""
    near, server = pair
    spaces.join(near, server, "198.51.100")
    near.sh("sysctl -qw net.ipv4.conf.all.rp_filter=0")
    devices = [
        next(d for d in server.sh("ls /sys/class/net").split() if net in server.sh(f"ip a s {d}"))
        for net in ("192.0.2", "198.51.100")
    ]
    with served(pair, start_keeper) as (site, one, _):
        address = one.address
        becomes("packet", site, server, address)
        for begin, end in (
            ("ip rule add from 203.0.113.0/24 table 77", "ip rule del from 203.0.113.0/24"),
            (
                f"ip route add {CLIENT}/32 nexthop via {CLIENT} dev {devices[0]} onlink"
                f" nexthop via 198.51.100.1 dev {devices[1]}",
                f"ip route del {CLIENT}/32",
            ),
            (f"ip neigh replace {CLIENT} dev {devices[0]} nud failed", "true"),
        ):
            server.sh(begin)
            if end != "true":
                becomes("raw", site, server, address)
            server.sh(end)
            becomes("packet", site, server, address)
        # What is larger than the way goes in fragments, by the raw socket; the rest does not.
        server.sh(f"ip route add {CLIENT}/32 dev {devices[0]} mtu 700")
        spaces.wait_for(lambda: way(site, server, address, "-s", "1000", "-M", "dont") == "raw", 15)
        assert way(site, server, address) == "packet"
        assert drops(site.metrics()) == {}


def test_fragments_both_ways(pair: tuple[Space, Space], start_keeper: rough.StartKeeper) -> None:
    """An uplink of 600 octets: the client's GRE comes in fragments, and so does ours."""
    for space in pair:
        (device,) = [d for d in space.sh("ls /sys/class/net").split() if d.startswith("veth")]
        space.sh(f"ip link set {device} mtu 600")
    with served(pair, start_keeper) as (site, one, _):
        for source, target in ((pair[0], LOCAL), (pair[1], one.address)):
            mine = one.address if target == LOCAL else LOCAL
            out = ping(source, mine, target, 10, "-s", "1300")
            assert " 0% packet loss" in out, out
        assert drops(site.metrics()) == {}


def test_a_bridge(make_space: rough.MakeSpace, start_keeper: rough.StartKeeper) -> None:
    """The address is the bridge's; each packet is taken once, and sent to the bridge."""
    near, server = make_space(), make_space()
    _, port = spaces.join(near, server, "192.0.2")
    server.sh(
        f"ip addr flush dev {port}; ip link add br0 type bridge; ip link set {port} master br0;"
        f"ip addr add {SERVER}/24 dev br0; ip link set br0 up"
    )
    keeper = start_keeper(server, rough.settings(), module="dispatcher.keeper")
    keeper.heard("keeper: ready", 30)
    with client(near) as one:
        site, address = at(server), one.address
        becomes("packet", site, server, address)
        server.sh("ip link set br0 down && ip link set br0 up")
        becomes("packet", site, server, address)
        assert set(drops(site.metrics())) <= {"send_failed"}
    assert keeper.stop() == 0


@pytest.fixture
def wire_without_ethernet(make_space: rough.MakeSpace) -> Iterator[tuple[Space, Space]]:
    """Client and server on a point-to-point link: two TUNs, and a thread that carries packets."""
    pair = make_space(), make_space()
    ends = []
    for space, mine, other in ((pair[0], CLIENT, SERVER), (pair[1], SERVER, CLIENT)):
        with space.inside():
            fd = os.open("/dev/net/tun", os.O_RDWR)
            flags = descriptors.IFF_TUN | descriptors.IFF_NO_PI
            fcntl.ioctl(fd, descriptors.TUNSETIFF, struct.pack("16sH22x", b"p2p0", flags))
        space.sh(f"ip addr add {mine} peer {other} dev p2p0 && ip link set p2p0 up")
        ends.append(fd)
    stop, stopper = os.pipe()

    def carry() -> None:
        while True:
            ready, _, _ = select.select([*ends, stop], [], [])
            if stop in ready:
                return
            for i, fd in enumerate(ends):
                if fd in ready:
                    os.write(ends[1 - i], os.read(fd, 65536))

    thread = threading.Thread(target=carry)
    thread.start()
    yield pair
    os.close(stopper)
    thread.join()
    for fd in (*ends, stop):
        os.close(fd)


def test_a_link_without_ethernet(
    wire_without_ethernet: tuple[Space, Space], start_keeper: rough.StartKeeper
) -> None:
    near, server = wire_without_ethernet
    keeper = start_keeper(server, rough.settings(), module="dispatcher.keeper")
    keeper.heard("keeper: ready", 30)
    with client(near) as one:
        site = at(server)
        for size in ("56", "1300"):
            assert way(site, server, one.address, "-s", size) == "raw"
        assert drops(site.metrics()) == {}
    assert keeper.stop() == 0


def test_loopback(space: Space, start_keeper: rough.StartKeeper) -> None:
    """Client and concentrator in one place: no next hop, raw sockets both ways."""
    conf = rough.settings(listen=Listen(address="127.0.0.1"), gre=Gre(mode="raw", send="packet"))
    keeper = start_keeper(space, conf, module="dispatcher.keeper").heard("keeper: ready", 30)
    with client(space, server="127.0.0.1") as one:
        assert one.address
        samples = at(space).metrics()
        assert samples.total("pptp_gre_packets_by_next_hop_total") == 0
        assert samples.total("pptp_gre_packets_total") > 0
    assert keeper.stop() == 0


# -- what a packet socket is given


@pytest.fixture
def taken(pair: tuple[Space, Space]) -> Iterator[Callable[..., list[bytes]]]:
    """Send Ethernet frames to the server; what its GRE socket gets."""
    near, server = pair
    (device,) = [d for d in near.sh("ls /sys/class/net").split() if d.startswith("veth")]
    (other,) = [d for d in server.sh("ls /sys/class/net").split() if d.startswith("veth")]
    target = bytes.fromhex(server.sh(f"cat /sys/class/net/{other}/address").replace(":", ""))
    with server.inside():
        (sock,) = descriptors.gre_fanout(1, [], address=0, receive_buffer=1 << 23)
    with near.inside():
        out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    out.bind((device, 0))

    def send(*frames: bytes) -> list[bytes]:
        """`frames`: from the EtherType on."""
        for frame in frames:
            out.send(target + bytes.fromhex("020000000099") + frame)
        return received(sock, 0.2)

    with sock, out:
        yield send


def outer(gre: bytes, *, wrong: int = 0) -> bytes:
    """An IPv4 packet from client to server; `wrong`: bits of its checksum that are."""
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(gre), 9, 0, 64, 47, 0)
    head += socket.inet_aton(CLIENT) + socket.inet_aton(SERVER)
    return head[:10] + struct.pack(">H", ip_sum(head) ^ wrong) + head[12:] + gre


def test_tagged_frames(taken: Callable[..., list[bytes]]) -> None:
    """A priority tag (VLAN 0, IEEE 802.1Q section 6.9) is for this link, and the kernel strips
    it; a VLAN of which this host has no part is not for us, wherever it comes from."""
    packet = outer(enhanced(7))
    assert taken(b"\x81\x00\xe0\x00\x08\x00" + packet) == [packet]
    assert taken(b"\x81\x00\x00\x05\x08\x00" + packet) == []
    assert taken(b"\x88\xa8\x00\x05\x81\x00\x00\x00\x08\x00" + packet) == []
    assert taken(b"\x08\x00" + packet) == [packet]


def test_padding_stays_outside(taken: Callable[..., list[bytes]]) -> None:
    """Ethernet's least size: what is behind the IP packet is none of it for the engine."""
    packet = outer(enhanced(7, b""))
    (found,) = taken(b"\x08\x00" + packet + bytes(18))
    assert found[: len(packet)] == packet


def test_receive_offload_merges_no_gre(
    pair: tuple[Space, Space], taken: Callable[..., list[bytes]]
) -> None:
    """GRO knows version 0 only: packets of a burst stay what they were."""
    _, server = pair
    (device,) = [d for d in server.sh("ls /sys/class/net").split() if d.startswith("veth")]
    with server.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        value = ctypes.create_string_buffer(struct.pack("=II", ETHTOOL_SGRO, 1))
        request = struct.pack("=16sQ16x", device.encode(), ctypes.addressof(value))
        fcntl.ioctl(sock, SIOCETHTOOL, request)
    packets = [outer(enhanced(7, bytes([i]) * 1400)) for i in range(200)]
    assert taken(*(b"\x08\x00" + packet for packet in packets)) == packets


def test_a_wrong_header_checksum(
    pair: tuple[Space, Space], start_keeper: rough.StartKeeper
) -> None:
    """A packet socket gets what the kernel's IP would have dropped; the data thread drops it."""
    near, server = pair
    (device,) = [d for d in near.sh("ls /sys/class/net").split() if d.startswith("veth")]
    (other,) = [d for d in server.sh("ls /sys/class/net").split() if d.startswith("veth")]
    target = bytes.fromhex(server.sh(f"cat /sys/class/net/{other}/address").replace(":", ""))
    with served(pair, start_keeper) as (site, _, _), near.inside():
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind((device, 0))
            for wrong in (1, 0):
                out.send(target + bytes(6) + b"\x08\x00" + outer(enhanced(1), wrong=wrong))
        spaces.wait_for(lambda: drops(site.metrics()).get("malformed") == 1)
        spaces.wait_for(lambda: sum(drops(site.metrics()).values()) == 2)


def test_datagrams_of_one_size_reach_the_lan_in_few_writes(
    make_space: rough.MakeSpace, start_keeper: rough.StartKeeper
) -> None:
    """A burst of UDP through the tunnel: whole, in order, with fewer writes than packets."""
    near, server, lan = make_space(), make_space(), make_space()
    spaces.join(near, server, "192.0.2")
    spaces.join(server, lan, "10.88.0")
    lan.sh("ip route add default via 10.88.0.1")
    server.sh("sysctl -qw net.ipv4.ip_forward=1")
    with served((near, server), start_keeper) as (site, one, _):
        source = rough.bound(near, socket.SOCK_DGRAM, one.address)
        target = rough.bound(lan, socket.SOCK_DGRAM, LAN_HOST)
        with source, target:
            source.connect(target.getsockname())
            source.setsockopt(socket.SOL_UDP, 103, 1000)  # UDP_SEGMENT: as QUIC senders do
            data = os.urandom(40_500)
            for _ in range(10):
                source.send(data)
            got = received(target, 1.0)
        samples = site.metrics()
        assert b"".join(got) == data * 10
        assert [len(d) for d in got] == ([1000] * 40 + [500]) * 10
        writes, packets = (
            samples.total("pptp_tun_writes_total"),
            samples.total("pptp_traffic_packets_total", direction="receive"),
        )
        assert packets >= 410
        assert writes < packets / 2


def test_a_tun_takes_datagrams_of_one_size(space: Space) -> None:
    """By UDP segmentation, or one by one on a kernel that refuses it: nothing is lost."""
    space.sh("ip link set lo up")
    with space.inside():
        device = descriptors.tun(0)
        space.sh("ip addr add 10.9.0.1/24 dev pptp0 && ip link set pptp0 up")
        target = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    target.bind(("10.9.0.1", 2000))
    source, here = number("10.9.0.2"), number("10.9.0.1")
    data = [bytes([i]) * 500 for i in range(30)] + [b"last"]
    packets = []
    for part in data:
        head = struct.pack(">HHHH", 1000, 2000, 8 + len(part), 0)
        pseudo = struct.pack(">IIBBH", source, here, 0, 17, 8 + len(part))
        udp = head[:6] + struct.pack(">H", ip_sum(pseudo + head + part) or 0xFFFF) + part
        packets.append(ipv4(source, here, udp, df=True))
    with target:
        writes, written, _, failed = tun.coalesce(packets, device.fd)
        assert (written, failed) == (31, 0)
        assert writes == (1 if "uso4" in device.segmentation else 32)  # one was refused
        assert received(target) == data
    os.close(device.fd)
