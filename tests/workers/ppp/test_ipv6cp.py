"""IPv6CP, RFC 5072: identifiers, and that IPv4 never suffers from it (trap 4.23)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.workers.ppp.ends import ADDRESS, End, Wire, freeze_and_thaw, pair
from tests.workers.ppp.test_link_ends import both_up, policies
from tests.workers.ppp.test_traps import BASE, Peer, h, packet, ready
from workers.ppp.actions import (
    Network6Down,
    Network6Up,
    NetworkDown,
    NetworkUp,
    Note,
    Policy,
    Send,
    SetMppe,
)
from workers.ppp.ipv6cp import UNIVERSAL, random_id

SIX = 0x8057
OURS = bytes(7) + b"\x01"
ONE = replace(BASE, ipv6=True, interface_id=OURS)
THEIRS = "010a 02aabbfffeccddee"
FROM_IPV4 = "010a 00000000" + f"{ADDRESS:08x}"


def six_peer(policy: Policy = ONE) -> Peer:
    """CCP is open; both network protocols have begun."""
    peer = ready(policy)
    peer.ccp_up()
    return peer


def test_our_request_comes_with_that_of_ipcp_and_not_before() -> None:
    peer = ready(ONE)
    assert not any(isinstance(a, Send) and a.frame[:2] == h("8057") for a in peer.log)
    peer.ccp_up()
    assert peer.last_request(SIX) == packet(SIX, 1, 1, "010a 0000000000000001")


def test_up_and_down() -> None:
    peer = six_peer()
    assert peer.tell(packet(SIX, 1, 1, THEIRS)) == [packet(SIX, 2, 1, THEIRS)]
    peer.ack(SIX)
    assert not peer.had(Network6Up), "only together with IPv4"
    peer.ipcp_up()
    assert peer.last(Network6Up) == Network6Up(h("02aabbfffeccddee"), OURS)
    kinds = [type(a) for a in peer.log if type(a) in (SetMppe, NetworkUp, Network6Up)]
    assert kinds == [SetMppe, NetworkUp, Network6Up]
    peer.link = freeze_and_thaw(peer.link)
    peer.link.close("admin_reset", "test", peer.now)
    peer.pump()
    kinds = [type(a) for a in peer.log if type(a) in (NetworkDown, Network6Down)]
    assert kinds == [Network6Down, NetworkDown]


@pytest.mark.parametrize("data", ["0000000000000000", "0000000000000001"])
def test_zero_and_ours_are_naked_to_one_of_the_ipv4_address(data: str) -> None:
    peer = six_peer()
    assert peer.tell(packet(SIX, 1, 1, "010a" + data)) == [packet(SIX, 3, 1, FROM_IPV4)]
    assert peer.tell(packet(SIX, 1, 2, FROM_IPV4)) == [packet(SIX, 2, 2, FROM_IPV4)]


def test_random_identifier() -> None:
    peer = six_peer(replace(ONE, subscriber_id="random"))
    (nak,) = peer.tell(packet(SIX, 1, 1, "010a 0000000000000000"))
    assert nak[2] == 3 and nak[8:] not in (bytes(8), OURS) and not nak[8] & UNIVERSAL
    assert random_id(b"a") != random_id(b"b")


def test_no_choice_of_its_own() -> None:
    peer = six_peer(replace(ONE, subscriber_may_choose=False))
    assert peer.tell(packet(SIX, 1, 1, THEIRS)) == [packet(SIX, 3, 1, FROM_IPV4)]


def test_the_accounts_identifier() -> None:
    peer = Peer(ONE)
    peer.lcp_up()
    honest = peer.link.authenticated
    fixed = h("000000000000abcd")
    peer.link.authenticated = lambda verdict, now: honest(  # type: ignore[method-assign]
        replace(verdict, interface_id=fixed), now
    )
    peer.log_in()
    peer.admit()
    peer.ccp_up()
    assert peer.tell(packet(SIX, 1, 1, THEIRS)) == [packet(SIX, 3, 1, b"\x01\x0a" + fixed)]


def test_without_the_option_it_is_suggested_and_then_ended() -> None:
    peer = six_peer()
    for number in (1, 2):
        assert peer.tell(packet(SIX, 1, number)) == [packet(SIX, 3, number, FROM_IPV4)]
    (end,) = peer.tell(packet(SIX, 1, 3))
    assert end[:3] == h("805705")
    notes = [a for a in peer.log if isinstance(a, Note) and a.event == "ipv6cp_failed"]
    assert len(notes) == 1
    peer.ipcp_up()
    assert peer.link.state == "active" and not peer.had(Network6Up)


def test_stubborn_peers_lose_ipv6_only() -> None:
    peer = six_peer()
    for number in range(12):
        peer.tell(packet(SIX, 1, number, "010a 0000000000000000"))
    peer.ipcp_up()
    peer.wait(100)
    assert peer.link.state == "active" and not peer.had(Network6Up)


def test_header_compression_and_odd_options_are_rejected() -> None:
    peer = six_peer()
    odd = "0204004f 0103aa"
    assert peer.tell(packet(SIX, 1, 1, odd + THEIRS)) == [packet(SIX, 4, 1, odd)]


@pytest.mark.parametrize("answer", ["nak", "reject", "protocol-reject", "silence"])
def test_our_identifier_is_refused(answer: str) -> None:
    peer = six_peer()
    for _ in range(12):
        request = peer.last_request(SIX)
        if answer == "nak":
            peer.tell(packet(SIX, 3, request[3], "010a 00000000000000ff"))
        elif answer == "reject":
            peer.tell(packet(SIX, 4, request[3], request[6:]))
        elif answer == "protocol-reject":
            peer.tell(packet(0xC021, 8, 1, request[:2] + request[2:]))
    peer.ipcp_up()
    peer.wait(100)
    assert peer.link.state == "active" and not peer.had(Network6Up)
    assert peer.link.deadline is None


def test_phicomm_opens_and_ends_it() -> None:
    """4.23, accel-ppp #57: Terminate-Ack, IPv4 stays."""
    peer = six_peer()
    peer.tell(packet(SIX, 1, 1, THEIRS))
    peer.ack(SIX)
    peer.ipcp_up()
    assert peer.had(Network6Up) == 1
    assert peer.tell(packet(SIX, 5, 9)) == [packet(SIX, 6, 9)]
    assert peer.had(Network6Down) == 1 and peer.had(NetworkDown) == 0
    peer.wait(30)
    assert peer.link.state == "active" and peer.link.deadline is None
    # It may come back.
    answers = peer.tell(packet(SIX, 1, 10, THEIRS))
    assert [f[:3] for f in answers] == [h("805701"), h("805702")]
    peer.ack(SIX)
    assert peer.had(Network6Up) == 2


def test_identifier_of_another_session() -> None:
    peer = six_peer()
    peer.tell(packet(SIX, 1, 1, THEIRS))
    peer.ack(SIX)
    peer.ipcp_up()
    peer.link.identifier_taken(peer.now)
    peer.pump()
    last = peer.log[-1]
    assert isinstance(last, Send) and last.frame[:3] == h("805705")
    assert b"identifier in use" in last.frame
    assert peer.had(Network6Down) == 1 and peer.link.state == "active"


@pytest.mark.parametrize("early", ["before ccp", "before admission"])
def test_early_requests_are_held(early: str) -> None:
    """4.16: never a Terminate-Ack while CCP negotiates."""
    peer = Peer(ONE)
    peer.lcp_up()
    peer.log_in()
    if early == "before ccp":
        peer.admit()
    assert peer.tell(packet(SIX, 1, 7, THEIRS)) == []
    if early == "before ccp":
        peer.tell(packet(0x80FD, 1, 4, "120601000040"))
        frames = peer.ack(0x80FD)
    else:
        peer.ccp_up()
        frames = peer.admit()
    assert packet(SIX, 2, 7, THEIRS) in frames
    assert not any(isinstance(a, Send) and a.frame[:3] == h("805706") for a in peer.log)


def test_new_keys_take_both_down_and_up() -> None:
    peer = six_peer()
    peer.tell(packet(SIX, 1, 1, THEIRS))
    peer.ack(SIX)
    peer.ipcp_up()
    mark = len(peer.log)
    peer.tell(packet(0x80FD, 1, 77, "120601000040"))
    peer.ack(0x80FD)
    kinds = [type(a) for a in peer.log[mark:] if not isinstance(a, Send | Note)]
    assert kinds == [Network6Down, NetworkDown, SetMppe, NetworkUp, Network6Up]


def test_off_is_one_protocol_reject_even_after_a_reload() -> None:
    peer = six_peer(BASE)
    peer.ipcp_up()
    frame = packet(SIX, 1, 1, THEIRS)
    assert peer.tell(frame) == [packet(0xC021, 8, 2, frame)]
    assert peer.tell(frame) == []
    peer = six_peer()
    peer.tell(packet(SIX, 1, 1, THEIRS))
    peer.ack(SIX)
    peer.ipcp_up()
    peer.link.policy = BASE  # a link of the time before the reload keeps what it has
    peer.link = freeze_and_thaw(peer.link)
    assert peer.tell(packet(SIX, 5, 9)) == [packet(SIX, 6, 9)]
    assert peer.had(Network6Down) == 1


@pytest.mark.parametrize("freezing", [False, True])
@pytest.mark.parametrize("choice", [False, True])
def test_both_ends_agree(choice: bool, freezing: bool) -> None:
    ours, theirs = policies()
    ours = replace(ours, ipv6=True, interface_id=OURS, subscriber_may_choose=choice)
    one, two, wire = pair(ours, replace(theirs, ipv6=True))
    one.freezing = two.freezing = freezing
    wire.start()
    wire.run(wire.now + 5)
    assert both_up(one, two) and one.six is not None and one.six == two.six
    assert one.six.our_iid == OURS and one.six.iid not in (bytes(8), OURS)
    assert (one.six.iid[4:] == ADDRESS.to_bytes(4, "big")) != choice


@pytest.mark.parametrize("seed", range(10))
def test_lossy_wire(seed: int) -> None:
    ours, theirs = policies()
    ours = replace(ours, ipv6=True, interface_id=OURS)
    one, two, wire = pair(ours, replace(theirs, ipv6=True), loss=0.25, seed=seed, duplicate=0.1)
    wire.start()
    wire.run(wire.now + 200)
    assert both_up(one, two) or one.finished or two.finished
    if one.six and two.six:
        assert one.six == two.six


def test_one_side_without_it() -> None:
    for who in (0, 1):
        pairs = list(policies())
        pairs[who] = replace(pairs[who], ipv6=True)
        one, two, wire = pair(*pairs)
        check_without(one, two, wire)


def check_without(one: End, two: End, wire: Wire) -> None:
    wire.start()
    wire.run(wire.now + 60)
    assert both_up(one, two) and one.six is None and two.six is None
