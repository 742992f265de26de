"""Kinds of network device that not every kernel has, as the way between client and server.

Not collected by itself: `tests/interop/test_guest_links.py` runs it in the lab's qemu guest,
whose kernel (Debian's 6.1) has all of them, and no UDP segmentation for TUNs. By hand:

    .venv/bin/python -m pytest tests/netns/odd_devices.py
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from dispatcher import descriptors, filters, xdp_fit
from ops.settings import Gre
from tests.fastpath.peer import ipv4, number
from tests.netns import rough, spaces
from tests.netns.rough import SERVER
from tests.netns.spaces import Space, enhanced, received
from workers.hops import Resolver

CLIENT = "192.0.2.1"

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]

BELOW = "198.51.100"  # addresses of the veth underneath; {d} is its device


def both(pair: tuple[Space, Space], make: str) -> None:
    """Make a device called `odd` at both ends: {me} and {peer} are the addresses below."""
    near, server = pair
    devices = spaces.join(near, server, BELOW)
    for space, device, me, peer in ((near, devices[0], 1, 2), (server, devices[1], 2, 1)):
        space.sh(make.format(d=device, me=f"{BELOW}.{me}", peer=f"{BELOW}.{peer}"))
        space.sh(f"ip addr add {CLIENT if me == 1 else SERVER}/24 dev odd; ip link set odd up")


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        ("ip link add link {d} name odd type vlan id 5", "packet"),
        (
            "ip link add link {d} name out type vlan id 7 protocol 802.1ad; ip link set out up;"
            "ip link add link out name odd type vlan id 5",
            "packet",
        ),
        ("ip link add link {d} name odd type macvlan mode bridge", "packet"),
        (
            "ip link set {d} down; ip addr flush dev {d};"
            "ip link add odd type bond mode active-backup miimon 100; ip link set {d} master odd",
            "packet",
        ),
        ("ip link add odd type gre local {me} remote {peer}", "raw"),
        ("ip link add odd type ipip local {me} remote {peer}", "raw"),
    ],
    ids=["vlan", "qinq", "macvlan", "bond", "gre", "ipip"],
)
def test_a_device(make: str, wanted: str, make_space: Callable[[], Space]) -> None:
    """What comes in by it is taken; what goes out goes to its hop, or where the kernel says."""
    near, server = make_space(), make_space()
    both((near, server), make)
    spaces.wait_for(lambda: "1 received" in near.sh(f"ping -c 1 -W 1 {SERVER} || true"), 30)
    with server.inside():
        (sock,) = descriptors.gre_fanout(1, [], address=0, receive_buffer=1 << 20)
        raw, sender = descriptors.gre_raw(filters.NOTHING), descriptors.packet_sender()
        resolver = Resolver()
        hop = resolver.resolve(number(CLIENT), number(SERVER))
        assert ("packet" if hop else "raw") == wanted
    with near.inside():
        theirs = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_GRE)
    gre = enhanced(7, b"x" * 1300)
    theirs.sendto(gre, (SERVER, 0))
    (found,) = received(sock)
    assert found[20:] == gre
    if hop is not None:
        packet = ipv4(number(SERVER), number(CLIENT), gre, socket.IPPROTO_GRE)
        with server.inside():
            sender.sendto(packet, ("odd", 0x0800, 0, 0, hop.mac))
    else:
        raw.sendto(gre, (CLIENT, 0))
    # A GRE device's own packets, version 0, are to be seen by a raw socket as well.
    assert [found[20:] for found in received(theirs) if found[21] & 7] == [gre]


def test_rings_that_no_worker_could_map(
    pair: tuple[Space, Space], start_keeper: rough.StartKeeper
) -> None:
    """Linux before 6.4: said at the start where they are asked for, else done without."""
    _, server = pair
    (device,) = (d for d in server.sh("ls /sys/class/net").split() if d.startswith("veth"))
    gre = Gre(mode="xdp", send="xdp", interface=device)
    keeper = start_keeper(server, rough.settings(gre=gre), module="dispatcher.keeper")
    assert keeper.process.wait(60) == 69, keeper.text
    assert "Linux 6.4 and later do" in keeper.text
    assert "Traceback" not in keeper.text
    with server.inside():
        assert xdp_fit.why_not_on(device, 1) == "workers can map its rings since Linux 6.4"
