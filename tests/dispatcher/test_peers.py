"""Who may connect: the table against the obvious way, then a dispatcher that is told anew."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.peers import Peers
from dispatcher.pptp.messages import DisconnectNotify, OutgoingReply, OutgoingRequest, StopRequest
from ops import messages as bus
from ops.ranges import parse_address
from ops.settings import Listen
from tests.dispatcher.rig import SETTINGS, rig


def slow(allow: list[str], deny: list[str], address: int) -> bool:
    """Every prefix is looked at."""
    best, verdict = -1, not allow
    for texts, says in ((allow, True), (deny, False)):
        for text in texts:
            network = IPv4Network(text)
            if IPv4Address(address) in network and network.prefixlen >= best:
                best, verdict = network.prefixlen, says
    return verdict


# Few addresses, so that prefixes nest, touch and are the same.
networks = st.builds(
    lambda address, bits: str(IPv4Network((address, bits), strict=False)),
    st.sampled_from([0, 1, 0x0A000000, 0x0A000080, 0x0A0000FF, 0xFFFFFFFF, 0x80000000]),
    st.sampled_from([0, 1, 8, 24, 25, 30, 31, 32]),
)


@given(st.lists(networks, max_size=8), st.lists(networks, max_size=8))
def test_as_the_slow_way(allow: list[str], deny: list[str]) -> None:
    peers = Peers(allow, deny)
    edges = {0, 0xFFFFFFFF}
    for text in allow + deny:
        network = IPv4Network(text)
        first, last = int(network.network_address), int(network.broadcast_address)
        edges |= {first, last, max(first - 1, 0), min(last + 1, 0xFFFFFFFF)}
    for address in edges:
        assert peers.allowed(address) == slow(allow, deny, address), IPv4Address(address)


@pytest.mark.parametrize(
    ("allow", "deny", "address", "may"),
    [
        ((), (), "192.0.2.1", True),
        ((), ("192.0.2.1",), "192.0.2.1", False),
        (("192.0.2.0/24",), (), "192.0.2.255", True),
        (("192.0.2.0/24",), (), "192.0.3.0", False),
        (("192.0.2.9",), ("192.0.2.0/24",), "192.0.2.9", True),
        (("192.0.2.9",), ("192.0.2.0/24",), "192.0.2.8", False),
        (("192.0.2.0/24",), ("192.0.2.0/24",), "192.0.2.8", False),
        ((), ("0.0.0.0/0",), "255.255.255.255", False),
    ],
)
def test_words(allow: tuple[str, ...], deny: tuple[str, ...], address: str, may: bool) -> None:
    assert Peers(allow, deny).allowed(parse_address(address)) is may


def test_a_dispatcher_refuses_and_a_reload_hangs_up(tmp_path: Path) -> None:
    with rig(tmp_path, replace(SETTINGS, listen=Listen(deny=("127.0.0.0/8",)))) as one:
        assert one.client().at_end()
        one.counted("connections_refused_acl", 1)
        one.logged("control connection refused", "peer=127.0.0.1", "listen.deny")
        one.configure(listen=Listen())
        one.logged("settings taken over")
        worker = one.worker()
        worker.hello()
        client = one.client()
        client.start()
        client.send(OutgoingRequest(0))
        handle = worker.install()
        assert client.read(OutgoingReply).result == 1
        worker.up(handle, worker.admit(handle))
        one.logged("session up")  # the worker's message and the keeper's come by two ways
        one.configure(listen=Listen(allow=("10.0.0.0/8",)))
        end = worker.read(bus.End)
        assert (end.index, end.cause, end.soft) == (handle[0], "admin_reset", False)
        client.read(DisconnectNotify)
        client.read(StopRequest)
        worker.send(bus.Ended(*handle))
        one.logged("session down", "cause=admin_reset")
        one.logged("connections of denied peers ended", "connections=1")
        assert one.client().at_end()
        one.counted("connections_refused_acl", 2)
