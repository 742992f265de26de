"""What is agreed for MPPE: strengths, state in each direction, accounts of their own, MPPC."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from tests.workers.ppp.ends import freeze_and_thaw, pair
from tests.workers.ppp.test_link_ends import both_up, check_keys, policies
from tests.workers.ppp.test_traps import BASE, MPPE128, Peer, h, packet, ready
from workers.ppp.actions import NetworkUp, Policy, SetMppe, Verdict

CCP = 0x80FD
ALL = replace(BASE, mppe_strengths=(128, 56, 40))
FLAGS = {"refuse": (False, False), "allow": (True, False), "ask": (True, True)}


def with_state(policy: Policy, word: str) -> Policy:
    allow, ask = FLAGS[word]
    return replace(policy, mppe_stateful=allow, mppe_ask_stateful=ask)


@pytest.mark.parametrize(
    ("server", "client", "strengths", "to_client", "to_server"),
    [
        # What a side receives is stateful if that side asks and the other one allows.
        ("refuse", "ask", (128,), None, None),
        ("allow", "ask", (128,), True, False),
        ("allow", "allow", (128,), False, False),
        ("ask", "allow", (128,), False, True),
        ("ask", "ask", (128,), True, True),
        ("ask", "ask", (40,), True, True),
        ("ask", "ask", (56,), True, True),
        ("ask", "ask", (128, 56, 40), True, True),
        ("ask", "refuse", (128,), False, False),
    ],
)
@pytest.mark.parametrize("freezing", [False, True])
def test_each_direction_is_its_receivers(
    server: str,
    client: str,
    strengths: tuple[int, ...],
    to_client: bool | None,
    to_server: bool | None,
    freezing: bool,
) -> None:
    ours, theirs = policies(strengths=strengths)
    one, two, wire = pair(with_state(ours, server), with_state(theirs, client))
    one.freezing = two.freezing = freezing
    wire.start()
    wire.run(wire.now + 5, lambda: both_up(one, two))
    assert one.mppe is not None and two.mppe is not None and one.up is not None
    want = (False, False) if to_client is None else (bool(to_client), bool(to_server))
    assert (two.mppe.rx_stateful, one.mppe.rx_stateful) == want
    assert one.mppe.tx_stateful == two.mppe.rx_stateful
    assert two.mppe.tx_stateful == one.mppe.rx_stateful
    assert one.up.agreed.stateful == want[1] | want[0] << 1
    assert one.mppe.rx_bits == strengths[0]
    check_keys(one, two)


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("010000e0", (3, "01000040")),
        ("00000040", (2, "00000040")),
        ("000000e0", (3, "00000040")),  # its wish for state is kept
        ("00000020", (3, "01000040")),  # a strength we do not have
        ("00000000", (3, "01000040")),
        ("01000040", (2, "01000040")),
    ],
)
def test_state_is_allowed(offer: str, answer: tuple[int, str]) -> None:
    peer = ready(with_state(BASE, "allow"))
    code, option = answer
    assert peer.tell(packet(CCP, 1, 1, "1206" + offer)) == [packet(CCP, code, 1, "1206" + option)]
    assert peer.last_request(CCP) == packet(CCP, 1, 1, MPPE128), "we do not ask for it"


def test_state_is_asked_for_and_may_be_refused() -> None:
    peer = ready(with_state(BASE, "ask"))
    assert peer.last_request(CCP) == packet(CCP, 1, 1, "120600000040")
    assert peer.tell(packet(CCP, 3, 1, MPPE128)) == [packet(CCP, 1, 2, MPPE128)]


def test_56_bits() -> None:
    peer = ready(ALL)
    assert peer.last_request(CCP) == packet(CCP, 1, 1, "1206010000e0")
    assert peer.tell(packet(CCP, 1, 1, "1206010000a0")) == [packet(CCP, 3, 1, "120601000080")]
    assert peer.tell(packet(CCP, 1, 2, "120601000080")) == [packet(CCP, 2, 2, "120601000080")]
    peer.tell(packet(CCP, 3, 1, "120601000080"))
    peer.ack(CCP)
    keys = peer.last(SetMppe)
    assert isinstance(keys, SetMppe) and (keys.rx_bits, keys.tx_bits) == (56, 56)
    assert len(keys.rx_key) == len(keys.tx_key) == 8


@pytest.mark.parametrize("bits", [40, 56, 128])
def test_strengths_between_ends(bits: int) -> None:
    ours, theirs = policies(strengths=(128, 56, 40))
    one, two, wire = pair(ours, replace(theirs, mppe_strengths=(bits,)))
    wire.start()
    wire.run(wire.now + 5, lambda: both_up(one, two))
    assert one.mppe is not None and (one.mppe.rx_bits, one.mppe.tx_bits) == (bits, bits)
    check_keys(one, two)


def test_version_1_without_a_lan_manager_hash_has_no_short_keys() -> None:
    """Of an account kept as NT hash; pppd never has one, and then refuses by itself."""
    peer = Peer(replace(BASE, auth=("mschap",), mppe_strengths=(40,)))
    peer.lcp_up()
    peer.tell(packet(0xC223, 2, 1, b"\x31" + bytes(48) + b"\x01user"))
    peer.link.authenticated(Verdict(True, "user", start_key=bytes(16)), peer.now)
    peer.pump()
    peer.wait(10)
    assert peer.finished.cause == "ccp_failed"
    assert peer.finished.reason == "MPPE required, but mschap gives no key for 40 bits"


# -- compression, refused

LZS = "1105000104"
DEFLATE, OLD_DEFLATE, BSD = "1a047800", "18047800", "15032f"
PREDICTOR, PREDICTOR2 = "0102", "0202"
OUI = "0006aabbcc01"


@pytest.mark.parametrize("other", [LZS, DEFLATE, OLD_DEFLATE, BSD, PREDICTOR, PREDICTOR2, OUI])
@pytest.mark.parametrize("mppe", ["require", "prefer", "deny"])
def test_each_compression_is_rejected_and_the_link_comes_up(
    other: str, mppe: Literal["require", "prefer", "deny"]
) -> None:
    """4.14, 4.15: alone, and beside MPPE, which is not named in the same answer."""
    peer = ready(replace(BASE, mppe=mppe))
    assert packet(CCP, 4, 1, other) in peer.tell(packet(CCP, 1, 1, other))
    if mppe != "deny":
        assert peer.tell(packet(CCP, 1, 2, MPPE128 + other)) == [packet(CCP, 4, 2, other)]
        peer.ccp_up()
    else:
        assert packet(CCP, 4, 2, MPPE128 + other) in peer.tell(packet(CCP, 1, 2, MPPE128 + other))
        assert packet(CCP, 2, 3) in peer.tell(packet(CCP, 1, 3))
        peer.ack(CCP)
    peer.ipcp_up()
    assert peer.link.state == "active" and bool(peer.had(SetMppe)) == (mppe != "deny")


@pytest.mark.parametrize("offer", ["01000041", "00000041", "01000031", "010000e1", "00000001"])
def test_mppc_is_naked_away_never_rejected(offer: str) -> None:
    """4.14: C (MPPC) and D ride on the MPPE option."""
    peer = ready(replace(BASE, mppe_strengths=(128, 40)))
    (answer,) = peer.tell(packet(CCP, 1, 1, "1206" + offer))
    assert answer[2] == 3 and not int.from_bytes(answer[-4:], "big") & 0x11
    assert answer[6:8] == h("1206") and answer[8] == 1


@pytest.mark.parametrize("mppe", ["prefer", "deny"])
def test_mppc_alone_without_encryption(mppe: Literal["prefer", "deny"]) -> None:
    peer = ready(replace(BASE, mppe=mppe))
    (answer,) = (f for f in peer.tell(packet(CCP, 1, 1, "120600000001")) if f[2] in (3, 4))
    assert answer[2] == (4 if mppe == "deny" else 3)
    peer.tell(packet(CCP, 5, 2))
    peer.wait(7)
    peer.ipcp_up()
    peer.wait(60)
    assert peer.link.state == "active"


@pytest.mark.parametrize("vj", ["0206002d0f01", "0206002d0f00", "0204002d", "02040037"])
def test_vj_is_rejected(vj: str) -> None:
    peer = ready()
    peer.ccp_up()
    options = vj + "030600000000"
    assert peer.tell(packet(0x8021, 1, 1, options)) == [packet(0x8021, 4, 1, vj)]
    peer.ipcp_up()
    assert peer.link.state == "active"


@pytest.mark.parametrize("mppe", ["prefer", "deny"])
def test_peer_that_goes_on_asking_for_deflate_does_no_harm(
    mppe: Literal["prefer", "deny"],
) -> None:
    peer = ready(replace(BASE, mppe=mppe))
    for number in range(25):
        peer.tell(packet(CCP, 1, number, DEFLATE))
    peer.wait(7)
    peer.ipcp_up()
    peer.wait(60)
    assert peer.link.state == "active"


# -- accounts of their own


def own(peer: Peer, **account: object) -> None:
    """Log in; the verdict says what this account is to have."""
    peer.lcp_up()
    honest = peer.link.authenticated

    def answer(verdict: Verdict, now: float) -> None:
        honest(replace(verdict, **account), now)  # type: ignore[arg-type]

    peer.link.authenticated = answer  # type: ignore[method-assign]
    peer.log_in()
    peer.admit()


BY_USER = replace(BASE, mppe_by_user=True)


def test_account_that_may_do_without() -> None:
    peer = Peer(BY_USER)
    own(peer, mppe="prefer")
    peer.tell(packet(CCP, 4, 1, MPPE128))
    peer.tell(packet(CCP, 5, 9))
    peer.wait(7)
    peer.ipcp_up()
    up = peer.last(NetworkUp)
    assert isinstance(up, NetworkUp) and not up.agreed.mppe_tx_bits
    assert freeze_and_thaw(peer.link).state == "active"


def test_account_that_must_encrypt() -> None:
    peer = Peer(replace(BY_USER, mppe="prefer"))
    own(peer, mppe="require", mppe_strengths=(40,))
    assert peer.last_request(CCP) == packet(CCP, 1, 1, "120601000020")
    peer.tell(packet(CCP, 4, 1, "120601000020"))
    peer.wait(10)
    assert peer.finished.reason == "MPPE required: the peer rejects MPPE"


def test_account_without_encryption() -> None:
    peer = Peer(BY_USER)
    own(peer, mppe="deny")
    peer.ipcp_up()
    assert peer.link.state == "active" and not peer.had(SetMppe)


def test_nothing_is_decided_before_the_account_is_known() -> None:
    """PAP has no keys, but this account may need none."""
    peer = Peer(replace(BY_USER, auth=("pap",)))
    peer.lcp_up()
    peer.tell(packet(0xC023, 1, 3, b"\x04user\x06secret"))
    peer.link.authenticated(Verdict(True, "user", mppe="deny"), peer.now)
    peer.pump()
    peer.admit()
    peer.ipcp_up()
    assert peer.link.state == "active"
    peer = Peer(replace(BY_USER, auth=("pap",)))
    peer.lcp_up()
    peer.tell(packet(0xC023, 1, 3, b"\x04user\x06secret"))
    peer.verdict()
    peer.wait(10)
    assert peer.finished.reason == "MPPE required, but pap gives no key for 128 bits"
