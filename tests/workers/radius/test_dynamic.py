"""CoA and Disconnect, RFC 5176: who may, which session, once."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.radius.test_book import FACTS
from workers.radius.attributes import A, Mt, Vendor, integer, vendor
from workers.radius.dynamic import Client, Dynamic, Keys, Order, fits
from workers.radius.packets import Attributes, Code, Packet, check_response, request
from workers.radius.requests import Nas

NAS = Nas("bras1", 0x0A000001)
SOURCE = ("192.0.2.7", 4000)
RATE = vendor(Vendor.MIKROTIK, Mt.RATE_LIMIT, b"2M/4M")
ANNA: Attributes = ((A.USER_NAME, b"anna"),)


def dynamic(window_s: int = 300) -> Dynamic:
    return Dynamic([Client(ipaddress.ip_network("192.0.2.0/24"), b"s")], NAS, window_s)


def ask(code: int, *attributes: tuple[int, bytes], identifier: int = 1) -> bytes:
    return request(code, identifier, tuple(attributes), b"s", bytes(16))


def cause(answer: object, asked: bytes) -> int:
    assert isinstance(answer, bytes)
    packet = check_response(answer, asked, b"s")
    return int.from_bytes(packet.get(A.ERROR_CAUSE) or b"", "big")


def test_a_change() -> None:
    made = dynamic()
    data = ask(Code.COA_REQUEST, *ANNA, RATE, (33, b"proxy"))
    order = made.receive(data, SOURCE, 0.0, 0.0)
    assert isinstance(order, Order) and order.keys == Keys(user="anna")
    assert order.changes == {"rate_up": 2_000_000, "rate_down": 4_000_000}
    assert made.receive(data, SOURCE, 0.1, 0.0) is None  # its answer is being found
    assert made.source(order.number) == SOURCE
    answer = made.done(order.number)
    assert answer is not None
    packet = check_response(answer, data, b"s")
    assert packet.code == Code.COA_ACK and packet.get(33) == b"proxy"
    assert made.receive(data, SOURCE, 0.2, 0.0) == answer
    assert [o.result for o in made.outcomes] == ["duplicate", "ack", "duplicate"]


def test_an_end() -> None:
    made = dynamic()
    data = ask(Code.DISCONNECT_REQUEST, (A.ACCT_SESSION_ID, b"00000001"))
    order = made.receive(data, SOURCE, 0.0, 0.0)
    assert isinstance(order, Order) and order.changes is None
    assert cause(made.done(order.number, "no such session"), data) == 503


@pytest.mark.parametrize(
    ("attributes", "want"),
    [
        ((RATE,), 402),
        ((*ANNA,), 401),
        ((*ANNA, RATE, (A.NAS_IDENTIFIER, b"other")), 403),
        ((*ANNA, RATE, (A.NAS_IP_ADDRESS, integer(1))), 403),
        ((*ANNA, RATE, (A.SERVICE_TYPE, integer(17))), 405),
        ((*ANNA, vendor(Vendor.MIKROTIK, Mt.RATE_LIMIT, b"fast")), 407),
        ((*ANNA, (A.DNS_SERVER_IPV6_ADDRESS, bytes(16)), RATE), None),
        ((*ANNA, vendor(311, 28, bytes(4))), 401),
        (((A.NAS_PORT, b"x"), RATE), 407),
    ],
)
def test_what_is_refused(attributes: Attributes, want: int | None) -> None:
    made = dynamic()
    data = ask(Code.COA_REQUEST, *attributes)
    answer = made.receive(data, SOURCE, 0.0, 0.0)
    if want is None:
        assert isinstance(answer, Order)
    else:
        assert cause(answer, data) == want


def test_who_is_not_heard() -> None:
    made = dynamic()
    data = ask(Code.COA_REQUEST, *ANNA, RATE)
    assert made.receive(data, ("198.51.100.1", 1), 0.0, 0.0) is None
    bad = request(Code.COA_REQUEST, 1, ANNA, b"t", bytes(16))
    assert made.receive(bad, SOURCE, 0.0, 0.0) is None
    assert made.receive(ask(1), SOURCE, 0.0, 0.0) is None
    assert [o.result for o in made.outcomes] == ["not_allowed", "wrong_secret", "wrong_secret"]


def test_old_requests_are_dropped() -> None:
    stamp = (A.EVENT_TIMESTAMP, integer(10_000))
    for unix, good in ((10_299, True), (9_701, True), (10_301, False), (9_000, False)):
        answer = dynamic().receive(ask(43, *ANNA, RATE, stamp), SOURCE, 0.0, float(unix))
        assert isinstance(answer, Order) == good
    assert dynamic(0).receive(ask(43, *ANNA, RATE, stamp), SOURCE, 0.0, 9e9)


def test_every_key_names_a_session() -> None:
    for keys in (
        Keys(sid=FACTS.sid),
        Keys(user="anna"),
        Keys(address="10.99.1.1"),
        Keys(calling="192.0.2.9"),
        Keys(port=3),
        Keys(port_id="pptp3"),
        Keys(user="anna", port=3),
    ):
        assert fits(keys, FACTS, NAS)
    for keys in (Keys(sid="x"), Keys(user="anna", port=4), Keys(address="10.99.1.2")):
        assert not fits(keys, FACTS, NAS)


@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(1, 255), st.binary(max_size=30))))
def test_any_octets(data: bytes, attributes: list[tuple[int, bytes]]) -> None:
    made = dynamic()
    made.receive(data, SOURCE, 0.0, 0.0)
    for code in (Code.COA_REQUEST, Code.DISCONNECT_REQUEST):
        good = ask(code, *attributes[:10])
        answer = made.receive(good, SOURCE, 0.0, 0.0)
        if isinstance(answer, bytes):
            assert Packet.decode(answer).code in (42, 45)
