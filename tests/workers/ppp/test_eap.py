"""EAP, RFC 3748: octets of each step, walking down by Nak, retransmission, passing through."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.workers.ppp.ends import End, freeze_and_thaw, pair
from tests.workers.ppp.test_link_ends import both_up, check_up, policies
from tests.workers.ppp.test_traps import BASE, MPPE128, Peer, h, packet
from workers.ppp import mschap
from workers.ppp.actions import Authenticate, EapRelay, Finished, Note, Policy, Verdict
from workers.ppp.chap import respond_v2
from workers.ppp.link import Link

EAP = 0xC227
CLEAR = replace(BASE, auth=("eap",), mppe="deny")
KEYED = replace(BASE, auth=("eap",))


def eap_peer(policy: Policy) -> Peer:
    """LCP is open, the identity has been asked for."""
    peer = Peer(policy)
    peer.lcp_up()
    return peer


def identity(peer: Peer, name: bytes = b"user", identifier: int = 1) -> list[bytes]:
    return peer.tell(packet(EAP, 2, identifier, b"\x01" + name))


def mschapv2(peer: Peer, request: bytes, password: str = "secret") -> list[bytes]:  # noqa: S107
    """Answer an EAP-MSCHAPv2 challenge, take the verdict; the frames that follow it."""
    assert request[:3] == h("c22701") and request[6] == 26
    at = request.find(b"C=")  # a Failure that lets us try again, or a Challenge
    challenge = bytes.fromhex(request[at + 2 : at + 34].decode()) if at > 0 else request[12:28]
    ms_id = request[8] + (1 if at > 0 else 0)
    value, peer.response, _ = respond_v2(challenge, b"P" * 16, "user", password)  # type: ignore[assignment]
    data = b"\x31" + value + b"user"
    body = bytes([26, 2, ms_id]) + (4 + len(data)).to_bytes(2, "big") + data
    assert peer.tell(packet(EAP, 2, request[3], body)) == []
    return peer.verdict()


def test_lcp_option_and_identity() -> None:
    peer = Peer(KEYED)
    assert h("0304c227") in peer.last_request(0xC021)
    peer.lcp_up()
    assert peer.link.method == "eap"
    assert peer.wait(6.5) == [packet(EAP, 1, 1, "01")] * 2, "the same number each time"


def test_mschapv2_step_by_step() -> None:
    peer = eap_peer(KEYED)
    (request,) = identity(peer)
    # type 26, Challenge, number, MS-Length, value size, 16 octets, our name
    assert request[:4] == h("c2270102") and request[6:12] == h("1a 01 02 001c 10")
    assert int.from_bytes(request[4:6], "big") == len(request) - 2
    assert request[28:] == b"pptpcon"
    (success,) = mschapv2(peer, request)
    said = peer.last(Authenticate)
    assert isinstance(said, Authenticate)
    assert (said.method, said.identifier, len(said.response)) == ("eap-mschapv2", 2, 49)
    assert success[:4] == h("c2270103") and success[6:9] == h("1a 03 02")
    text = success[11:].decode()
    assert text.startswith(str(peer.response)) and " M=" in text and text[2:42].isupper()
    last = peer.tell(packet(EAP, 2, 3, "1a03"))
    assert last[0] == packet(EAP, 3, 3)
    assert last[1] == packet(0x80FD, 1, 1, MPPE128)
    peer.admit()
    peer.ccp_up()
    peer.ipcp_up()
    assert peer.link.state == "active" and peer.link.method == "eap-mschapv2"
    # EAP's Success may be lost: the same answer again, asked of nobody.
    peer.link = freeze_and_thaw(peer.link)
    assert peer.tell(packet(EAP, 2, 3, "1a03")) == [packet(EAP, 3, 3)]
    assert peer.had(Authenticate) == 1


def test_md5_step_by_step() -> None:
    peer = eap_peer(replace(CLEAR, eap=("md5",)))
    (request,) = identity(peer, b"user\0option=1")
    assert request[:4] == h("c2270102") and request[6:8] == h("04 10")
    value = mschap.chap_md5(2, b"secret", request[8:24])
    assert peer.tell(packet(EAP, 2, 2, b"\x04\x10" + value + b"user")) == []
    said = peer.last(Authenticate)
    assert isinstance(said, Authenticate)
    assert (said.method, said.name, said.identifier) == ("eap-md5", "user", 2)
    assert peer.verdict()[0] == packet(EAP, 3, 2)
    assert peer.link.method == "eap-md5"


def test_walks_down_to_what_the_peer_names() -> None:
    """pppd knows MD5 and no MSCHAPv2."""
    peer = eap_peer(CLEAR)
    (request,) = identity(peer)
    assert request[6] == 26
    (request,) = peer.tell(packet(EAP, 2, 2, "0304"))
    assert request[3] == 3 and request[6] == 4


@pytest.mark.parametrize(
    ("nak", "reason"),
    [
        ("030d", "EAP type 13 (TLS)"),
        ("031915", "EAP type 25 (PEAP), 21 (TTLS)"),
        ("0300", "no type we have"),
        ("03", "no type we have"),
        ("fe0000000000000003", "no type we have"),
    ],
)
def test_types_we_do_not_have_are_refused_by_name(nak: str, reason: str) -> None:
    peer = eap_peer(KEYED)
    identity(peer)
    frames = peer.tell(packet(EAP, 2, 2, nak))
    assert frames[0] == packet(EAP, 4, 2) and frames[1][:3] == h("c02105")
    peer.wait(10)
    assert peer.finished.cause == "auth_failed"
    assert reason in peer.finished.reason and "eap-mschapv2" in peer.finished.reason


def test_md5_is_not_offered_where_encryption_is_required() -> None:
    peer = eap_peer(replace(KEYED, eap=("md5", "mschapv2")))
    (request,) = identity(peer)
    assert request[6] == 26
    assert peer.tell(packet(EAP, 2, 2, "0304"))[0] == packet(EAP, 4, 2)
    peer = Peer(replace(KEYED, eap=("md5",)))
    peer.lcp_up()
    peer.wait(10)
    assert peer.finished.cause == "ccp_failed" and "eap gives no keys" in peer.finished.reason


def test_wrong_password() -> None:
    peer = eap_peer(KEYED)
    (request,) = identity(peer)
    (failure,) = mschapv2(peer, request, "wrong")
    assert failure[6:9] == h("1a 04 02")
    assert failure[11:].startswith(b"E=691 R=0 C=") and b" V=3 M=" in failure
    frames = peer.tell(packet(EAP, 2, 3, "1a04"))
    assert frames[0] == packet(EAP, 4, 3)
    peer.wait(10)
    assert peer.finished == Finished("auth_failed", "wrong password")


def test_failure_that_is_not_confirmed() -> None:
    peer = eap_peer(KEYED)
    (request,) = identity(peer)
    mschapv2(peer, request, "wrong")
    frames = peer.wait(9.1)
    assert [f[:3] for f in frames] == [h("c22701")] * 2 + [h("c22704"), h("c02105")]
    peer.wait(10)
    assert peer.finished == Finished("auth_failed", "wrong password")


def test_retry() -> None:
    peer = eap_peer(replace(KEYED, auth_retries=1))
    (request,) = identity(peer)
    (failure,) = mschapv2(peer, request, "wrong")
    assert b"E=691 R=1 C=" in failure
    assert peer.wait(29) == [], "a person is typing"
    (success,) = mschapv2(peer, failure, "secret")
    assert success[6:8] == h("1a 03") and str(peer.response).encode() in success
    assert peer.tell(packet(EAP, 2, success[3], "1a03"))[0][:3] == h("c22703")


def test_retry_that_is_not_used() -> None:
    peer = eap_peer(replace(KEYED, auth_retries=1))
    (request,) = identity(peer)
    (failure,) = mschapv2(peer, request, "wrong")
    assert peer.tell(packet(EAP, 2, failure[3], "1a04"))[0][:3] == h("c22704")
    peer.wait(10)
    assert peer.finished == Finished("auth_failed", "wrong password")


def test_change_of_password_is_refused() -> None:
    peer = eap_peer(KEYED)
    (request,) = identity(peer)
    body = bytes([26, 7, request[8]]) + (4 + 582).to_bytes(2, "big") + bytes(582)
    (failure,) = peer.tell(packet(EAP, 2, request[3], body))
    assert b"E=709 R=0 " in failure
    peer.tell(packet(EAP, 2, failure[3], "1a04"))
    peer.wait(10)
    assert "change its password" in peer.finished.reason


def test_stale_and_malformed_responses() -> None:
    peer = eap_peer(KEYED)
    assert identity(peer, identifier=9) == [] and identity(peer, identifier=0) == []
    assert peer.tell(packet(EAP, 2, 1)) == [] and peer.tell(packet(EAP, 1, 1, "01")) == []
    (request,) = identity(peer)
    for body in ("1a", "1a02", "1a0202", "1a020200ff31", "1a0202000531", "04", "1a03020004", "2b"):
        assert peer.tell(packet(EAP, 2, request[3], body)) == [], body
    assert peer.had(Authenticate) == 0
    assert sum(isinstance(a, Note) and a.event == "malformed" for a in peer.log) >= 8
    assert mschapv2(peer, request)[0][6:8] == h("1a 03")


# -- passed through


class Server:
    """A RADIUS server's side of EAP-TLS, as far as a relay can see it."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def heard(self) -> EapRelay:
        action = self.peer.last(EapRelay)
        assert isinstance(action, EapRelay)
        return action

    def say(self, octets: bytes, verdict: Verdict | None = None) -> list[bytes]:
        mark = len(self.peer.log)
        self.peer.link.eap_relayed(octets, verdict, self.peer.now)
        self.peer.pump()
        return [a.frame for a in self.peer.log[mark:] if hasattr(a, "frame")]


@pytest.mark.parametrize("eap", [("relay",), ("mschapv2", "relay")])
def test_any_other_type_is_handed_on_unread(eap: tuple[str, ...]) -> None:
    peer = eap_peer(replace(KEYED, eap=eap))
    server = Server(peer)
    identity(peer, b"user@realm")
    if eap[0] != "relay":
        assert peer.had(EapRelay) == 0
        peer.tell(packet(EAP, 2, 2, "030d"))
    assert server.heard() == EapRelay("user@realm", packet(EAP, 2, 1, b"\x01user@realm")[2:])
    start = packet(EAP, 1, 77, "0d20")
    assert server.say(start[2:]) == [start]
    assert peer.wait(3.5) == [start], "repeated by us"
    hello = packet(EAP, 2, 77, b"\x0d\x00" + bytes(300))
    assert peer.tell(hello) == [] and server.heard().packet == hello[2:]
    assert peer.tell(hello) == [] and peer.had(EapRelay) == 2, "asked once"
    keys = Verdict(True, "user", send_key=b"S" * 16, receive_key=b"R" * 16)
    frames = server.say(packet(EAP, 3, 77)[2:], keys)
    assert frames[0] == packet(EAP, 3, 77)
    peer.admit()
    peer.ccp_up()
    peer.ipcp_up()
    assert peer.link.state == "active" and peer.link.method == "eap" and peer.link.user == "user"
    mppe = next(a for a in peer.log if type(a).__name__ == "SetMppe")
    assert (mppe.tx_key, mppe.rx_key) == (b"S" * 16, b"R" * 16)  # type: ignore[union-attr]
    assert server.say(start[2:]) == [], "late answers are of no use"


@pytest.mark.parametrize(
    ("octets", "verdict", "reason"),
    [
        (packet(EAP, 4, 5)[2:], Verdict(False, reason="rejected by radius"), "rejected by radius"),
        (b"", Verdict(False), "refused"),
        (b"\x01", None, "the answer is no EAP request"),
        (packet(EAP, 3, 5)[2:], None, "the answer is no EAP request"),
    ],
)
def test_relay_says_no(octets: bytes, verdict: Verdict | None, reason: str) -> None:
    peer = eap_peer(replace(KEYED, eap=("relay",)))
    identity(peer)
    assert Server(peer).say(octets, verdict)[0] == packet(EAP, 4, 1)
    peer.wait(10)
    assert peer.finished == Finished("auth_failed", reason)


# -- two ends


@pytest.mark.parametrize("freezing", [False, True])
@pytest.mark.parametrize(
    ("server", "client", "mppe", "method"),
    [
        (("mschapv2", "md5"), ("mschapv2", "md5"), "require", "eap-mschapv2"),
        (("mschapv2", "md5"), ("md5",), "deny", "eap-md5"),
        (("md5", "mschapv2"), ("mschapv2",), "prefer", "eap-mschapv2"),
    ],
)
def test_both_ends(
    server: tuple[str, ...], client: tuple[str, ...], mppe: str, method: str, freezing: bool
) -> None:
    ours, theirs = policies("eap", mppe)
    ours, theirs = replace(ours, eap=server), replace(theirs, auth=("eap",), eap=client)
    one, two, wire = pair(ours, theirs)
    one.freezing = two.freezing = freezing
    wire.start()
    wire.run(wire.now + 5, lambda: both_up(one, two))
    check_up(one, two, method, 128 if mppe != "deny" else 0)
    assert one.link.user == "user" and one.authentications == 1


@pytest.mark.parametrize("seed", range(12))
def test_lossy_wire(seed: int) -> None:
    ours, theirs = policies("eap")
    one, two, wire = pair(ours, replace(theirs, auth=("eap",)), loss=0.2, seed=seed, duplicate=0.2)
    wire.start()
    wire.run(wire.now + 200)
    assert all(e.finished or e.link.state == "active" for e in (one, two))
    if one.up and two.up:
        check_up(one, two, "eap-mschapv2", 128)
    assert one.authentications <= 2


def test_the_clients_last_word_may_be_followed_by_ccp_alone() -> None:
    """RFC 3748 section 4.2: Success is not repeated, so what can only follow it counts."""
    ours, theirs = policies("eap")
    one, two, wire = pair(ours, replace(theirs, auth=("eap",)))
    arrives = two.link.receive

    def without_success(frame: bytes, now: float) -> None:
        if frame[:3] != h("c22703"):
            arrives(frame, now)

    two.link.receive = without_success  # type: ignore[method-assign]
    wire.start()
    wire.run(wire.now + 5, lambda: both_up(one, two))
    check_up(one, two, "eap-mschapv2", 128)


def test_server_that_does_not_know_the_password() -> None:
    ours, theirs = policies("eap")
    one, two, wire = pair(ours, replace(theirs, auth=("eap",)))
    honest = one.link.authenticated

    def dishonest(verdict: Verdict, now: float) -> None:
        honest(replace(verdict, authenticator_response="S=" + "0" * 40), now)

    one.link.authenticated = dishonest  # type: ignore[method-assign]
    wire.start()
    wire.run(wire.now + 40)
    assert two.finished is not None and "wrong S=" in two.finished.reason and two.up is None


def test_client_answers_notifications() -> None:
    end = End(Link(policies("eap")[1], magic=1, challenge=bytes(16)))
    link = end.link
    link.start(0.0)
    link.receive(packet(0xC021, 1, 1, "0304c227"), 0.0)
    assert not any(f[:3] == h("c02102") for f in end.act(0.0)), "EAP is not in its list"
    link = Link(replace(policies("eap")[1], auth=("eap",)), magic=1, challenge=bytes(16))
    end = End(link)
    link.start(0.0)
    link.receive(packet(0xC021, 1, 1, "0304c227"), 0.0)
    request = next(f for f in end.act(0.0) if f[:3] == h("c02101"))
    link.receive(request[:2] + b"\x02" + request[3:], 0.0)
    link.receive(packet(EAP, 1, 9, b"\x02hello"), 0.0)
    assert end.act(0.0)[-1] == packet(EAP, 2, 9, "02")
