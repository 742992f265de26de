"""Frames of every size, and soups of options: no exception, and never half open for ever."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workers.ppp.ends import End
from tests.workers.ppp.test_any_octets import acknowledge, check_whole, policies, settle
from workers.ppp.actions import Policy
from workers.ppp.link import Link
from workers.ppp.options import Option, encode_options
from workers.ppp.packets import Packet

HEADS = ("c021", "c023", "c223", "c227", "80fd", "8021", "8057", "0021", "00fd", "8029", "ff03c021")
# Small sizes one by one, then around each power of two, to the largest there is.
SIZES = sorted(
    {*range(64)} | {n for p in range(6, 17) for n in (2**p - 1, 2**p, 2**p + 1) if n < 65536}
)


def made(policy: Policy) -> End:
    end = End(Link(policy, magic=1, challenge=bytes(16)))
    end.link.start(10.0)
    end.act(10.0)
    return end


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("fill", ["zeros", "ones", "lengths", "random"])
def test_frames_of_every_size(head: str, fill: str) -> None:
    """In each phase that a link reaches: in LCP, in authentication, with all of it up."""
    for phase in range(3):
        end = made(Policy(auth=("pap",), mppe="prefer", ipv6=True, interface_id=bytes(7) + b"\1"))
        if phase:
            bring_up(end, phase)
        for size in SIZES:
            body = {
                "zeros": bytes(size),
                "ones": b"\xff" * size,
                # A packet whose length is what is there, of options of two octets.
                "lengths": (b"\x01\x09" + (size & 0xFFFF).to_bytes(2, "big") + b"\x07\x02" * size)[
                    :size
                ],
                "random": random.Random(size).randbytes(size),
            }[fill]
            end.link.receive(bytes.fromhex(head) + body, 11.0)
            answers = end.act(11.0)
            assert all(len(frame) <= 1502 for frame in answers), "within any peer's MRU"
            check_whole(end, 11.0)
            if end.finished is not None:
                break
        settle(end, 11.0)


def bring_up(end: End, phase: int) -> None:
    """LCP up (1), or the login done as well (2)."""
    end.link.receive(bytes.fromhex("c0210100000a05061a2b3c4d"), 10.5)
    end.act(10.5)
    frame = acknowledge(end)
    assert frame is not None
    end.link.receive(frame, 10.5)
    end.act(10.5)
    if phase == 2:
        end.link.receive(b"\xc0\x23\x01\x01\x00\x10\x04user\x06secret", 10.6)
        end.act(10.6)
        assert end.link.user == "user"


kinds = {
    b"\xc0\x21": [1, 2, 3, 4, 5, 7, 8, 9, 13, 17, 18, 19, 255],
    b"\x80\xfd": [0, 1, 2, 17, 18, 21, 24, 26],
    b"\x80\x21": [1, 2, 3, 129, 130, 131, 132, 144],
    b"\x80\x57": [1, 2, 3],
}
values = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [
            bytes.fromhex(text)
            for text in (
                *("0578", "0010", "05dc", "c023", "c22381", "c227", "00000000", "01000040"),
                *("01000031", "00000040", "010000e1", "0a630102", "021122fffe334455", "002d0f01"),
            )
        ]
    ),
)


@st.composite
def soups(draw: st.DrawFn) -> bytes:
    """A Configure packet of a protocol with up to a hundred of its own options."""
    protocol = draw(st.sampled_from(sorted(kinds)))
    options = draw(
        st.lists(st.builds(Option, st.sampled_from(kinds[protocol]), values), max_size=100)
    )
    code = draw(st.sampled_from([1, 1, 1, 2, 3, 4]))
    data = encode_options(options)
    data += draw(st.sampled_from([b"", b"", b"", b"\x03", b"\x03\x01", b"\x03\xff"]))
    return protocol + Packet(code, draw(st.integers(0, 255)), data).encode()


@given(policies, st.lists(st.one_of(soups(), st.just(b"ack"), st.just(b"login")), max_size=25))
@settings(max_examples=150, deadline=None)
def test_soups_of_options(policy: Policy, steps: list[bytes]) -> None:
    end = made(policy)
    now = 10.0
    for step in steps:
        now += 0.2
        frame: bytes | None = step
        if step == b"ack":
            frame = acknowledge(end)
        elif step == b"login":
            frame = b"\xc0\x23\x01\x01\x00\x10\x04user\x06secret"
        if frame is not None:
            end.link.receive(frame, now)
        answers = end.act(now)
        assert all(len(answer) <= 1502 for answer in answers)
        check_whole(end, now)
    settle(end, now)
