"""Kinds of network device that not every kernel has, as the way between client and server.

Not collected by itself: `tests/interop/test_guest_links.py` runs it in the lab's qemu guest,
whose kernel (Debian's 6.1) has all of them, and no UDP segmentation for TUNs. By hand:

    .venv/bin/python -m pytest tests/netns/odd_devices.py
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from tests.netns import rough, spaces
from tests.netns.rough import SERVER, client, drops
from tests.netns.spaces import Space
from tests.netns.test_odd_links import CLIENT, at, way

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]

BELOW = "198.51.100"  # addresses of the veth underneath; {d} is its device


def goes(wanted: str, words: tuple[Any, ...]) -> bool:
    """Whether packets go that way."""
    return way(*words) == wanted


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
        ("ip link add odd type gretap local {me} remote {peer}", "packet"),
        ("ip link add odd type gre local {me} remote {peer}", "raw"),
        ("ip link add odd type ipip local {me} remote {peer}", "raw"),
    ],
    ids=["vlan", "qinq", "macvlan", "bond", "gretap", "gre", "ipip"],
)
def test_a_device(
    make: str,
    wanted: str,
    make_space: Callable[[], Space],
    start_keeper: rough.StartKeeper,
) -> None:
    """A session comes up and packets of all sizes pass, by the sockets that fit the device."""
    pair = make_space(), make_space()
    both(pair, make)
    keeper = start_keeper(pair[1], rough.settings(), module="dispatcher.keeper")
    keeper.heard("keeper: ready", 90)
    with client(pair[0]) as one:
        site = at(pair[1])
        for size in ("56", "1300"):
            words = (site, pair[1], one.address, "-s", size)
            spaces.wait_for(functools.partial(goes, wanted, words), 60)
        assert drops(site.metrics()) == {}
    assert keeper.stop() == 0
