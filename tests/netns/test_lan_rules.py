"""Isolation and address lists: by the kernel's own counters and sets."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ops import log, settings
from ops.settings import Lan
from tests.netns.spaces import Space, wait_for
from tests.netns.test_neighbours import up
from tests.netns.test_netops import CONF, Bench, address

pytestmark = pytest.mark.netns

TABLE = "inet mine"


def datagram(source: str, to: str) -> bytes:
    """UDP between two subscribers, with the virtio header of a TUN before it."""
    body = struct.pack(">HHHH", 9, 9, 8, 0)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 28, 0, 0, 9, 17, 0)
    head += socket.inet_aton(source) + socket.inet_aton(to)
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack(">H", 0xFFFF & ~((total & 0xFFFF) + (total >> 16))) + head[12:]
    return bytes(10) + head + body


def arrives(bench: Bench, worker: int, to: str) -> bool:
    """Whether a packet of worker 0's subscriber reaches one of `worker`."""
    os.write(bench.tuns[0].fd, datagram("10.99.1.5", to))
    fd = bench.tuns[worker].fd
    for _ in range(30):
        try:
            packet = os.read(fd, 2048)
        except BlockingIOError:
            bench.space.sh("true")  # takes a few milliseconds
            continue
        if packet[10:11] == b"\x45" and packet[26:30] == socket.inet_aton(to):
            return True
    return False


def members(space: Space, name: str) -> list[str]:
    """Addresses in a set."""
    found = json.loads(space.sh(f"nft -j list set {TABLE} {name}"))["nftables"]
    elements = [e for entry in found for e in entry.get("set", {}).get("elem", ())]
    return sorted(e["elem"]["val"] if isinstance(e, dict) else e for e in elements)


@pytest.fixture
def bench(space: Space) -> Iterator[Bench]:
    """Two workers' TUNs with a subscriber on each, and another on the first."""
    space.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0")
    space.sh(f"nft add table {TABLE}; nft 'add set {TABLE} theirs {{ type ipv4_addr; }}'")
    space.sh(f"nft 'add element {TABLE} theirs {{ 192.0.2.1 }}'")
    made = Bench(space, replace(CONF, lan=Lan(list_table=TABLE)))
    one, two = (tun.ifindex for tun in made.tuns)
    for worker, text, index in (
        (0, "10.99.1.5", one),
        (0, "10.99.1.7", one),
        (1, "10.99.1.6", two),
    ):
        assert made.ask(worker, [1, "route_add", address(text), index]) == [[1, 0]]
    yield made
    if made.child.reap() is None:
        made.child.kill()
        wait_for(made.child.reap)
    for tun in made.tuns:
        os.close(tun.fd)


def test_isolation_within_a_worker_and_across(bench: Bench) -> None:
    def reload(on: bool) -> None:
        new = json.loads(settings.dumps(replace(CONF, lan=Lan(list_table=TABLE, isolate=on))))
        bench.child.send({"type": "settings", "settings": new}, log.Log("test"))

    assert arrives(bench, 0, "10.99.1.7") and arrives(bench, 1, "10.99.1.6")
    reload(True)
    wait_for(lambda: "isolate" in bench.space.sh("nft list ruleset"))
    assert not arrives(bench, 0, "10.99.1.7") and not arrives(bench, 1, "10.99.1.6")
    wait_for(lambda: bench.counted("isolated_packets") >= 2)
    # it holds while netops is dead
    bench.child.kill()
    wait_for(bench.child.reap)
    assert not arrives(bench, 1, "10.99.1.6")
    bench.conf = replace(CONF, lan=Lan(list_table=TABLE, isolate=True))
    up(bench, 3, "10.99.1.6", 1)
    bench.child = bench.start()
    reload(False)
    wait_for(lambda: "isolated" not in bench.space.sh("nft list ruleset"))
    assert arrives(bench, 1, "10.99.1.6")


def test_address_lists(bench: Bench) -> None:
    space = bench.space
    a, b = address("10.99.1.5"), address("10.99.1.7")
    assert bench.ask(0, [2, "lists", a, "theirs", "late payers"], [3, "lists", b, "theirs"]) == [
        [2, 0], [3, 0],
    ]  # fmt: skip
    assert members(space, "theirs") == ["10.99.1.5", "10.99.1.7", "192.0.2.1"]
    assert members(space, "late_payers") == ["10.99.1.5"]
    bench.ask(0, [4, "lists", a, "late payers"])  # a CoA
    assert members(space, "theirs") == ["10.99.1.7", "192.0.2.1"]
    one = bench.tuns[0].ifindex
    bench.ask(0, [5, "route_del", b, one])
    assert members(space, "theirs") == ["192.0.2.1"]
    bad = [[6, "lists", 1, "x"], [7, "lists", a, 5], [8, "lists", a, *(["x"] * 17)]]
    assert bench.ask(0, *bad) == [[n, errno.EINVAL] for n in (6, 7, 8)]
    # after a crash of everything: those of sessions that are gone go
    bench.ask(0, [9, "lists", b, "theirs"])
    bench.ask(0, [10, "lists", a, "late payers"])  # the last one may be carried out again
    up(bench, 3, "10.99.1.5")
    bench.child.kill()
    wait_for(bench.child.reap)
    bench.child = bench.start()
    assert members(space, "theirs") == ["192.0.2.1"]
    assert members(space, "late_payers") == ["10.99.1.5"]
    bench.stop()
    assert members(space, "late_payers") == [] and members(space, "theirs") == ["192.0.2.1"]
