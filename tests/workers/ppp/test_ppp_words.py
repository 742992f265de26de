"""Frames in words, and what of them nobody may see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.ppp.packets import CCP, CHAP, EAP, IP, IPCP, IPV6CP, LCP, PAP
from workers.ppp.words import NAMES, blotted, describe

# RFC 1661, 1334, 1994, 2759, 3078, 1332 and 5072: (protocol, frame, words).
FRAMES = [
    (
        LCP,
        "0101001a010405780305c2238105061122334407020802050100",
        "not readable",
    ),
    (
        LCP,
        "01010017010405780305c2238105061122334407020802",
        "Configure-Request id 1: MRU 1400, authentication mschapv2, magic 11223344, PFC, ACFC",
    ),
    (LCP, "0509000862796500", "Terminate-Request id 9: 'bye.'"),
    (LCP, "080200068057", "Protocol-Reject id 2: IPV6CP"),
    (LCP, "0903000811223344", "Echo-Request id 3: magic 11223344"),
    (CCP, "0101000a120601000040", "Configure-Request id 1: MPPE 128 stateless"),
    (CCP, "0301000a1206000000e1", "Configure-Nak id 1: MPPE 128/56/40 stateful +MPPC"),
    (
        IPCP,
        "0301001603060a63010581060a00000183060a000002",
        "Configure-Nak id 1: address 10.99.1.5, DNS 10.0.0.1, DNS 2 10.0.0.2",
    ),
    (
        IPV6CP,
        "0101000e010a0011223344556677",
        "Configure-Request id 1: identifier 0011:2233:4455:6677",
    ),
    (
        PAP,
        "0101001105616c69636506736563726574",
        "Authenticate-Request id 1: user 'alice', password ***",
    ),
    (CHAP, "0101000d040102030461626364", "Challenge id 1: 01020304, name 'abcd'"),
    (CHAP, "0201000d040102030461626364", "Response id 1: *** of 4 octets, name 'abcd'"),
    (CHAP, "0301000d533d4142204d3d6f6b", "Success id 1: 'S=*** M=ok'"),
    (EAP, "0201000a01616c696365", "Response id 1: IDENTITY 'alice'"),
    (EAP, "03010004", "Success id 1"),
    (
        IP,
        "4500001c00010000400100000a6301050a0000010800f7ff00000000",
        "ICMP 10.99.1.5 > 10.0.0.1, 28 octets",
    ),
    (
        IP,
        "4500001c00010000401100000a6301050a000001d431003500080000",
        "UDP 10.99.1.5:54321 > 10.0.0.1:53, 28 octets",
    ),
]


@pytest.mark.parametrize(("protocol", "frame", "words"), FRAMES)
def test_words(protocol: int, frame: str, words: str) -> None:
    told = describe(protocol, bytes.fromhex(frame))
    assert told.startswith(words) if words == "not readable" else told == words


def test_blotted() -> None:
    pap = bytes.fromhex("0101001105616c69636506736563726574")
    assert blotted(PAP, pap) == pap[:-6] + bytes(6)
    response = bytes.fromhex("0201000d040102030461626364")
    assert blotted(CHAP, response) == response[:5] + bytes(4) + b"abcd"
    success = b"\x03\x01\x00\x2f" + b"S=" + b"A" * 40 + b" M=ok"
    assert blotted(CHAP, success) == b"\x03\x01\x00\x2fS=" + bytes(40) + b" M=ok"
    mschapv2 = b"\x02\x01\x00\x0a\x1asecre"
    assert blotted(EAP, mschapv2) == b"\x02\x01\x00\x0a\x1a" + bytes(5)
    identity = b"\x02\x01\x00\x0a\x01alice"
    assert blotted(EAP, identity) == identity
    challenge = bytes.fromhex("0101000d040102030461626364")
    assert blotted(CHAP, challenge) == challenge
    assert blotted(LCP, pap) == pap


protocols = st.sampled_from([*NAMES, 0x1234])


@given(protocols, st.binary(max_size=80))
def test_any_octets_give_words(protocol: int, octets: bytes) -> None:
    assert describe(protocol, octets).isprintable()
    assert len(blotted(protocol, octets)) == len(octets)
