"""What answers of servers become: rates, Policy, Verdict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.policy import pack_changes
from workers.ppp import mppe_keys
from workers.radius import hidden, rates, replies, requests
from workers.radius.attributes import A, Ms, Mt, Vendor, integer, prefix6, text, vendor
from workers.radius.packets import FAULTS, Attributes, Packet, RemoteError
from workers.radius.replies import Asked

SECRET = b"secret"
RANDOM = bytes(range(16))
V2 = Asked("mschapv2", "anna", bytes(16), 1)
PAP = Asked("pap", "anna")
MS = Vendor.MICROSOFT
SUCCESS = vendor(MS, Ms.CHAP2_SUCCESS, b"\x01S=" + b"A" * 40)


def accept(*attributes: tuple[int, bytes], asked: Asked = PAP) -> replies.Accepted:
    faults: list[RemoteError] = []
    packet = Packet(2, 1, RANDOM, tuple(attributes))
    found = replies.accepted(packet, asked, SECRET, RANDOM, faults)
    assert not faults, faults
    return found


@pytest.mark.parametrize(
    ("said", "want"),
    [
        ("1M", rates.Rates(1_000_000, 1_000_000)),
        ("64k/128k", rates.Rates(64_000, 128_000)),
        ("2M/4M 4M/8M 1M/2M 8/8 8 1M/1M", rates.Rates(2_000_000, 4_000_000, 500_000, 1_000_000)),
        ("2M/4M 4M/8M", rates.Rates(2_000_000, 4_000_000, 125_000, 250_000)),
        ("0/5m", rates.Rates(0, 5_000_000)),
    ],
)
def test_mikrotik_rates(said: str, want: rates.Rates) -> None:
    assert rates.mikrotik(said) == want


@pytest.mark.parametrize("said", ["", "x", "1M/", "1M 2M 3M 4x", "1 2 3 4 5 6 7", "-1M", "1T"])
def test_rates_that_are_none(said: str) -> None:
    with pytest.raises(RemoteError) as caught:
        rates.mikrotik(said)
    assert caught.value.fault == "bad_attribute"


def test_rates_of_others() -> None:
    said = "lcp:interface-config#1=rate-limit input 512000 8000 8000 conform-action transmit"
    assert rates.cisco(said) == rates.Rates(up=512_000, burst_up=8000)
    assert rates.cisco("rate-limit output access-group 101 9000000") == rates.Rates(down=9_000_000)
    assert rates.cisco("ip:addr-pool=x") is None
    assert rates.mpd("out#1=all rate-limit 64000 4000") == rates.Rates(down=64000, burst_down=4000)
    assert rates.mpd("in#2#f=flt1 deny") is None


def test_an_accept_with_everything() -> None:
    found = accept(
        (A.USER_NAME, b"anna@isp"),
        (A.SERVICE_TYPE, integer(2)),
        (A.FRAMED_PROTOCOL, integer(1)),
        (A.FRAMED_IP_ADDRESS, integer(0x0A400005)),
        (A.FRAMED_POOL, b"fast"),
        (A.FRAMED_ROUTE, b"192.168.7.0/24 0.0.0.0 1"),
        (A.FRAMED_ROUTE, b"172.16.0.0"),
        (A.FILTER_ID, b"no-smtp"),
        (A.SESSION_TIMEOUT, integer(3600)),
        (A.IDLE_TIMEOUT, integer(300)),
        (A.PORT_LIMIT, integer(2)),
        (A.ACCT_INTERIM_INTERVAL, integer(60)),
        (A.CLASS, b"gold"),
        (A.CLASS, b"\xff\x00"),
        (A.FRAMED_IPV6_PREFIX, prefix6("2001:db8:1::/64")),
        (A.DELEGATED_IPV6_PREFIX, prefix6("2001:db8:2::/56")),
        (A.DNS_SERVER_IPV6_ADDRESS, bytes(15) + b"\x01"),
        (A.FRAMED_IPV6_ROUTE, b"2001:db8:3::/48 :: 1"),
        (A.FRAMED_INTERFACE_ID, bytes(7) + b"\x05"),
        vendor(MS, Ms.PRIMARY_DNS, integer(0x01010101)),
        vendor(MS, Ms.SECONDARY_DNS, integer(0x08080808)),
        vendor(MS, Ms.PRIMARY_NBNS, integer(0x0A000001)),
        vendor(Vendor.MIKROTIK, Mt.RATE_LIMIT, b"1M/2M"),
        vendor(Vendor.MIKROTIK, Mt.XMIT_LIMIT, integer(5)),
        vendor(Vendor.MIKROTIK, Mt.XMIT_LIMIT_GIGAWORDS, integer(2)),
        vendor(Vendor.MIKROTIK, Mt.ADDRESS_LIST, b"paid"),
        vendor(Vendor.CISCO, 1, b"pptpcon:burst-down=64k"),
        (A.REPLY_MESSAGE, b"hello"),
    )
    policy = found.policy
    assert found.verdict.ok and found.verdict.user == "anna@isp"
    assert found.verdict.address == policy.address == 0x0A400005
    assert policy.source == "radius" and policy.pool == "fast" and policy.filter == "no-smtp"
    assert policy.routes == ("192.168.7.0/24 0.0.0.0 1", "172.16.0.0/16")
    assert (policy.session_timeout_s, policy.idle_timeout_s, policy.sessions) == (3600, 300, 2)
    assert (policy.interim_s, policy.classes) == (60, (b"gold", b"\xff\x00"))
    assert (policy.prefix6, policy.delegated6) == ("2001:db8:1::/64", "2001:db8:2::/56")
    assert policy.dns == (0x01010101, 0x08080808) and policy.wins == (0x0A000001,)
    assert policy.dns6 == ("::1",) and policy.routes6 == ("2001:db8:3::/48 :: 1",)
    assert (policy.rate_up, policy.rate_down, policy.burst_down) == (10**6, 2 * 10**6, 64000)
    assert policy.volume_down == 5 + (2 << 32) and policy.address_lists == ("paid",)
    assert policy.reply == found.verdict.message == "hello"
    assert policy.interface_id == bytes(7) + b"\x05"


def test_addresses_that_mean_anyone() -> None:
    for number in (0, 0xFFFFFFFE, 0xFFFFFFFF):
        assert accept((A.FRAMED_IP_ADDRESS, integer(number))).verdict.address == 0


def test_pppds_octets() -> None:
    for direction, want in ((None, (0, 0, 9)), (1, (9, 0, 0)), (2, (0, 9, 0)), (3, (9, 9, 0))):
        more = () if direction is None else ((A.OCTETS_DIRECTION, integer(direction)),)
        policy = accept((A.SESSION_OCTETS_LIMIT, integer(9)), *more).policy
        assert (policy.volume_up, policy.volume_down, policy.volume) == want


def test_what_an_accounting_answer_may_ask() -> None:
    drop = vendor(Vendor.MPD, 154, integer(1))
    assert replies.drops_user(Packet(5, 1, RANDOM, (drop,)))
    assert not replies.drops_user(Packet(5, 1, RANDOM, (vendor(Vendor.MPD, 154, integer(0)),)))


def test_cisco_pairs() -> None:
    pairs = (b"ip:addr-pool=vip", b"ip:dns-servers=1.1.1.1 8.8.8.8", b"ip:inacl#1=web", b"junk")
    route = vendor(Vendor.CISCO, 1, b"ip:route=10.1.0.0 255.255.0.0")
    policy = accept(*(vendor(Vendor.CISCO, 1, pair) for pair in pairs), route).policy
    assert (policy.pool, policy.filter) == ("vip", "web")
    assert policy.dns == (0x01010101, 0x08080808) and policy.routes == ("10.1.0.0/16",)


def test_keys_of_version_2_and_proof() -> None:
    send = hidden.hide_key(b"S" * 16, b"\x80\x01", SECRET, RANDOM)
    receive = hidden.hide_key(b"R" * 16, b"\x80\x02", SECRET, RANDOM)
    verdict = accept(
        SUCCESS,
        vendor(MS, Ms.MPPE_SEND_KEY, send),
        vendor(MS, Ms.MPPE_RECV_KEY, receive),
        vendor(MS, Ms.MPPE_ENCRYPTION_POLICY, integer(2)),
        vendor(MS, Ms.MPPE_ENCRYPTION_TYPES, integer(6)),
        asked=V2,
    ).verdict
    assert verdict.ok and (verdict.send_key, verdict.receive_key) == (b"S" * 16, b"R" * 16)
    assert verdict.authenticator_response == "S=" + "A" * 40
    assert (verdict.mppe, verdict.mppe_strengths) == ("require", (128, 40))


def test_an_accept_that_proves_nothing_is_none() -> None:
    verdict = accept(asked=V2).verdict
    assert not verdict.ok and "MS-CHAP2-Success" in verdict.reason
    assert not accept((A.SERVICE_TYPE, integer(6))).verdict.ok


def test_keys_of_version_1() -> None:
    clear = b"L" * 8 + b"N" * 16 + bytes(8)
    hid = hidden.hide_password(clear, SECRET, RANDOM)
    asked = Asked("mschap", "anna", b"challeng")
    verdict = accept(vendor(MS, Ms.CHAP_MPPE_KEYS, hid), asked=asked).verdict
    assert verdict.start_key == mppe_keys.start_key_v1_128(b"N" * 16, b"challeng")
    assert verdict.lm_key == b"L" * 8


def test_a_reject_speaks_to_the_peer() -> None:
    error = b"\x01E=691 R=1 C=000102030405060708090a0b0c0d0e0f V=3 M=Go away"
    packet = Packet(3, 1, RANDOM, (vendor(MS, Ms.CHAP_ERROR, error),))
    verdict = replies.rejected(packet, V2, [])
    assert not verdict.ok and (verdict.error, verdict.retry) == (691, True)
    assert verdict.challenge == RANDOM and verdict.message == "Go away"
    last = Packet(3, 1, RANDOM, (vendor(MS, Ms.CHAP_ERROR, b"\x01E=648 R=0 V=3"),))
    verdict = replies.rejected(last, V2, [])
    assert (verdict.error, verdict.retry, verdict.challenge) == (648, False, b"")
    plain = replies.rejected(Packet(3, 1, RANDOM, ((A.REPLY_MESSAGE, b"no"),)), PAP, [])
    assert plain.message == "no" and "no" in plain.reason


def test_what_cannot_be_read_spoils_nothing_else() -> None:
    faults: list[RemoteError] = []
    attributes: Attributes = (
        (A.SESSION_TIMEOUT, b"\x01"),
        (A.FRAMED_IPV6_PREFIX, b"\x00\xff"),
        (26, b"\0\0\x3a\x8c\x08\x00"),
        vendor(Vendor.MIKROTIK, Mt.RATE_LIMIT, b"fast"),
        (A.IDLE_TIMEOUT, integer(9)),
    )
    found = replies.accepted(Packet(2, 1, RANDOM, attributes), PAP, SECRET, RANDOM, faults)
    assert found.verdict.ok and found.policy.idle_timeout_s == 9
    kinds = [e.fault for e in faults]
    assert kinds == ["bad_attribute", "bad_attribute", "bad_vendor_attribute", "bad_attribute"]


KINDS = st.sampled_from([*A, 26, 200])
VSAS = st.tuples(
    st.sampled_from([9, 311, 14988, 12341]), st.integers(0, 31), st.binary(max_size=40)
)


@given(
    st.lists(
        st.one_of(
            st.tuples(KINDS, st.binary(max_size=40)), VSAS.map(lambda v: vendor(v[0], v[1], v[2]))
        ),
        max_size=12,
    ),
    st.sampled_from([V2, PAP, Asked("mschap", "x", bytes(8)), Asked("eap", "y")]),
)
def test_any_attributes_give_a_policy(attributes: list[tuple[int, bytes]], asked: Asked) -> None:
    faults: list[RemoteError] = []
    packet = Packet(2, 1, RANDOM, tuple((int(k), v) for k, v in attributes))
    found = replies.accepted(packet, asked, SECRET, RANDOM, faults)
    assert found.policy.freeze()["source"] == "radius"
    replies.rejected(packet, asked, faults)
    replies.changes(packet, faults)
    assert {e.fault for e in faults} <= set(FAULTS)


CALLER = requests.Caller("0123456789abcdef", 7, "192.0.2.9", "192.0.2.1")


def test_requests_carry_what_policies_test() -> None:
    nas = requests.Nas("bras1", 0x7F000001)
    login = requests.Login("pap", "anna", response=b"pass")
    packet = Packet(1, 1, RANDOM, login.attributes(nas, CALLER, SECRET, RANDOM))
    hid = packet.get(A.USER_PASSWORD) or b""
    assert hidden.show_password(hid, SECRET, RANDOM) == b"pass"
    want = {
        A.USER_NAME: b"anna",
        A.NAS_IDENTIFIER: b"bras1",
        A.NAS_IP_ADDRESS: integer(0x7F000001),
        A.NAS_PORT: integer(7),
        A.NAS_PORT_ID: b"pptp7",
        A.NAS_PORT_TYPE: integer(5),
        A.SERVICE_TYPE: integer(2),
        A.FRAMED_PROTOCOL: integer(1),
        A.CALLING_STATION_ID: b"192.0.2.9",
        A.CALLED_STATION_ID: b"192.0.2.1",
        A.TUNNEL_TYPE: b"\0\0\0\x01",
        A.TUNNEL_MEDIUM_TYPE: b"\0\0\0\x01",
        A.TUNNEL_CLIENT_ENDPOINT: b"192.0.2.9",
        A.ACCT_SESSION_ID: b"0123456789abcdef",
    }
    assert {kind: packet.get(kind) for kind in want} == want


def test_ms_chap_responses_have_the_order_of_rfc_2548() -> None:
    nas = requests.Nas("n")
    response = bytes(range(48)) + b"\x01"
    v1 = requests.Login("mschap", "a", 5, b"challeng", response)
    assert vendor(MS, 1, b"\x05\x01" + response[:48]) in v1.attributes(nas, CALLER, b"", b"")
    v2 = requests.Login("mschapv2", "a", 5, RANDOM, response)
    assert vendor(MS, 25, b"\x05\x00" + response[:48]) in v2.attributes(nas, CALLER, b"", b"")
    assert vendor(MS, 11, RANDOM) in v2.attributes(nas, CALLER, b"", b"")


def test_long_eap_is_split() -> None:
    login = requests.Login("eap", "a", eap=bytes(600), state=b"st")
    found = Packet(1, 1, RANDOM, login.attributes(requests.Nas("n"), CALLER, b"", RANDOM))
    assert [len(part) for part in found.all(A.EAP_MESSAGE)] == [253, 253, 94]
    assert found.get(A.STATE) == b"st" and found.get(A.FRAMED_MTU) == integer(1400)
    assert text("ä" * 200)[:2] == "ä".encode()


def test_timeouts_and_what_follows_them() -> None:
    again = (A.TERMINATION_ACTION, integer(1)), (A.STATE, b"state1")
    policy = accept((A.SESSION_TIMEOUT, integer(30)), *again, (A.FRAMED_MTU, integer(1300))).policy
    assert (policy.session_timeout_s, policy.again, policy.state) == (30, True, b"state1")
    assert policy.mtu == 1300
    # 0 is "none", also where one is configured; State is for a new login only.
    policy = accept((A.SESSION_TIMEOUT, integer(0)), (A.IDLE_TIMEOUT, integer(0)), again[1]).policy
    assert (policy.session_timeout_s, policy.idle_timeout_s, policy.state) == (-1, -1, b"")


MOST = integer(0xFFFFFFFF)
NINES = b"9" * 40


@pytest.mark.parametrize(
    "attributes",
    [
        (vendor(Vendor.CISCO, 1, b"pptpcon:volume=" + NINES + b"G"),),
        (vendor(Vendor.CISCO, 1, b"lcp:interface-config#1=rate-limit input 64000 " + NINES),),
        (vendor(Vendor.MIKROTIK, Mt.RATE_LIMIT, b"1M 2M 1M " + NINES),),
        (vendor(Vendor.MPD, 7, b"in#1=all rate-limit 64000 " + NINES),),
        (
            vendor(Vendor.MIKROTIK, Mt.TOTAL_LIMIT, MOST),
            vendor(Vendor.MIKROTIK, Mt.TOTAL_LIMIT_GIGAWORDS, MOST),
        ),
        ((A.FRAMED_MTU, integer(64)),),
        ((A.SESSION_TIMEOUT, MOST), (A.PORT_LIMIT, MOST), (A.ACCT_INTERIM_INTERVAL, MOST)),
    ],
)
def test_numbers_beyond_any_measure(attributes: Attributes) -> None:
    packet = Packet(2, 1, RANDOM, attributes)
    policy = replies.accepted(packet, PAP, SECRET, RANDOM, []).policy
    assert all(-1 <= n < 1 << 63 for n in policy.freeze().values() if isinstance(n, int))
    assert policy.mtu == 0
    pack_changes(policy.freeze())
