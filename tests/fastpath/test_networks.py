"""Longest prefix match against a twin that looks at everything."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.networks import Networks
from ops.networks import Network, network, parse_network

Held = list[tuple[Network, int]]

# Few bits, so that prefixes meet; in both families the places where 32 and 64 bits end.
values4 = st.integers(0, 15).map(lambda n: (n & 3) << 30 | (n >> 2) << 7)
values6 = st.integers(0, 63).map(lambda n: (n & 3) << 126 | (n >> 2 & 3) << 63 | n >> 4)
found4 = st.tuples(values4, st.integers(0, 32)).map(lambda p: network(4, *p))
found6 = st.tuples(values6, st.integers(0, 128)).map(lambda p: network(6, *p))
steps = st.lists(st.tuples(st.booleans(), found4 | found6, st.integers(0, 3)), max_size=60)
addresses = values4.map(lambda n: n.to_bytes(4, "big")) | values6.map(
    lambda n: n.to_bytes(16, "big")
)


def slow_find(held: Held, octets: bytes) -> int:
    """The newest of the longest that the address lies in."""
    whole = Network(octets, 8 * len(octets))
    found = [(net.length, at, owner) for at, (net, owner) in enumerate(held) if net.holds(whole)]
    return max(found)[2] if found else -1


@settings(max_examples=300, deadline=None)
@given(steps, st.lists(addresses, max_size=8))
def test_as_the_slow_twin(steps: list[tuple[bool, Network, int]], asked: list[bytes]) -> None:
    table, held = Networks(), Held()
    for add, net, owner in steps:
        if add:
            assert table.add(net.octets, net.length, owner)
            held.append((net, owner))
        else:
            table.remove(net.octets, net.length, owner)
            at = [i for i, entry in enumerate(held) if entry == (net, owner)]
            if at:
                del held[at[-1]]
    assert table.sizes[0] == len(held)
    for octets in asked:
        assert table.find(octets) == slow_find(held, octets)
    for net, _ in held:
        assert table.find(net.octets) == slow_find(held, net.octets)


def test_hostile_sizes() -> None:
    """Half a million networks, and all lengths of both families at once."""
    table = Networks()
    for n in range(500_000):
        assert table.add(network(6, 0x20010DB8 << 96 | n << 64, 64).octets, 64, n % 16384)
    for length in range(33):
        table.add(network(4, 0x0A000000, length).octets, length, length)
    for length in range(129):
        table.add(network(6, 0x3FFF << 112, length).octets, length, length)
    assert table.sizes == (500_162, 524_288, 33, 129)
    for n in (0, 1, 16383, 16384, 499_999):
        address = (0x20010DB8 << 96 | n << 64 | 0xABCDEF).to_bytes(16, "big")
        assert table.find(address) == n % 16384
    assert table.find(parse_network("3fff::").octets) == 128
    assert table.find(parse_network("10.0.0.0").octets) == 32
    assert table.find(parse_network("10.0.0.1").octets) == 31
    assert table.find(parse_network("200.0.0.1").octets) == 0
    for n in range(500_000):
        table.remove(network(6, 0x20010DB8 << 96 | n << 64, 64).octets, 64, n % 16384)
    assert table.sizes == (162, 524_288, 33, 129)  # the /64 of 3fff::
