"""Requests to netops and the netlink messages they become."""

from __future__ import annotations

import errno
from ipaddress import IPv4Address
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import routes, rtnl
from dispatcher.links import prefixes
from dispatcher.routes import Grounds
from dispatcher.rtnl import Change
from ops.networks import host, network, parse_network, usable
from ops.ranges import parse_ranges
from ops.settings import Pool

TUNS = {4, 5}
LOCAL = {0x0A630001}
GROUNDS = Grounds(TUNS, LOCAL)


def test_a_route_on_the_wire() -> None:
    """struct nlmsghdr, struct rtmsg, then RTA_DST, RTA_PRIORITY, RTA_OIF (host byte order)."""
    assert Change(True, host(0x0A630105), 4).encode(9) == bytes.fromhex(
        "34000000 1800 0505 09000000 00000000"
        "02 20 00 00 fe c9 fd 01 00000000"
        "0800 0100 0a630105"
        "0800 0600 c9000000"
        "0800 0400 04000000"
    )


def test_a_blackhole_on_the_wire() -> None:
    assert Change(False, network(4, 0x0A630100, 24), metric=0x7FFF1234).encode(1) == bytes.fromhex(
        "2c000000 1900 0500 01000000 00000000"
        "02 18 00 00 fe c9 ff 06 00000000"
        "0800 0100 0a630100"
        "0800 0600 3412ff7f"
    )


def test_judge() -> None:
    one = host(0x0A630105)
    assert routes.judge([1, "route_add", one.first, 4], GROUNDS) == Change(True, one, 4)
    assert routes.judge([1, "route_del", one.first, 5], GROUNDS) == Change(False, one, 5)
    for text in ("10.1.0.0/16", "10.99.0.0/31", "2001:db8::/48", "fd00::/8", "1.0.0.0/8"):
        net = parse_network(text)
        assert routes.judge([1, "net_add", *net, 4], GROUNDS) == Change(True, net, 4)
        assert routes.judge([1, "net_del", *net, 4], GROUNDS) == Change(False, net, 4)


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "127.0.0.0/24", "126.0.0.0/7", "224.0.0.0/4",
        "255.255.255.255/32", "10.99.0.1/32", "::/0", "::1/128", "::ffff:0:0/96", "fe80::/64",
        "ff02::/16", "f000::/4", "::/1",
    ],
)  # fmt: skip
def test_networks_that_are_no_subscribers(text: str) -> None:
    assert isinstance(routes.judge([1, "net_add", *parse_network(text), 4], GROUNDS), str)


def test_a_default_route_where_it_is_allowed() -> None:
    allowed = Grounds(TUNS, LOCAL, default=True)
    for text in ("0.0.0.0/0", "::/0"):
        net = parse_network(text)
        assert routes.judge([1, "net_add", *net, 4], allowed) == Change(True, net, 4)


@pytest.mark.parametrize(
    "rest",
    [
        [b"\x0a\x01\0\1", 16, 4], [b"\x0a\x01", 16, 4], [b"\x0a\x01\0\0", 33, 4],
        [b"\x0a\x01\0\0", -1, 4], [b"\x0a\x01\0\0", 16, 6], [b"\x0a\x01\0\0", True, 4],
        ["10.1", 16, 4], [b"\x0a\x01\0\0", 16], [b"\x20\x01" + bytes(13) + b"\1", 64, 4],
    ],
)  # fmt: skip
def test_networks_that_are_none(rest: list[Any]) -> None:
    assert isinstance(routes.judge([1, "net_add", *rest], GROUNDS), str)


def test_an_ipv6_route_on_the_wire() -> None:
    """RTA_DST has 16 octets there; all else is the same."""
    assert Change(True, parse_network("2001:db8:1::/48"), 4).encode(9) == bytes.fromhex(
        "40000000 1800 0505 09000000 00000000"
        "0a 30 00 00 fe c9 fd 01 00000000"
        "1400 0100 20010db8000100000000000000000000"
        "0800 0600 c9000000"
        "0800 0400 04000000"
    )


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_msgpack_is_judged_or_refused(value: Any) -> None:
    try:
        found = routes.unpack(msgpack.packb(value))
    except routes.RequestError:
        return
    for _, request in found:
        change = routes.judge(request, GROUNDS)
        if isinstance(change, Change):
            assert change.ifindex in TUNS and not usable(change.network)


@given(st.binary(max_size=200))
def test_any_octets_are_unpacked_or_refused(data: bytes) -> None:
    try:
        routes.unpack(data)
    except routes.RequestError:
        pass


def test_depth_is_bounded() -> None:
    with pytest.raises(routes.RequestError):
        routes.unpack(b"\x91" * 60000)


@given(st.integers(0, 2**32 - 1))
def test_routable_is_what_a_subscriber_may_have(value: int) -> None:
    address = IPv4Address(value)
    bad = address.is_loopback or address.is_multicast or value >> 24 == 0 or value >> 28 == 15
    assert routes.routable(value) == (not bad)


@given(
    st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 700)).map(
            lambda pair: (pair[0], min(pair[0] + pair[1], 2**32 - 1))
        ),
        min_size=1,
        max_size=3,
    )
)
def test_prefixes_cover_a_pool_and_not_one_address_more(found: list[tuple[int, int]]) -> None:
    texts = tuple(f"{IPv4Address(a)}-{IPv4Address(b)}" for a, b in found)
    covered = set()
    for found_net in prefixes([Pool("p", texts)]):
        assert found_net.first & ((1 << (32 - found_net.length)) - 1) == 0
        covered |= set(range(found_net.first, found_net.last + 1))
    wanted = {n for text in texts for a, b in parse_ranges(text) for n in range(a, b + 1)}
    assert covered == wanted


class FakeSocket:
    """Answers as the kernel would, or not at all."""

    def __init__(self, codes: list[int] | None) -> None:
        self.codes = codes
        self.sent = b""

    def send(self, data: bytes) -> None:
        self.sent = data

    def recv(self, _: int) -> bytes:
        if self.codes is None:
            raise OSError(errno.ENOBUFS, "lost")
        answers, at = [], 0
        for code in self.codes:
            length, _, _, sequence, _ = rtnl.NLMSG.unpack_from(self.sent, at)
            answers.append(
                rtnl.NLMSG.pack(36, rtnl.NLMSG_ERROR, 0, sequence, 0)
                + rtnl.ERROR.pack(-code)
                + self.sent[at : at + 16]
            )
            at += length
        return b"".join(reversed(answers))  # the order is not what counts

    def close(self) -> None:
        """Nothing to close."""


def test_answers_are_matched_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [Change(True, host(1), 4), Change(False, host(2), 4), Change(False, host(3), 4)]
    fake = FakeSocket([errno.ENODEV, errno.ESRCH, errno.EPERM])
    monkeypatch.setattr(rtnl.RouteSocket, "_open", staticmethod(lambda: fake))
    sock = rtnl.RouteSocket()
    assert sock.apply(changes) == [errno.ENODEV, 0, errno.EPERM]
    assert sock.apply([]) == []
    fake.codes = None
    assert sock.apply(changes) == [errno.ENOBUFS] * 3
    fake.codes = [0, 0, 0]
    assert sock.apply(changes) == [0, 0, 0]
