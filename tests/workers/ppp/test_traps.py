"""Octets that real peers send, and what they must get: ConfReqs of Windows, pppd, routers.

Each test names the client it protects. A `Peer` plays the other side octet by octet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from tests.workers.ppp.ends import ADDRESS, LOCAL, freeze_and_thaw
from workers.ppp import mschap
from workers.ppp.actions import (
    Action,
    Admission,
    Authenticate,
    Finished,
    NetworkDown,
    NetworkUp,
    Note,
    Policy,
    Send,
    SetMppe,
    Verdict,
)
from workers.ppp.credentials import check
from workers.ppp.link import Link

DNS = (0x0A000035, 0x0A000036)
BASE = Policy(dns=DNS)
V2 = "0305c22381"
MPPE128 = "120601000040"


def h(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


def packet(protocol: int, code: int, identifier: int, data: bytes | str = b"") -> bytes:
    octets = h(data) if isinstance(data, str) else data
    head = bytes([code, identifier]) + (4 + len(octets)).to_bytes(2, "big")
    return protocol.to_bytes(2, "big") + head + octets


class Peer:
    """Feeds frames to a server link and keeps what comes back."""

    def __init__(self, policy: Policy = BASE) -> None:
        self.now = 50.0
        self.link = Link(policy, magic=0xAABBCCDD, challenge=bytes(range(16)))
        self.log: list[Action] = []
        self.mark = 0
        self.link.start(self.now)
        self.pump()

    def pump(self) -> None:
        while actions := self.link.take():
            self.log.extend(actions)

    def tell(self, frame: bytes) -> list[bytes]:
        """Frames that answer `frame`."""
        before = len(self.log)
        self.link.receive(frame, self.now)
        self.pump()
        return [a.frame for a in self.log[before:] if isinstance(a, Send)]

    def wait(self, seconds: float) -> list[bytes]:
        before = len(self.log)
        end = self.now + seconds
        while (at := self.link.deadline) is not None and at <= end:
            self.now = max(self.now, at)
            self.link.handle_timer(self.now)
            self.pump()
        self.now = end
        return [a.frame for a in self.log[before:] if isinstance(a, Send)]

    def last(self, kind: type) -> Action:
        return next(a for a in reversed(self.log) if isinstance(a, kind))

    def had(self, kind: type) -> int:
        return sum(isinstance(a, kind) for a in self.log)

    def last_request(self, protocol: int) -> bytes:
        head = protocol.to_bytes(2, "big") + b"\x01"
        return next(
            a.frame for a in reversed(self.log) if isinstance(a, Send) and a.frame[:3] == head
        )

    def ack(self, protocol: int) -> list[bytes]:
        """Acknowledge our side's last Configure-Request."""
        request = bytearray(self.last_request(protocol))
        request[2] = 2
        return self.tell(bytes(request))

    def lcp_up(self, options: str = "0104057805065f5f5f5f") -> None:
        assert self.tell(packet(0xC021, 1, 0, options)) == [packet(0xC021, 2, 0, options)]
        self.ack(0xC021)

    def log_in(self, name: str = "user", password: str = "secret") -> list[bytes]:  # noqa: S107
        challenge = next(
            a.frame
            for a in reversed(self.log)
            if isinstance(a, Send) and a.frame[:3] == h("c22301")
        )
        value = challenge[7:23]
        nt_hash = mschap.nt_password_hash(password)
        user = mschap.octets(mschap.split_domain(name)[1])
        mine = b"P" * 16
        response = mschap.generate_nt_response(value, mine, user, nt_hash)
        data = b"\x31" + mine + bytes(8) + response + b"\0" + name.encode()
        self.response = packet(0xC223, 2, challenge[3], data)
        self.tell(self.response)
        return self.verdict()

    def verdict(self) -> list[bytes]:
        before = len(self.log)
        request = self.last(Authenticate)
        assert isinstance(request, Authenticate)
        verdict = check(request, "secret")
        self.link.authenticated(replace(verdict, user=request.name), self.now)
        self.pump()
        return [a.frame for a in self.log[before:] if isinstance(a, Send)]

    def admit(self) -> list[bytes]:
        before = len(self.log)
        self.link.admitted(ADDRESS, LOCAL, "", self.now)
        self.pump()
        return [a.frame for a in self.log[before:] if isinstance(a, Send)]

    def ccp_up(self) -> None:
        self.tell(packet(0x80FD, 1, 4, MPPE128))
        self.ack(0x80FD)

    def ipcp_up(self, options: str = "03060a630102") -> None:
        self.tell(packet(0x8021, 1, 5, options))
        self.ack(0x8021)

    def all_up(self) -> None:
        self.lcp_up()
        self.log_in()
        self.admit()
        self.ccp_up()
        self.ipcp_up()
        assert self.link.state == "active"

    @property
    def finished(self) -> Finished:
        action = self.last(Finished)
        assert isinstance(action, Finished)
        return action


# -- LCP


def test_our_first_request() -> None:
    peer = Peer()
    want = packet(0xC021, 1, 1, "01040578 0305c22381 0506aabbccdd 0702 0802")
    assert peer.log == [Send(want)]


WINDOWS = "01040578 05061a2b3c4d 0702 0802 0d0306 1104064e 131701 " + "aa" * 20


def test_windows_request() -> None:
    """4.8: one Reject with callback and MRRU, in order and unchanged; then an Ack."""
    peer = Peer()
    answer = peer.tell(packet(0xC021, 1, 0, WINDOWS))
    assert answer == [packet(0xC021, 4, 0, "0d0306 1104064e")]
    rest = WINDOWS.replace("0d0306 1104064e ", "")
    assert peer.tell(packet(0xC021, 1, 1, rest)) == [packet(0xC021, 2, 1, rest)]
    peer.ack(0xC021)
    peer.log_in()
    peer.admit()
    peer.ccp_up()
    peer.ipcp_up()
    up = peer.last(NetworkUp)
    assert isinstance(up, NetworkUp)
    assert up.agreed.acfc and up.agreed.pfc and up.agreed.peer_magic == 0x1A2B3C4D


@pytest.mark.parametrize("code", [12, 13])
def test_identification_is_no_unknown_code(code: int) -> None:
    """4.9: right after LCP opens and during CHAP, with binary content."""
    peer = Peer()
    peer.lcp_up()
    for text in (b"MSRASV5.20", b"MSRAS-0-HOST", b"\x00\xff\x1b[2J"):
        assert peer.tell(packet(0xC021, code, 3, b"\x1a\x2b\x3c\x4d" + text)) == []
    notes = [dict(a.fields)["text"] for a in peer.log if isinstance(a, Note)]
    assert notes == ["MSRASV5.20", "MSRAS-0-HOST", "...[2J"]
    assert peer.log_in()


@pytest.mark.parametrize(
    ("nak", "next_one"),
    [("0304c023", "0304c023"), ("0305c22305", "0305c22305"), ("0304c227", "0305c22380")],
)
def test_auth_walks_down(nak: str, next_one: str) -> None:
    """4.10: to what the peer names if it is allowed, else to the next of the list."""
    peer = Peer(replace(BASE, auth=("mschapv2", "mschap", "chap-md5", "pap"), mppe="deny"))
    (answer,) = peer.tell(packet(0xC021, 3, 1, nak))
    assert h(next_one) in answer and answer[:4] == h("c0210102")


def test_auth_list_ends() -> None:
    peer = Peer(replace(BASE, auth=("mschapv2", "mschap")))
    peer.tell(packet(0xC021, 3, 1, "0304c227"))
    (answer,) = peer.tell(packet(0xC021, 3, 2, "0304c227"))
    assert answer[2] == 5, "Terminate-Request, no loop"
    peer.wait(10)
    assert peer.finished.cause == "auth_failed"
    assert "mschapv2, mschap" in peer.finished.reason


def test_auth_rejected() -> None:
    peer = Peer()
    peer.tell(packet(0xC021, 4, 1, V2))
    peer.wait(10)
    assert peer.finished == Finished("auth_failed", "the peer refuses to authenticate")


def test_all_framings() -> None:
    """4.21: ff03 present or not, protocol of one octet or two, from the first packet on."""
    peer = Peer()
    request = packet(0xC021, 1, 0, "05061a2b3c4d")
    ack = packet(0xC021, 2, 0, "05061a2b3c4d")
    assert peer.tell(request) == [ack]
    assert peer.tell(b"\xff\x03" + request) == [ack]
    peer.ack(0xC021)
    assert peer.tell(h("ff03 21 4500")) == [] and peer.tell(h("21 4500")) == []


def test_stale_and_repeated_answers_do_nothing() -> None:
    """4.7."""
    peer = Peer()
    request = bytearray(peer.last_request(0xC021))
    request[2] = 2
    stale = bytes(request[:3]) + b"\x09" + bytes(request[4:])
    assert peer.tell(stale) == []
    peer.all_up()
    assert peer.tell(bytes(request)) == [] and peer.link.state == "active"


def test_wrong_magic_and_small_mru_are_naked() -> None:
    peer = Peer()
    (answer,) = peer.tell(packet(0xC021, 1, 0, "0506aabbccdd"))
    assert answer[:4] == h("c0210300") and answer[6:8] == h("0506")
    assert answer[8:] not in (h("aabbccdd"), h("00000000"))
    assert peer.tell(packet(0xC021, 1, 1, "01040010")) == [packet(0xC021, 3, 1, "01040080")]


def test_echo_is_answered_with_our_magic_and_cut() -> None:
    """4.24, accel #204."""
    peer = Peer()
    peer.lcp_up("01040080 05061a2b3c4d")
    (answer,) = peer.tell(packet(0xC021, 9, 7, h("1a2b3c4d") + b"x" * 1000))
    assert answer[:4] == h("c0210a07") and answer[6:10] == h("aabbccdd")
    assert len(answer) == 2 + 128
    assert peer.tell(packet(0xC021, 10, 7, "1a2b3c4d")) == []
    assert peer.tell(packet(0xC021, 11, 7, "1a2b3c4d")) == []


def test_code_reject() -> None:
    peer = Peer()
    (answer,) = peer.tell(packet(0xC021, 99, 7, "0102"))
    assert answer == packet(0xC021, 7, 2, "63 07 0006 0102")


def test_terminate_of_the_peer() -> None:
    """4.26."""
    peer = Peer()
    peer.all_up()
    assert peer.tell(packet(0xC021, 5, 9, b"User request")) == [packet(0xC021, 6, 9)]
    assert peer.had(NetworkDown) == 1 and peer.link.state == "finishing"
    peer.wait(2.9)
    assert not peer.had(Finished)
    peer.wait(0.2)
    assert peer.finished.cause == "user_request"
    assert isinstance(peer.log[-1], Finished) and peer.link.deadline is None


def test_abort_says_nothing() -> None:
    peer = Peer()
    peer.all_up()
    before = peer.had(Send)
    peer.link.abort("lost_carrier", "TCP closed")
    peer.pump()
    assert [type(a) for a in peer.log[-2:]] == [NetworkDown, Finished]
    assert peer.had(Send) == before
    assert peer.tell(packet(0xC021, 1, 0)) == []


# -- authentication


def test_repeated_response_gets_the_same_success() -> None:
    """4.12: nobody is asked twice, nor after thawing."""
    peer = Peer()
    peer.lcp_up()
    (success, *_) = peer.log_in()
    assert success[:3] == h("c22303")
    text = success[6:].decode()
    assert text.startswith("S=") and text[2:42] == text[2:42].upper() and text[42:45] == " M="
    assert peer.tell(peer.response) == [success]
    peer.admit()
    peer.ccp_up()
    peer.ipcp_up()
    peer.link = freeze_and_thaw(peer.link)
    assert peer.tell(peer.response) == [success]
    assert peer.had(Authenticate) == 1 and peer.had(Admission) == 1


def test_response_while_the_verdict_is_awaited() -> None:
    peer = Peer()
    peer.lcp_up()
    data = b"\x31" + bytes(49) + b"user"
    for _ in range(3):
        assert peer.tell(packet(0xC223, 2, 1, data)) == []
    assert peer.had(Authenticate) == 1


def test_failure_text() -> None:
    peer = Peer()
    peer.lcp_up()
    frames = peer.log_in(password="no")
    assert frames[0][:3] == h("c22304")
    fields = frames[0][6:].decode().split(" ", 4)
    assert fields[:2] == ["E=691", "R=0"] and fields[3] == "V=3" and fields[4].startswith("M=")
    assert len(fields[2]) == 2 + 32 and int(fields[2][2:], 16)
    assert frames[1][:3] == h("c02105")
    peer.tell(packet(0xC021, 6, frames[1][3]))
    assert peer.finished == Finished("auth_failed", "wrong password")


def test_failure_of_version_1_has_its_own_shape() -> None:
    peer = Peer(replace(BASE, auth=("mschap",)))
    peer.lcp_up()
    peer.tell(packet(0xC223, 2, 1, b"\x31" + bytes(48) + b"\x01user"))
    (failure, _) = peer.verdict()
    assert failure[6:].startswith(b"E=691 R=0 C=") and failure[6:].endswith(b" V=2")


def test_late_verdict_is_ignored() -> None:
    peer = Peer()
    peer.lcp_up()
    peer.tell(packet(0xC223, 2, 1, b"\x31" + bytes(49) + b"user"))
    peer.wait(60)
    assert peer.finished.cause == "auth_failed" and "within 30 s" in peer.finished.reason
    peer.link.authenticated(Verdict(True, "user"), peer.now)
    peer.pump()
    assert not peer.had(Admission)


def test_challenges_are_repeated() -> None:
    peer = Peer()
    peer.lcp_up()
    again = peer.wait(9.5)
    assert len(again) == 3 and len(set(again)) == 1 and again[0][:3] == h("c22301")


def test_pap() -> None:
    peer = Peer(replace(BASE, auth=("pap",), mppe="deny"))
    peer.lcp_up()
    request = packet(0xC023, 1, 3, b"\x04user\x06secret")
    assert peer.tell(request) == []
    assert peer.verdict() == [packet(0xC023, 2, 3, b"\0")]
    # Its next number, the same answer.
    again = packet(0xC023, 1, 4, b"\x04user\x06secret")
    assert peer.tell(again) == [packet(0xC023, 2, 4, b"\0")]
    assert peer.had(Authenticate) == 1


# -- CCP


def ready(policy: Policy = BASE) -> Peer:
    """A peer that has logged in and been admitted; CCP is next."""
    peer = Peer(policy)
    peer.lcp_up()
    peer.log_in()
    peer.admit()
    return peer


def test_our_ccp_request() -> None:
    assert ready().last_request(0x80FD) == packet(0x80FD, 1, 1, MPPE128)


def test_all_strengths_are_offered_at_first() -> None:
    """pppd with `require-mppe-40` hangs up at a request for 128 bits alone."""
    peer = ready(replace(BASE, mppe_strengths=(128, 40)))
    assert peer.last_request(0x80FD) == packet(0x80FD, 1, 1, "120601000060")
    (again,) = peer.tell(packet(0x80FD, 3, 1, "120601000020"))
    assert again == packet(0x80FD, 1, 2, "120601000020")
    peer = ready(replace(BASE, mppe_strengths=(128, 40)))
    (again,) = peer.tell(packet(0x80FD, 3, 1, "120601000060"))
    assert again == packet(0x80FD, 1, 2, MPPE128)


def test_windows_98() -> None:
    """4.14: LZS alone is rejected, then MPPE is Naked to one bit, then acknowledged."""
    peer = ready(replace(BASE, mppe_strengths=(128, 40)))
    lzs = "1105000104"
    answer = peer.tell(packet(0x80FD, 1, 1, "120601000031" + lzs))
    assert answer == [packet(0x80FD, 4, 1, lzs)]
    answer = peer.tell(packet(0x80FD, 1, 2, "120601000031"))
    assert answer == [packet(0x80FD, 3, 2, "120601000020")]
    answer = peer.tell(packet(0x80FD, 1, 3, "120601000020"))
    assert answer == [packet(0x80FD, 2, 3, "120601000020")]
    # Its own wish for us is 40, too.
    (answer2,) = peer.tell(packet(0x80FD, 3, 1, "120601000020"))
    assert answer2 == packet(0x80FD, 1, 2, "120601000020")
    peer.ack(0x80FD)
    keys = peer.last(SetMppe)
    assert isinstance(keys, SetMppe) and keys.rx_bits == keys.tx_bits == 40
    assert len(keys.rx_key) == len(keys.tx_key) == 8 and keys.rx_key != keys.tx_key


@pytest.mark.parametrize("offer", ["010000e1", "010000e0", "000000e0", "00000040", "01000041"])
def test_windows_2000_and_others_are_naked_to_one_bit(offer: str) -> None:
    peer = ready()
    assert peer.tell(packet(0x80FD, 1, 1, "1206" + offer)) == [packet(0x80FD, 3, 1, MPPE128)]
    assert peer.tell(packet(0x80FD, 1, 2, MPPE128)) == [packet(0x80FD, 2, 2, MPPE128)]


def test_stateful_insisted_on() -> None:
    stubborn = "120600000040"
    peer = ready()
    for number in range(12):
        peer.tell(packet(0x80FD, 1, number, stubborn))
    peer.wait(10)
    assert peer.finished.cause == "ccp_failed"
    assert peer.finished.reason == "MPPE required: the peer insists on stateful MPPE"
    peer = ready(replace(BASE, mppe_stateful=True))
    assert peer.tell(packet(0x80FD, 1, 1, stubborn)) == [packet(0x80FD, 2, 1, stubborn)]
    peer.tell(packet(0x80FD, 3, 1, stubborn))
    peer.ack(0x80FD)
    keys = peer.last(SetMppe)
    assert isinstance(keys, SetMppe) and keys.rx_stateful and keys.tx_stateful


def test_no_bits_at_all() -> None:
    """4.14, TP-Link: acknowledged unless encryption is required."""
    zero = "120600000000"
    peer = ready(replace(BASE, mppe="prefer"))
    assert peer.tell(packet(0x80FD, 1, 1, zero)) == [packet(0x80FD, 2, 1, zero)]
    peer = ready(replace(BASE, mppe="deny"))
    assert packet(0x80FD, 2, 1, zero) in peer.tell(packet(0x80FD, 1, 1, zero))
    peer = ready()
    assert peer.tell(packet(0x80FD, 1, 1, zero)) == [packet(0x80FD, 3, 1, MPPE128)]


def test_repeated_mppe_option() -> None:
    peer = ready()
    assert peer.tell(packet(0x80FD, 1, 1, MPPE128 * 2)) == [packet(0x80FD, 3, 1, MPPE128)]
    assert peer.tell(packet(0x80FD, 1, 2, MPPE128)) == [packet(0x80FD, 2, 2, MPPE128)]


@pytest.mark.parametrize("mppe", ["prefer", "deny"])
def test_deflate_and_bsd(mppe: Literal["prefer", "deny"]) -> None:
    """4.15: one Reject with all three, then the empty request is acknowledged."""
    peer = ready(replace(BASE, mppe=mppe))
    three = "1a047800 18047800 15032f"
    assert packet(0x80FD, 4, 1, three) in peer.tell(packet(0x80FD, 1, 1, three))
    assert packet(0x80FD, 2, 2) in peer.tell(packet(0x80FD, 1, 2))
    if mppe == "prefer":
        peer.tell(packet(0x80FD, 4, 1, MPPE128))
    peer.ack(0x80FD)
    peer.ipcp_up()
    assert peer.link.state == "active" and not peer.had(SetMppe)


@pytest.mark.parametrize("mppe", ["require", "prefer"])
def test_ccp_protocol_rejected(mppe: Literal["require", "prefer"]) -> None:
    peer = ready(replace(BASE, mppe=mppe))
    peer.tell(packet(0xC021, 8, 1, "80fd 0101000a120601000040"))
    if mppe == "require":
        peer.wait(10)
        assert peer.finished.cause == "ccp_failed"
        assert peer.finished.reason.startswith("MPPE required")
    else:
        peer.ipcp_up()
        assert peer.link.state == "active"


@pytest.mark.parametrize("mppe", ["require", "prefer"])
def test_ccp_ended_on_a_live_link(mppe: Literal["require", "prefer"]) -> None:
    """Required: the link ends, never is it clear. Preferred: it goes on in the clear."""
    peer = Peer(replace(BASE, mppe=mppe))
    peer.all_up()
    assert peer.tell(packet(0x80FD, 5, 9)) == [packet(0x80FD, 6, 9)]
    assert peer.had(NetworkDown) == 1
    peer.wait(4)
    if mppe == "require":
        peer.wait(10)
        assert peer.finished == Finished("ccp_failed", "MPPE required: the peer ended CCP")
        assert peer.had(NetworkUp) == 1
        return
    kinds = [type(a) for a in peer.log if type(a) in (NetworkDown, SetMppe, NetworkUp)]
    assert kinds == [SetMppe, NetworkUp, NetworkDown, SetMppe, NetworkUp]
    up = peer.last(NetworkUp)
    assert isinstance(up, NetworkUp) and up.agreed.mppe_tx_bits == 0 and up.agreed.mtu == 1400


@pytest.mark.parametrize("mppe", ["require", "prefer"])
def test_ccp_half_agreed_then_silent(mppe: Literal["require", "prefer"]) -> None:
    """The peer may take CCP for open: going on in the clear would lose all its data."""
    peer = ready(replace(BASE, mppe=mppe))
    peer.tell(packet(0x80FD, 1, 4, MPPE128))
    peer.wait(60)
    assert peer.finished.cause == "ccp_failed" and not peer.had(NetworkUp)


def test_prefer_does_not_wait_for_ever() -> None:
    peer = ready(replace(BASE, mppe="prefer"))
    assert not any(f[:2] == h("8021") for f in peer.wait(5.9))
    assert any(f[:2] == h("8021") for f in peer.wait(0.2))


def test_method_without_keys() -> None:
    peer = Peer(replace(BASE, auth=("chap-md5",)))
    peer.lcp_up()
    peer.wait(10)
    assert peer.finished.cause == "ccp_failed"
    assert peer.finished.reason == (
        "MPPE required, but authentication by chap-md5 gives no keys for it"
    )


def test_reset_request_gets_an_ack() -> None:
    peer = Peer()
    peer.all_up()
    assert peer.tell(packet(0x80FD, 14, 9)) == [packet(0x80FD, 15, 9)]
    assert peer.tell(packet(0x80FD, 15, 9)) == [] and peer.link.state == "active"


def test_late_ccp_request_is_negotiated() -> None:
    """4.16: a live link's keys are made anew, nothing is Protocol-Rejected."""
    peer = Peer()
    peer.all_up()
    peer.link = freeze_and_thaw(peer.link)
    answers = peer.tell(packet(0x80FD, 1, 77, MPPE128))
    assert [f[:3] for f in answers] == [h("80fd01"), h("80fd02")]
    assert peer.had(NetworkDown) == 1
    peer.link = freeze_and_thaw(peer.link)
    peer.ack(0x80FD)
    assert peer.had(SetMppe) == 3 - 1 and peer.had(NetworkUp) == 2
    kinds = [type(a) for a in peer.log if type(a) in (NetworkDown, SetMppe, NetworkUp)]
    assert kinds == [SetMppe, NetworkUp, NetworkDown, SetMppe, NetworkUp]


# -- IPCP

WANTS = "030600000000 810600000000 820600000000 830600000000 840600000000"


def test_ipcp_rejects_then_naks_then_acks() -> None:
    """4.22."""
    peer = ready()
    peer.ccp_up()
    vj = "0206002d0f01"
    wins = "820600000000 840600000000"
    answer = peer.tell(packet(0x8021, 1, 1, vj + WANTS))
    assert answer == [packet(0x8021, 4, 1, vj + wins)]
    answer = peer.tell(packet(0x8021, 1, 2, "030600000000 810600000000 830600000000"))
    good = "03060a630102 81060a000035 83060a000036"
    assert answer == [packet(0x8021, 3, 2, good)]
    assert peer.tell(packet(0x8021, 1, 3, good)) == [packet(0x8021, 2, 3, good)]
    peer.ack(0x8021)
    up = peer.last(NetworkUp)
    assert isinstance(up, NetworkUp)
    assert up.agreed.address == ADDRESS and up.agreed.local == LOCAL and up.agreed.dns == DNS
    assert up.agreed.mtu == 1396


def test_wins_when_configured() -> None:
    peer = ready(replace(BASE, wins=(0x0A000037,)))
    peer.ccp_up()
    answer = peer.tell(packet(0x8021, 1, 1, WANTS))
    assert answer == [packet(0x8021, 4, 1, "840600000000")]


@pytest.mark.parametrize("early", ["before ccp", "before admission"])
def test_early_ipcp_is_held(early: str) -> None:
    """4.16: RouterOS hangs up at a Terminate-Ack; the request is answered when it may be."""
    peer = Peer()
    peer.lcp_up()
    peer.log_in()
    if early == "before ccp":
        peer.admit()
    assert peer.tell(packet(0x8021, 1, 1, WANTS)) == []
    if early == "before admission":
        peer.ccp_up()
        frames = peer.admit()
    else:
        peer.tell(packet(0x80FD, 1, 4, MPPE128))
        frames = peer.ack(0x80FD)
    assert [f[:4] for f in frames] == [h("80210101"), h("80210401")]
    assert not any(f[:3] == h("802106") for f in [a.frame for a in peer.log if type(a) is Send])


def test_no_ipcp_before_encryption() -> None:
    peer = ready()
    peer.wait(10)
    assert not any(isinstance(a, Send) and a.frame[:2] == h("8021") for a in peer.log)


def test_peer_names_its_own_address() -> None:
    peer = ready()
    peer.ccp_up()
    for number in range(10):
        answer = peer.tell(packet(0x8021, 1, number, "0306c0a80001"))
        assert answer == [packet(0x8021, 3, number, "03060a630102")]
    peer.tell(packet(0x8021, 1, 11, "0306c0a80001"))
    peer.wait(10)
    assert peer.finished.cause == "ipcp_failed" and "insists on an address" in peer.finished.reason


def test_peer_that_names_no_address() -> None:
    peer = ready()
    peer.ccp_up()
    for number in (1, 2):
        answer = peer.tell(packet(0x8021, 1, number))
        assert answer == [packet(0x8021, 3, number, "03060a630102")]
    assert peer.tell(packet(0x8021, 1, 3)) == [packet(0x8021, 2, 3)]


def test_our_address_is_naked() -> None:
    """4.22: no quarrel, the option is left out."""
    peer = ready()
    peer.ccp_up()
    answer = peer.tell(packet(0x8021, 3, 1, "0306c0a80001"))
    assert answer == [packet(0x8021, 1, 2)]
    peer.tell(packet(0x8021, 2, 2))
    peer.tell(packet(0x8021, 1, 5, "03060a630102"))
    assert peer.link.state == "active"


def test_endless_naks_end() -> None:
    peer = ready()
    peer.ccp_up()
    for _ in range(25):
        if peer.had(Finished):
            break
        identifier = peer.last_request(0x8021)[3]
        peer.tell(packet(0x8021, 3, identifier, "0306c0a80001"))
    peer.wait(10)
    assert peer.finished.cause == "ipcp_failed"


@pytest.mark.parametrize("protocol", [0x8057, 0x802B, 0x8029, 0x80FB, 0xC025])
def test_unknown_protocols_are_rejected_once(protocol: int) -> None:
    """4.23: IPv6CP, IPX, AppleTalk ...; a TermReq in them does not end IPv4."""
    peer = Peer()
    peer.all_up()
    frame = packet(protocol, 1, 1, "010a0000000000000001")
    (answer,) = peer.tell(frame)
    assert answer[:3] == h("c02108") and answer[6:] == frame
    peer.link = freeze_and_thaw(peer.link)
    assert peer.tell(frame) == [] and peer.tell(packet(protocol, 5, 2)) == []
    assert peer.link.state == "active"


def test_ipcp_ended_by_the_peer() -> None:
    peer = Peer()
    peer.all_up()
    assert peer.tell(packet(0x8021, 5, 3)) == [packet(0x8021, 6, 3)]
    assert peer.had(NetworkDown) == 1
    peer.wait(20)
    assert peer.finished == Finished("user_request", "the peer ended IPCP")


def test_ipcp_renegotiated_on_a_live_link() -> None:
    peer = Peer()
    peer.all_up()
    peer.link = freeze_and_thaw(peer.link)
    answers = peer.tell(packet(0x8021, 1, 60, "03060a630102"))
    assert [f[:3] for f in answers] == [h("802101"), h("802102")]
    assert peer.had(NetworkDown) == 1
    peer.ack(0x8021)
    assert peer.had(NetworkUp) == 2 and peer.had(Admission) == 1


def test_mtu_is_cut_for_mppe_only_where_needed() -> None:
    """4.24: 4 octets below the peer's MRU, and no more."""
    for mru, mppe, mtu in [(1400, True, 1396), (1500, True, 1400), (1402, True, 1398)]:
        peer = Peer()
        peer.lcp_up(f"0104{mru:04x}05065f5f5f5f")
        peer.log_in()
        peer.admit()
        peer.ccp_up()
        peer.ipcp_up()
        up = peer.last(NetworkUp)
        assert isinstance(up, NetworkUp) and bool(up.agreed.mppe_tx_bits) == mppe
        assert up.agreed.mtu == mtu


def test_negotiation_that_never_ends_is_ended() -> None:
    peer = Peer()
    for number in range(100):
        if peer.had(Finished):
            break
        peer.tell(packet(0xC021, 1, number & 0xFF, "0d0306"))
        identifier = peer.last_request(0xC021)[3]
        if number < 15:
            peer.tell(packet(0xC021, 3, identifier, "01040500"))
        peer.wait(1)
    assert peer.finished.cause in ("negotiation_timeout", "lcp_failed")
