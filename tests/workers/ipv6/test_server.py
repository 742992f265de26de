"""The DHCPv6 server of one session, message by message: RFC 8415 section 18.3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.ipv6.dhcpv6 import Association, Code, Kind, Lease, Message, Options, Status
from workers.ipv6.errors import RemoteError
from workers.ipv6.names import encode_names
from workers.ipv6.server import Offer, Server

CLIENT = bytes.fromhex("0003000100112233445566")
OTHER = bytes.fromhex("0003000100112233445577")
DUID = b"\0\x04" + bytes(range(16))
ADDRESS = bytes.fromhex("20010db8000100020000000000000009")
PREFIX = bytes.fromhex("20010db8ff0000000000000000000000")
DNS = bytes.fromhex("20010db8000000000000000000000053")
OFFER = Offer(DUID, ADDRESS, PREFIX, 56, (DNS,), ("example.net",), 3600, 7200)
IAID = b"\0\0\0\1"
NA, PD = Lease(ADDRESS, 128, 3600, 7200), Lease(PREFIX, 56, 3600, 7200)


def ask(
    server: Server,
    kind: Kind,
    *options: tuple[int, bytes],
    client: bytes | None = CLIENT,
    ours: bytes | None = None,
    now: float = 0.0,
) -> Message | None:
    head: Options = ((int(Code.CLIENT_ID), client),) if client is not None else ()
    if ours is not None:
        head = (*head, (int(Code.SERVER_ID), ours))
    answer = server.receive(Message(kind, b"abc", (*head, *options)).encode(), now)
    return Message.decode(answer) if answer else None


def na(*leases: Lease, iaid: bytes = IAID) -> tuple[int, bytes]:
    inner = tuple(lease.option(Code.IA_ADDRESS) for lease in leases)
    return int(Code.IA_NA), Association(iaid, 0, 0, inner).encode()


def pd(*leases: Lease, iaid: bytes = IAID) -> tuple[int, bytes]:
    inner = tuple(lease.option(Code.IA_PREFIX) for lease in leases)
    return int(Code.IA_PD), Association(iaid, 0, 0, inner).encode()


def found(message: Message | None, code: int) -> list[Association]:
    assert message is not None
    return [Association.decode(data) for kind, data in message.options if kind == code]


def said(options: Options) -> int | None:
    data = next((data for code, data in options if code == Code.STATUS), None)
    return None if data is None else int.from_bytes(data[:2], "big")


def test_four_messages() -> None:
    server = Server(OFFER)
    oro = (int(Code.REQUESTED), bytes.fromhex("0017 0018"))
    offer = ask(server, Kind.SOLICIT, na(), pd(), oro)
    assert offer is not None and offer.kind == Kind.ADVERTISE and offer.transaction == b"abc"
    assert offer.client == CLIENT and offer.server == DUID and server.bindings == {}
    address = Association(IAID, 1800, 2880, (NA.option(Code.IA_ADDRESS),))
    prefix = Association(IAID, 1800, 2880, (PD.option(Code.IA_PREFIX),))
    assert found(offer, Code.IA_NA) == [address] and found(offer, Code.IA_PD) == [prefix]
    assert offer.first(Code.DNS_SERVERS) == DNS
    assert offer.first(Code.DOMAIN_LIST) == encode_names(["example.net"])
    reply = ask(server, Kind.REQUEST, na(NA), pd(PD), ours=DUID, now=10.0)
    assert reply is not None and reply.kind == Kind.REPLY
    assert found(reply, Code.IA_NA) == [address] and found(reply, Code.IA_PD) == [prefix]
    assert reply.first(Code.DNS_SERVERS) is None  # not asked for
    assert {b.until for b in server.bindings.values()} == {7210.0}
    again = Server(OFFER)
    again.thaw(server.freeze())
    assert again.bindings == server.bindings
    renewed = ask(again, Kind.RENEW, pd(PD), ours=DUID, now=1800.0)
    assert found(renewed, Code.IA_PD) == [prefix]
    assert again.bindings[Code.IA_PD].until == 9000.0
    assert found(ask(again, Kind.REBIND, na(NA), now=1900.0), Code.IA_NA) == [address]
    released = ask(again, Kind.RELEASE, na(NA), pd(PD), ours=DUID)
    assert released is not None and said(released.options) == Status.SUCCESS
    assert again.bindings == {}
    late = ask(again, Kind.RELEASE, pd(PD), ours=DUID)
    assert [said(ia.options) for ia in found(late, Code.IA_PD)] == [Status.NO_BINDING]


def test_rapid_commit() -> None:
    server = Server(OFFER)
    reply = ask(server, Kind.SOLICIT, pd(), (int(Code.RAPID_COMMIT), b""))
    assert reply is not None and reply.kind == Kind.REPLY
    assert reply.first(Code.RAPID_COMMIT) == b"" and Code.IA_PD in server.bindings


def test_what_there_is_none_of() -> None:
    server = Server(Offer(DUID))
    offer = ask(server, Kind.SOLICIT, na(), pd(), (int(Code.IA_TA), IAID))
    assert [said(ia.options) for ia in found(offer, Code.IA_NA)] == [Status.NO_ADDRESSES]
    assert [said(ia.options) for ia in found(offer, Code.IA_PD)] == [Status.NO_PREFIX]
    assert offer is not None and (offer.first(Code.IA_TA) or b"")[:4] == IAID
    reply = ask(server, Kind.REQUEST, pd(), ours=DUID)
    assert [said(ia.options) for ia in found(reply, Code.IA_PD)] == [Status.NO_PREFIX]
    assert server.bindings == {}


def test_a_second_association_gets_nothing() -> None:
    server = Server(OFFER)
    reply = ask(server, Kind.REQUEST, pd(), pd(iaid=b"\0\0\0\2"), ours=DUID)
    first, second = found(reply, Code.IA_PD)
    assert said(first.options) is None and said(second.options) == Status.NO_PREFIX
    assert server.bindings[Code.IA_PD].iaid == IAID


def test_what_a_client_had_elsewhere_is_over() -> None:
    """It renews a prefix of an earlier session: lifetimes 0, and the new one beside it."""
    old = Lease(bytes.fromhex("20010db8fe0000000000000000000000"), 56)
    (got,) = found(ask(Server(OFFER), Kind.REBIND, pd(old)), Code.IA_PD)
    leases = [Lease.decode(code, data) for code, data in got.options]
    assert leases == [PD, Lease(old.prefix, 56, 0, 0)]


def test_a_restarted_client_with_another_identifier() -> None:
    server = Server(OFFER)
    ask(server, Kind.REQUEST, pd(), ours=DUID)
    before = server.bindings[Code.IA_PD]
    (got,) = found(ask(server, Kind.REQUEST, pd(), client=OTHER, ours=DUID), Code.IA_PD)
    assert said(got.options) is None and server.bindings[Code.IA_PD].client != before.client


def test_confirm() -> None:
    good = ask(Server(OFFER), Kind.CONFIRM, na(NA))
    assert good is not None and said(good.options) == Status.SUCCESS
    bad = ask(Server(OFFER), Kind.CONFIRM, na(Lease(DNS, 128)))
    assert bad is not None and said(bad.options) == Status.NOT_ON_LINK
    assert ask(Server(OFFER), Kind.CONFIRM, na()) is None


def test_information() -> None:
    oro = (int(Code.REQUESTED), bytes.fromhex("0017 0020"))
    reply = ask(Server(OFFER), Kind.INFORMATION_REQUEST, oro, client=None)
    assert reply is not None and reply.client is None and reply.first(Code.DNS_SERVERS) == DNS
    assert reply.first(Code.REFRESH_TIME) == (86400).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("kind", "client", "ours"),
    [
        (Kind.SOLICIT, None, None), (Kind.SOLICIT, CLIENT, DUID), (Kind.REQUEST, CLIENT, None),
        (Kind.REQUEST, None, DUID), (Kind.RENEW, CLIENT, None), (Kind.REBIND, CLIENT, DUID),
        (Kind.RELEASE, CLIENT, None), (Kind.CONFIRM, CLIENT, DUID), (Kind.ADVERTISE, CLIENT, DUID),
        (Kind.REPLY, CLIENT, DUID), (Kind.SOLICIT, b"\0", None), (Kind.SOLICIT, bytes(131), None),
    ],
)  # fmt: skip
def test_identifiers_that_do_not_fit(kind: Kind, client: bytes | None, ours: bytes | None) -> None:
    """RFC 8415 section 16: such a message is discarded."""
    with pytest.raises(RemoteError):
        ask(Server(OFFER), kind, pd(), client=client, ours=ours)


def test_of_other_servers() -> None:
    assert ask(Server(OFFER), Kind.REQUEST, pd(), ours=b"\0\x04other") is None


@given(st.sampled_from(Kind), st.binary(max_size=150))
def test_any_octets_are_answered_or_refused(kind: Kind, data: bytes) -> None:
    server = Server(OFFER)
    for octets in (bytes((kind,)) + b"abc" + data, data):
        try:
            answer = server.receive(octets, 0.0)
        except RemoteError:
            continue
        if answer:
            Message.decode(answer)


@given(st.lists(st.sampled_from(Kind), max_size=8), st.binary(max_size=60))
def test_any_associations(kinds: list[Kind], data: bytes) -> None:
    server = Server(OFFER)
    for kind in kinds:
        for code in (Code.IA_NA, Code.IA_PD, Code.IA_TA):
            for ours in (DUID, None):
                try:
                    ask(server, kind, (int(code), data), ours=ours)
                except RemoteError:
                    pass


def test_an_association_of_temporary_addresses_without_iaid() -> None:
    server = Server(OFFER)
    with pytest.raises(RemoteError):
        ask(server, Kind.SOLICIT, (int(Code.IA_TA), b"\1\2"))
