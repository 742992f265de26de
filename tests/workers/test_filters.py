"""Filters: their words, and that the data path's verdict is that of an obvious reading."""

from __future__ import annotations

import struct
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.filter import Book, flow
from workers.filters import (
    ANY_PROTOCOL,
    DOWN,
    UP,
    WITH_PORTS,
    Filter,
    Network,
    Rule,
    RuleError,
    number_of,
    pack,
    parse_network,
    parse_rule,
)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("deny", Rule(False)),
        ("permit up", Rule(True, UP)),
        ("deny down ip from any to any", Rule(False, DOWN)),
        ("deny udp", Rule(False, protocol=17)),
        ("permit 89", Rule(True, protocol=89)),
        (
            "deny up tcp to any port 25",
            Rule(False, UP, 6, target_ports=((25, 25),)),
        ),
        (
            "permit tcp from 10.0.0.0/8 port 1-5 to 192.0.2.1 port 80,443,6881-6889",
            Rule(
                True,
                protocol=6,
                source=ip_network("10.0.0.0/8"),
                source_ports=((1, 5),),
                target=ip_network("192.0.2.1"),
                target_ports=((80, 80), (443, 443), (6881, 6889)),
            ),
        ),
        ("deny to 2001:db8::/32", Rule(False, target=ip_network("2001:db8::/32"))),
        ("deny from 0.0.0.0/0", Rule(False, source=ip_network("0.0.0.0/0"))),
    ],
)
def test_words(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "begins with permit or deny"),
        ("allow tcp", "begins with permit or deny"),
        ("deny sideways", "'sideways' is no protocol"),
        ("deny tpc to any", "'tpc' is no protocol"),
        ("deny 256", "'256' is no protocol"),
        ("deny to", "'to' without an address"),
        ("deny to 10.0.0.1/8", "has host bits set"),
        ("deny to anywhere", "is no address, prefix or any"),
        ("deny to any from any", "from comes before to"),
        ("deny tcp to any port", "'port' without a number"),
        ("deny tcp to any port 65536", "'65536' is no port"),
        ("deny tcp to any port 9-8", "'9-8' is no port"),
        ("deny tcp to any port 80,", "'' is no port"),
        ("deny to any port 80", "port needs a protocol"),
        ("deny icmp to any port 8", "port needs a protocol"),
        ("deny from 10.0.0.0/8 to 2001:db8::/32", "different IP versions"),
        ("deny icmp6 to 10.0.0.0/8", "icmp is of IPv4, icmp6 of IPv6"),
        ("deny tcp to any port 80 443", "'443' is not expected here"),
    ],
)
def test_wrong_words(text: str, why: str) -> None:
    with pytest.raises(RuleError, match=why):
        parse_rule(text)


# -- the data path against an obvious reading

NETWORKS = ["10.0.0.0/8", "10.1.2.0/24", "10.1.2.3", "0.0.0.0/0", "2001:db8::/32", "2001:db8::1"]
ADDRESSES = {
    4: ["10.1.2.3", "10.1.2.4", "10.200.0.1", "192.0.2.1"],
    6: ["2001:db8::1", "2001:db8:1::1", "2001:db9::1", "fe80::1"],
}
PORT_LISTS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda p: (min(p), max(p))), max_size=2
).map(tuple)
PROTOCOLS = st.sampled_from([ANY_PROTOCOL, 1, 6, 17, 58, 132])


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    version = draw(st.sampled_from([4, 6]))
    words = [n for n in NETWORKS if ip_network(n).version == version]
    side = st.one_of(st.none(), st.sampled_from(words).map(ip_network))
    protocol = draw(PROTOCOLS)
    ports = PORT_LISTS if protocol in WITH_PORTS else st.just(())
    return Rule(
        draw(st.booleans()),
        draw(st.sampled_from([UP, DOWN, UP | DOWN])),
        protocol,
        draw(side),
        draw(ports),
        draw(side),
        draw(ports),
    )


@st.composite
def packets(draw: st.DrawFn) -> tuple[bytes, int, str, str, int, tuple[int, int] | None]:
    """Octets, version, source, target, protocol, ports (None: a packet without)."""
    version = draw(st.sampled_from([4, 6]))
    source, target = (draw(st.sampled_from(ADDRESSES[version])) for _ in range(2))
    protocol = draw(st.sampled_from([1, 6, 17, 58, 132]))
    ports = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    payload = struct.pack(">HH", *ports) + bytes(16)
    later = draw(st.booleans())
    cut = draw(st.booleans())
    if cut:
        payload = payload[:3]
    seen = None if later or cut or protocol not in WITH_PORTS else ports
    if version == 4:
        options = draw(st.sampled_from([b"", bytes(8)]))
        head = struct.pack(
            ">BBHHHBBH",
            0x45 + len(options) // 4,
            0,
            20 + len(options) + len(payload),
            0,
            0x2005 if later else 0x4000,
            64,
            protocol,
            0,
        )
        packet = head + ip_address(source).packed + ip_address(target).packed + options + payload
        return packet, 4, source, target, protocol, seen
    chain, first = b"", protocol
    if later:
        chain, first = struct.pack(">BBHI", protocol, 0, 0x0801, 7), 44
    for kind in draw(st.lists(st.sampled_from([0, 43, 60, 51]), max_size=12)):
        size = bytes((first, 1)) + (bytes(10) if kind == 51 else bytes(14))
        chain, first = size + chain, kind
    head = struct.pack(">IHBB", 0x60000000, len(chain) + len(payload), first, 64)
    packet = head + ip_address(source).packed + ip_address(target).packed + chain + payload
    return packet, 6, source, target, protocol, seen


def inside(address: str, network: Network | None) -> bool:
    return network is None or (
        ip_address(address).version == network.version and ip_address(address) in network
    )


def fits(ports: tuple[tuple[int, int], ...], port: int | None) -> bool:
    return not ports or (port is not None and any(low <= port <= high for low, high in ports))


@settings(max_examples=400, deadline=None)
@given(st.lists(rules(), max_size=5), st.booleans(), packets(), st.booleans())
def test_the_twin_says_the_same(
    chosen: list[Rule],
    permits: bool,
    packet: tuple[bytes, int, str, str, int, tuple[int, int] | None],
    up: bool,
) -> None:
    octets, version, source, target, protocol, ports = packet
    verdict = permits
    for rule in chosen:
        if (
            rule.ways & (UP if up else DOWN)
            and rule.family in (0, version)
            and rule.protocol in (ANY_PROTOCOL, protocol)
            and inside(source, rule.source)
            and inside(target, rule.target)
            and fits(rule.source_ports, ports[0] if ports else None)
            and fits(rule.target_ports, ports[1] if ports else None)
        ):
            verdict = rule.permit
            break
    others = [Filter(f"other{at}", (Rule(not permits),) * at, permits) for at in range(5)]
    book = Book(pack([*others[:2], Filter("f", tuple(chosen), permits), *others[2:]]))
    assert book.permits(number_of("f"), octets, up) is verdict


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.builds(
                lambda a, n: IPv4Network((a >> (32 - n) << (32 - n), n)),
                st.integers(0, 2**32 - 1),
                st.integers(1, 32),
            ),
            st.builds(
                lambda a, n: IPv6Network((a >> (128 - n) << (128 - n), n)),
                st.integers(0, 2**128 - 1),
                st.integers(1, 128),
            ),
        ),
        max_size=20,
    )
)
def test_exempt_addresses(networks: list[Network]) -> None:
    book = Book(pack([], networks))
    places = [ip_address(a) for a in ("10.1.2.3", "2001:db8::1", "255.255.255.255")]
    for network in networks:
        places += [network[0], network[-1]]
    for address in places:
        for step in (-1, 0, 1):
            try:
                probe = address + step
            except ValueError:
                continue
            assert book.exempts(probe.packed) is any(inside(str(probe), n) for n in networks)


def test_flows() -> None:
    def packet(protocol: int, port: int, offset: int = 0) -> bytes:
        head = struct.pack(">BBHHHBBHII", 0x45, 0, 28, 0, offset, 64, protocol, 0, 1, 2)
        return head + struct.pack(">HHI", port, 80, 0)

    numbers = {flow(packet(6, port)) % 16 for port in range(200)}
    assert len(numbers) == 16
    assert flow(packet(6, 5)) == flow(packet(6, 5))
    assert flow(packet(6, 5), 1) != flow(packet(6, 5), 2)
    # Later fragments have no ports: those of all datagrams between two hosts are one flow.
    assert flow(packet(17, 5, 100)) == flow(packet(17, 6, 100))


def test_octets_that_are_no_block() -> None:
    good = pack([Filter("a", (Rule(True),), True), Filter("b", (), False)], [])
    Book(good)
    for broken in (good[:-1], good + b"\0", b"", bytes(15)):
        with pytest.raises(ValueError, match="no filters"):
            Book(broken)
    heads = good[:16] + good[32:48] + good[16:32] + good[48:]  # filters in the wrong order
    with pytest.raises(ValueError, match="no filters"):
        Book(heads)
    with pytest.raises(ValueError, match="no filters"):
        Book(good[:20] + b"\xff" * 4 + good[24:])  # rules that are not there


def test_a_network_is_written_from_its_beginning() -> None:
    assert parse_network("any") is None
    assert parse_network("10.0.0.0/8") == ip_network("10.0.0.0/8")
    with pytest.raises(RuleError, match="host bits"):
        parse_network("10.0.0.1/8")
