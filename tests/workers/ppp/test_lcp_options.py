"""LCP's options and codes one by one, names of all shapes, lengths that lie (PROTOCOL.md 1.3,
traps 4.7, 4.8, 4.10, 4.11, 4.30)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.workers.ppp.test_traps import BASE, V2, Peer, h, packet, ready
from workers.ppp.actions import Authenticate, Finished, NetworkUp, Note, Send

ALL_FOUR = ("mschapv2", "mschap", "chap-md5", "pap")

ACCEPTED = {
    "MRU of Windows": "01040578",
    "MRU of RouterOS": "010405aa",
    "MRU that is the default": "010405dc",
    "ACCM none": "020600000000",
    "ACCM all": "0206ffffffff",
    "ACCM of pppd": "0206000a0000",
    "magic": "05061a2b3c4d",
    "PFC": "0702",
    "ACFC": "0802",
    "endpoint, class 1": "131701" + "aa" * 20,
    "endpoint, no address": "130300",
}
REJECTED = {
    "quality": "0408c02500000bb8",
    "callback of Windows": "0d0306",
    "MRRU": "1104064e",
    "short sequence": "1202",
    "FCS alternatives": "090304",
    "self-describing padding": "0a0303",
    "numbered mode": "0b0404c0",
    "compound frames": "0f02",
    "option zero": "0006aabbccdd",
    "unknown": "ff04aabb",
    "a wish to see our password": "0304c023",
    "MRU of three octets": "0105000578",
    "ACCM of two": "02040000",
    "magic of two": "05041234",
    "PFC with a value": "070301",
}


@pytest.mark.parametrize("options", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(options: str) -> None:
    peer = Peer()
    assert peer.tell(packet(0xC021, 1, 0, options)) == [packet(0xC021, 2, 0, options)]


@pytest.mark.parametrize("options", REJECTED.values(), ids=REJECTED)
def test_rejected_unchanged_and_alone(options: str) -> None:
    peer = Peer()
    around = "05061a2b3c4d" + options + "0802"
    assert peer.tell(packet(0xC021, 1, 7, around)) == [packet(0xC021, 4, 7, options)]
    rest = "05061a2b3c4d0802"
    assert peer.tell(packet(0xC021, 1, 8, rest)) == [packet(0xC021, 2, 8, rest)]


def test_a_rejected_option_never_stands_beside_a_naked_one() -> None:
    """4.8: an MRU to be Naked waits until the callback is gone."""
    peer = Peer()
    both = "01040010 0d0306 0506aabbccdd"
    assert peer.tell(packet(0xC021, 1, 0, both)) == [packet(0xC021, 4, 0, "0d0306")]
    (nak,) = peer.tell(packet(0xC021, 1, 1, "01040010 0506aabbccdd"))
    assert nak[:3] == h("c02103") and nak[6:10] == h("01040080")
    assert not any(
        isinstance(a, Send) and a.frame[:3] == h("c02103") and b"\x0d\x03" in a.frame
        for a in peer.log
    ), "callback is never Naked"


def test_both_begin_at_once_with_identifier_zero() -> None:
    """4.7: Windows' first identifier is 0; requests cross on the way."""
    peer = Peer()
    first = peer.last_request(0xC021)
    request = packet(0xC021, 1, 0, "01040578 05061a2b3c4d")
    (ack,) = peer.tell(request)
    assert ack == packet(0xC021, 2, 0, "01040578 05061a2b3c4d")
    assert peer.last_request(0xC021) == first, "no second request: ours is on its way"
    peer.ack(0xC021)
    (challenge,) = [a.frame for a in peer.log if isinstance(a, Send) and a.frame[:2] == h("c223")]
    assert challenge[2] == 1


@pytest.mark.parametrize(
    ("code", "name"), [(9, "echo"), (11, "discard"), (12, "identification"), (13, "time left")]
)
def test_codes_that_are_no_reason_for_a_code_reject(code: int, name: str) -> None:
    """In every phase, with nothing behind them, and cut short."""
    peer = Peer()
    for phase in range(3):
        for data in (b"", b"\x1a", b"\x1a\x2b\x3c\x4d", b"\x1a\x2b\x3c\x4d\x00\xff" * 30):
            answers = peer.tell(packet(0xC021, code, 9, data))
            assert not any(f[:3] == h("c02107") for f in answers), name
            assert code == 9 or answers == []
        if phase == 0:
            peer.lcp_up()
        elif phase == 1:
            peer.log_in()
    assert peer.link.state == "starting" and not peer.had(Finished)


@pytest.mark.parametrize(
    ("nak", "method"),
    [
        (["0305c22380"], "mschap"),
        (["0305c22305"], "chap-md5"),
        (["0304c023"], "pap"),
        (["0304c227"], "mschap"),
        (["0304c227", "0304c227"], "chap-md5"),
        (["0304c227", "0304c227", "0304c227"], "pap"),
    ],
)
def test_routeros_allows_all_four(nak: list[str], method: str) -> None:
    """4.10: to what the peer names; EAP, which is not offered here, moves one step."""
    peer = Peer(replace(BASE, auth=ALL_FOUR, mppe="deny"))
    assert h(V2) in peer.last_request(0xC021)
    for option in nak:
        peer.tell(packet(0xC021, 3, peer.last_request(0xC021)[3], option))
    peer.lcp_up()
    assert peer.link.method == method


def test_the_list_is_walked_once_then_it_ends() -> None:
    """4.10: no loop for who wants what is not there; LCP ends with a reason."""
    peer = Peer(replace(BASE, auth=ALL_FOUR, mppe="deny"))
    for _ in range(4):
        answers = peer.tell(packet(0xC021, 3, peer.last_request(0xC021)[3], "0304c227"))
    assert answers[0][:3] == h("c02105")
    peer.wait(10)
    assert peer.finished.cause == "auth_failed"


NAMES = [
    "user",
    "BIGCO\\johndoe",
    "johndoe@bigco.example",
    "BIGCO\\johndoe@realm",
    "grüße",
    "密码",
    "x" * 256,
    "D" * 127 + "\\" + "u" * 128,
]


@pytest.mark.parametrize("name", NAMES, ids=lambda n: n[:20].encode("unicode_escape").decode())
def test_names(name: str) -> None:
    """4.11: the domain is no part of the hash; realm, UTF-8 and 256 octets are a name."""
    peer = Peer()
    peer.lcp_up()
    frames = peer.log_in(name)
    assert frames[0][:3] == h("c22303")
    assert frames[0][6:8] == b"S=" and int(frames[0][8:48], 16)
    request = peer.last(Authenticate)
    assert isinstance(request, Authenticate) and request.name == name


def test_a_response_has_49_octets() -> None:
    """4.11: peer challenge 16, zeros 8, NT response 24, flags 0."""
    peer = Peer()
    peer.lcp_up()
    peer.log_in()
    assert peer.response[6] == 49 and peer.response[7:23] == b"P" * 16
    assert peer.response[23:31] == bytes(8) and peer.response[55] == 0


@pytest.mark.parametrize(
    "data",
    [
        "",
        "31",
        "ff" + "00" * 49,  # value size beyond the packet (CVE-2020-8597's cousin)
        "32" + "00" * 49,
        "30" + "00" * 48,
        "00",
        "31" + "00" * 48,
    ],
)
def test_chap_value_sizes_that_lie(data: str) -> None:
    """4.30: a note for the log, and no Authenticate of octets that are not there."""
    peer = Peer()
    peer.lcp_up()
    before = peer.had(Finished)
    peer.tell(packet(0xC223, 2, 1, data))
    if peer.had(Authenticate):  # a whole value of another length: refused by its check
        verdict = peer.verdict()
        assert verdict[0][:3] == h("c22304")
    else:
        assert any(isinstance(a, Note) and a.event == "malformed" for a in peer.log)
        assert peer.had(Finished) == before
        assert peer.log_in()[0][:3] == h("c22303"), "the real one still counts"


@pytest.mark.parametrize("protocol", [0xC021, 0x80FD, 0x8021])
@pytest.mark.parametrize("options", ["0100", "0101", "01", "0104", "01ff05", "010405780300", "00"])
def test_option_lengths_that_lie(protocol: int, options: str) -> None:
    """4.30: length 0 and 1, beyond the packet, a rest of one octet."""
    peer = ready()
    if protocol == 0x8021:
        peer.ccp_up()  # before it, a request of IPCP is kept unread
    answers = peer.tell(packet(protocol, 1, 33, options))
    assert not any(f[2] in (2, 3, 4) and f[3] == 33 for f in answers)
    notes = [a for a in peer.log if isinstance(a, Note) and a.event == "malformed"]
    assert notes and not peer.had(Finished)


@pytest.mark.parametrize("length", [0, 3, 5, 0xFFFF])
def test_packet_lengths_that_lie(length: int) -> None:
    peer = Peer()
    frame = h("c021 01 00") + length.to_bytes(2, "big")
    assert peer.tell(frame) == []
    assert any(isinstance(a, Note) and a.event == "malformed" for a in peer.log)
    assert peer.tell(packet(0xC021, 1, 1)) == [packet(0xC021, 2, 1)]


def test_padding_behind_a_packet_is_nothing() -> None:
    peer = Peer()
    assert peer.tell(packet(0xC021, 1, 1, "0702") + bytes(30)) == [packet(0xC021, 2, 1, "0702")]


def test_the_old_address_options_and_vj_are_rejected() -> None:
    """1.6, 1.5: IP-Addresses (1) of RFC 1172 and VJ with and without its slot octets."""
    peer = ready()
    peer.ccp_up()
    options = "010a0a0000010a000002 0206002d0f01"
    answer = peer.tell(packet(0x8021, 1, 1, options + "03060a630102"))
    assert answer == [packet(0x8021, 4, 1, options)]
    assert peer.tell(packet(0x8021, 1, 2, "0204002d")) == [packet(0x8021, 4, 2, "0204002d")]
    peer.ipcp_up()
    up = peer.last(NetworkUp)
    assert isinstance(up, NetworkUp)


@pytest.mark.parametrize("size", [1500, 1501, 2268])
def test_a_request_over_any_mru_is_not_answered(size: int) -> None:
    """The data path takes in a little more than it can send: a longer Ack would not fit."""
    peer = Peer()
    options = (h("02060000000005061a2b3c4d") + h("ff04aabb") * 600)[: size - 4]
    options = options[: len(options) - len(options) % 4]
    answers = peer.tell(packet(0xC021, 1, 3, options) + bytes(size - 4 - len(options)))
    assert bool(answers) == (size <= 1500)
    assert all(len(frame) <= 1502 for frame in answers)
    assert peer.tell(packet(0xC021, 1, 4, "0702")) == [packet(0xC021, 2, 4, "0702")]
