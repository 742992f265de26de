"""Who may connect: the table and the data path's index of it against the obvious way."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath import peers as fast
from ops.peers import Peers
from ops.ranges import parse_address


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
    st.sampled_from([0, 1, 7, 8, 9, 24, 25, 30, 31, 32]),
)


@given(st.lists(networks, max_size=8), st.lists(networks, max_size=8))
def test_as_the_slow_way(allow: list[str], deny: list[str]) -> None:
    peers = Peers(allow, deny)
    edges = {0, 0xFFFFFFFF}
    for text in allow + deny:
        network = IPv4Network(text)
        first, last = int(network.network_address), int(network.broadcast_address)
        edges |= {first, last, max(first - 1, 0), min(last + 1, 0xFFFFFFFF)}
    index = fast.Peers(peers.block) if peers.block else None
    for address in edges:
        verdict = slow(allow, deny, address)
        assert peers.allowed(address) == verdict, IPv4Address(address)
        assert (index is None or index.allowed(address)) == verdict, IPv4Address(address)


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


@given(st.lists(st.integers(0, 0xFFFFFFFF), max_size=70, unique=True), st.booleans(), st.data())
def test_many_ranges(starts: list[int], first: bool, data: st.DataObject) -> None:
    """More than an octet's, touching its edges: as counting the ranges that begin before."""
    starts = sorted({0, *starts})
    index = fast.Peers(struct.pack(f"={len(starts) + 1}I", first, *starts))
    near = {address for start in starts for address in (start - 1, start, start + 1)}
    near |= set(data.draw(st.lists(st.integers(0, 0xFFFFFFFF), max_size=20)))
    for address in near:
        if 0 <= address < 1 << 32:
            begun = sum(start <= address for start in starts)
            assert index.allowed(address) == (first == bool(begun & 1)), address


@pytest.mark.parametrize(
    "block",
    [
        b"",
        bytes(4),
        bytes(7),
        bytes(9),
        struct.pack("=2I", 1, 1),
        struct.pack("=4I", 0, 0, 5, 5),
    ],
)
def test_what_is_no_block(block: bytes) -> None:
    with pytest.raises(ValueError, match="ranges"):
        fast.Peers(block)
