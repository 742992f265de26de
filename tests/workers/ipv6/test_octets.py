"""IPv6 packets, router advertisements and DHCPv6 messages as octets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.ipv6 import dhcpv6, names, ndp, packets
from workers.ipv6.dhcpv6 import Association, Code, Kind, Lease, Message
from workers.ipv6.errors import RemoteError
from workers.ipv6.ndp import Advertisement, PrefixInformation

HOST = packets.link_local(bytes.fromhex("0000000000000007"))
PREFIX = bytes.fromhex("20010db8000100020000000000000000")
DNS = bytes.fromhex("20010db8000000000000000000000053")

# As RFC 4861 section 4.2 and RFC 8106 section 5 draw them, field by field.
ADVERTISEMENT = bytes.fromhex(
    "86 00 0000 40 c0 0708 00000000 00000000"
    "03 04 40 40 00001c20 00000e10 00000000 20010db8000100020000000000000000"
    "05 01 0000 00000578"
    "19 03 0000 00000708 20010db8000000000000000000000053"
    "1f 03 0000 00000708 07 6578616d706c65 03 6e6574 00 000000"
)
TOLD = Advertisement(
    1800, True, True, 64, (PrefixInformation(PREFIX, 64, 7200, 3600),), 1400, (DNS,),
    ("example.net",), 1800,
)  # fmt: skip

# Client identifier, option request, elapsed time, IA_PD.
SOLICIT = bytes.fromhex(
    "01 a1b2c3"
    "0001 000e 0001000118d3b2aa021122334455"
    "0006 0004 0017 0018"
    "0008 0002 0000"
    "0019 000c 22334455 00000e10 00001518"
)
SOLICITATION = bytes.fromhex("85000000 00000000")


def test_golden_advertisement() -> None:
    assert TOLD.encode() == ADVERTISEMENT
    assert Advertisement.decode(ADVERTISEMENT) == TOLD


def test_golden_solicit() -> None:
    message = Message.decode(SOLICIT)
    assert message.kind == Kind.SOLICIT and message.transaction == bytes.fromhex("a1b2c3")
    assert message.client == bytes.fromhex("0001000118d3b2aa021122334455")
    assert message.server is None and message.requested == {23, 24}
    found = Association.decode(message.first(Code.IA_PD) or b"")
    assert found == Association(bytes.fromhex("22334455"), 3600, 5400)
    assert message.encode() == SOLICIT


def test_golden_leases() -> None:
    prefix = Lease(PREFIX, 56, 3600, 7200)
    code, data = prefix.option(Code.IA_PREFIX)
    assert (code, data) == (26, bytes.fromhex("00000e10 00001c20 38") + PREFIX)
    assert Lease.decode(Code.IA_PREFIX, data) == prefix
    address = Lease(DNS, 128, 3600, 7200)
    code, data = address.option(Code.IA_ADDRESS)
    assert (code, data) == (5, DNS + bytes.fromhex("00000e10 00001c20"))
    assert Lease.decode(Code.IA_ADDRESS, data) == address


def test_checksums() -> None:
    """RFC 4443 section 2.3, by hand: the sum of all words is ffff; UDP's is never 0."""
    packet = packets.icmpv6(HOST, packets.ALL_ROUTERS, SOLICITATION)
    assert packet[:8] == bytes.fromhex("60000000 0008 3a ff")
    words = packet[8:40] + bytes.fromhex("00000008 0000003a") + packet[40:]
    total = sum(int.from_bytes(words[at : at + 2], "big") for at in range(0, len(words), 2))
    assert total % 0xFFFF == 0
    for n in range(70000):
        datagram = packets.udp(HOST, HOST, 546, 547, n.to_bytes(3, "big"))
        if datagram[46:48] == b"\xff\xff":
            break
    assert datagram[46:48] != b"\0\0" and packets.parse(datagram).port == 547


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda p: p[:-1], "payload"), (lambda p: p[:30], "octets"),
        (lambda p: b"\x45" + p[1:], "version"), (lambda p: p[:6] + b"\x00" + p[7:], "next header"),
        (lambda p: p[:-1] + b"\x01", "checksum"),
    ],
)  # fmt: skip
def test_packets_that_are_none(change: Callable[[bytes], bytes], text: str) -> None:
    with pytest.raises(RemoteError, match=text):
        packets.parse(change(packets.icmpv6(HOST, packets.ALL_ROUTERS, SOLICITATION)))


@pytest.mark.parametrize(
    ("message", "source", "hops"),
    [
        ("85000000 00000000", HOST, 64),
        ("85010000 00000000", HOST, 255),
        ("86000000 00000000", HOST, 255),
        ("85000000 00000000 0100 001122334455", HOST, 255),
        ("85000000 00000000 0102 001122334455", HOST, 255),
        ("85000000 00000000 0101 001122334455", packets.UNSPECIFIED, 255),
    ],
)
def test_solicitations_that_are_none(message: str, source: bytes, hops: int) -> None:
    """RFC 4861 section 6.1.1."""
    packet = packets.icmpv6(source, packets.ALL_ROUTERS, bytes.fromhex(message))
    with pytest.raises(RemoteError):
        ndp.check_solicitation(packets.parse(packet[:7] + bytes((hops,)) + packet[8:]))


@given(st.binary(max_size=120))
def test_any_octets(data: bytes) -> None:
    readers: tuple[Callable[[bytes], object], ...] = (
        packets.parse,
        Message.decode,
        Association.decode,
        Advertisement.decode,
        names.decode_names,
        lambda d: Lease.decode(Code.IA_ADDRESS, d),
        lambda d: Lease.decode(Code.IA_PREFIX, d),
    )
    for read in readers:
        try:
            read(data)
        except RemoteError:
            pass


@given(st.integers(0, 255), st.binary(min_size=3, max_size=3), st.lists(st.binary(max_size=30)))
def test_messages_come_back(kind: int, transaction: bytes, datas: list[bytes]) -> None:
    options = tuple(enumerate(datas[: dhcpv6.NESTED_MAX]))
    message = Message(kind, transaction, options)
    assert Message.decode(message.encode()) == message


def test_names_and_too_many_options() -> None:
    with pytest.raises(RemoteError, match="too many"):
        dhcpv6.decode_options(bytes(4) * (dhcpv6.NESTED_MAX + 1))
    assert names.decode_names(names.encode_names(["a.b", "example.net"])) == ("a.b", "example.net")
    for name in ("", "a..b", "x" * 64, ".".join(["abcdefgh"] * 30)):
        with pytest.raises(ValueError):
            names.encode_names([name])
