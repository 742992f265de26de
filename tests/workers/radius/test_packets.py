"""workers/radius/packets.py and hidden.py against the RFCs' octets, pyrad, and any octets."""

from __future__ import annotations

import hmac
from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.radius import hidden
from workers.radius.attributes import A, Vendor, flatten, vendor
from workers.radius.packets import (
    FAULTS,
    Code,
    Packet,
    RemoteError,
    TooLongError,
    check_request,
    check_response,
    request,
    response,
)

# RFC 2865 section 7.1
SECRET = b"xyzzy5461"
TELNET = bytes.fromhex(
    "01000038 0f403f9473978057bd83d5cb98f4227a 01066e656d6f"
    "02120dbe708d93d413ce3196e43f782a0aee 0406c0a80110 050600000003"
)
TELNET_ACCEPT = bytes.fromhex(
    "02000026 86fe220e7624ba2a1005f6bf9b55e0b2 060600000001 0f0600000000 0e06c0a80103"
)
# RFC 2865 section 7.2
CHAP = bytes.fromhex(
    "01010047 2aee86f08d0d55969ca5978e0d3367a2 0108666c6f707379"
    "031316e97557c316185895f293ff634407 7275 0406c0a80110 050600000014 060600000002 070600000001"
)
CHAP_ACCEPT = bytes.fromhex(
    "02010038 15efbc7dab26cfa3dc34d9c03c8601a4 060600000002 070600000001 0806fffffffe"
    "0a0600000002 0d0600000001 0c06000005dc"
)
RANDOM = bytes(range(16))
octets = st.binary(max_size=64)


def test_rfc_2865_telnet() -> None:
    packet = Packet.decode(TELNET)
    assert packet.code == Code.ACCESS_REQUEST
    assert packet.get(A.USER_NAME) == b"nemo"
    hid = hidden.hide_password(b"arctangent", SECRET, packet.authenticator)
    assert packet.get(A.USER_PASSWORD) == hid
    assert hidden.show_password(hid, SECRET, packet.authenticator) == b"arctangent"
    assert packet.encode() == TELNET
    answer = check_response(TELNET_ACCEPT, TELNET, SECRET)
    assert answer.code == Code.ACCESS_ACCEPT


def test_rfc_2865_chap() -> None:
    answer = check_response(CHAP_ACCEPT, CHAP, SECRET)
    assert answer.get(A.FRAMED_IP_ADDRESS) == b"\xff\xff\xff\xfe"
    packet = Packet.decode(CHAP)
    assert (packet.get(A.CHAP_PASSWORD) or b"")[0] == 0x16


def test_an_access_request_is_signed_first() -> None:
    data = request(Code.ACCESS_REQUEST, 7, ((A.USER_NAME, b"anna"),), b"s", RANDOM)
    packet = Packet.decode(data)
    assert packet.attributes[0][0] == A.MESSAGE_AUTHENTICATOR
    clear = data[:22] + bytes(16) + data[38:]
    assert packet.attributes[0][1] == hmac.digest(b"s", clear, "md5")


def test_accounting_is_proven_by_its_authenticator() -> None:
    data = request(Code.ACCOUNTING_REQUEST, 7, ((A.ACCT_SESSION_ID, b"1"),), b"s", RANDOM)
    zero = data[:4] + bytes(16) + data[20:] + b"s"
    assert data[4:20] == md5(zero).digest()
    assert check_request(data, b"s").get(A.ACCT_SESSION_ID) == b"1"
    with pytest.raises(RemoteError, match="another secret"):
        check_request(data, b"t")


@pytest.mark.parametrize("code", [Code.COA_REQUEST, Code.DISCONNECT_REQUEST])
def test_a_dynamic_request_and_its_answer(code: int) -> None:
    data = request(code, 9, ((A.USER_NAME, b"anna"),), b"s", RANDOM)
    asked = check_request(data, b"s")
    answer = response(code + 1, asked, ((A.ERROR_CAUSE, bytes(4)),), b"s")
    assert check_response(answer, data, b"s").code == code + 1
    for at in range(20, len(answer)):
        bad = answer[:at] + bytes((answer[at] ^ 1,)) + answer[at + 1 :]
        with pytest.raises(RemoteError):
            check_response(bad, data, b"s")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "short"),
        (bytes(19), "short"),
        (bytes((2, 1, 0, 21)) + bytes(16), "wrong_length"),
        (bytes((2, 1, 0, 3)) + bytes(16), "wrong_length"),
        (bytes((2, 1, 0, 22)) + bytes(16) + b"\x01\x00", "malformed"),
        (bytes((2, 1, 0, 21)) + bytes(16) + b"\x01", "malformed"),
        (bytes((2, 1, 0, 23)) + bytes(16) + b"\x01\x04a", "malformed"),
        (bytes((2, 1, 0, 20)) + bytes(16), "wrong_secret"),
    ],
)
def test_bad_answers_have_names(data: bytes, fault: str) -> None:
    with pytest.raises(RemoteError) as caught:
        check_response(data, TELNET, SECRET)
    assert caught.value.fault == fault


def test_a_wrong_message_authenticator() -> None:
    asked = Packet.decode(TELNET)
    good = response(Code.ACCESS_ACCEPT, asked, (), SECRET)
    assert check_response(good, TELNET, SECRET).get(A.MESSAGE_AUTHENTICATOR)
    signed = bytearray(good)
    signed[25] ^= 1
    zero = bytes(signed[:4]) + TELNET[4:20] + bytes(signed[20:]) + SECRET
    signed[4:20] = md5(zero).digest()
    with pytest.raises(RemoteError) as caught:
        check_response(bytes(signed), TELNET, SECRET)
    assert caught.value.fault == "wrong_message_authenticator"


def test_vendor_attributes_of_no_length_end_nothing_but_themselves() -> None:
    faults: list[RemoteError] = []
    good = vendor(Vendor.MIKROTIK, 8, b"1M/2M")
    bad = [
        (26, b""),
        (26, b"\0\0\x01\x37"),
        (26, b"\0\0\x01\x37\x10\x00"),
        (26, b"\0\0\x01\x37\x10\x09ab"),
        (26, b"\0\0\x01\x37\x10"),
    ]
    found = list(flatten([*bad, good], faults))
    assert found == [((Vendor.MIKROTIK, 8), b"1M/2M")]
    assert [e.fault for e in faults] == ["bad_vendor_attribute"] * 5


@given(st.binary(max_size=300))
def test_any_octets_give_a_packet_or_a_remote_error(data: bytes) -> None:
    for decode in (Packet.decode, lambda d: check_request(d, b"s")):
        try:
            packet = decode(data)
        except RemoteError as e:
            assert e.fault in FAULTS
        else:
            assert packet.encode() == data[: int.from_bytes(data[2:4], "big")]


@given(st.lists(st.tuples(st.integers(1, 255), octets), max_size=20))
def test_round_trip(attributes: list[tuple[int, bytes]]) -> None:
    packet = Packet(2, 3, RANDOM, tuple(attributes))
    assert Packet.decode(packet.encode() + b"padding") == packet


@given(octets, st.binary(min_size=1, max_size=40), st.binary(min_size=16, max_size=16))
def test_hidden_values(value: bytes, secret: bytes, authenticator: bytes) -> None:
    hid = hidden.hide_password(value, secret, authenticator)
    assert len(hid) % 16 == 0
    assert hidden.show_password(hid, secret, authenticator) == value.rstrip(b"\0")
    if value:
        key = hidden.hide_key(value, b"\x81\x02", secret, authenticator)
        assert hidden.show_key(key, secret, authenticator) == value


@given(st.binary(max_size=80))
def test_any_octets_are_a_hidden_value_or_a_remote_error(data: bytes) -> None:
    for show in (hidden.show_password, hidden.show_key, hidden.show_mppe_keys):
        try:
            show(data, b"secret", RANDOM)
        except RemoteError as e:
            assert e.fault in FAULTS


def test_too_much_is_an_error_of_ours() -> None:
    with pytest.raises(TooLongError):
        request(Code.ACCESS_REQUEST, 1, ((1, bytes(254)),), b"s", RANDOM)
    with pytest.raises(TooLongError):
        request(Code.ACCESS_REQUEST, 1, ((1, bytes(250)),) * 17, b"s", RANDOM)
