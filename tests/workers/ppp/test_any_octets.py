"""Whatever a peer sends: nothing is raised, and the link is up or over within its deadlines."""

from __future__ import annotations

import contextlib

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.workers.ppp.ends import ADDRESS, End, Wire, freeze_and_thaw
from workers.ppp.actions import Policy
from workers.ppp.errors import RemoteError
from workers.ppp.link import Link
from workers.ppp.options import Option, decode_options, encode_options
from workers.ppp.packets import Packet, printable, split_frame

METHODS = ("pap", "chap-md5", "mschap", "mschapv2", "eap")

options = st.builds(
    Option,
    st.sampled_from([1, 2, 3, 4, 5, 7, 8, 13, 17, 18, 19, 129, 130, 131, 132, 0, 255]),
    st.one_of(
        st.binary(max_size=8),
        st.sampled_from(
            [
                bytes.fromhex(text)
                for text in [
                    "0578",
                    "c023",
                    "c22305",
                    "c22380",
                    "c22381",
                    "c227",
                    "0200000000000001",
                    "0000000000000000",
                    "00000000",
                    "01000040",
                    "00000040",
                    "01000031",
                    "0a630102",
                    "c0a80001",
                ]
            ]
        ),
    ),
)
option_lists = st.lists(options, max_size=6).map(encode_options)
packets = st.builds(
    lambda protocol, code, identifier, data: protocol + Packet(code, identifier, data).encode(),
    st.sampled_from(
        [bytes.fromhex(n) for n in ("c021", "c023", "c223", "c227", "80fd", "8021", "8057")]
    ),
    st.integers(0, 16),
    st.integers(0, 6),
    st.one_of(option_lists, st.binary(max_size=60), st.just(b"")),
)
# The last one: "acknowledge your latest Configure-Request", so that soups get somewhere.
events = st.one_of(packets, st.binary(max_size=20), st.floats(0.0, 10.0), st.just(True))
policies = st.builds(
    Policy,
    role=st.sampled_from(["server", "client"]),
    name=st.just("user"),
    password=st.just("secret"),
    auth=st.lists(st.sampled_from(METHODS), unique=True, max_size=5).map(tuple),
    mppe=st.sampled_from(["require", "prefer", "deny"]),
    mppe_strengths=st.sampled_from([(128,), (128, 40), (40,), (128, 56, 40)]),
    dns=st.sampled_from([(), (1,), (1, 2)]),
    mppe_stateful=st.booleans(),
    mppe_ask_stateful=st.booleans(),
    mppe_by_user=st.booleans(),
    eap=st.sampled_from([(), ("mschapv2",), ("md5", "mschapv2"), ("mschapv2", "md5")]),
    auth_retries=st.integers(0, 2),
    chap_rechallenge=st.sampled_from([0.0, 7.0]),
    ipv6=st.booleans(),
    interface_id=st.sampled_from([b"", bytes(7) + b"\x01"]),
    subscriber_id=st.sampled_from(["ipv4", "random"]),
    subscriber_may_choose=st.booleans(),
)


@given(st.binary(max_size=80))
def test_codecs(octets: bytes) -> None:
    for decode in (Packet.decode, decode_options, split_frame):
        with contextlib.suppress(RemoteError):
            decode(octets)
    assert printable(octets).isprintable()


@given(option_lists)
def test_options_round_trip(octets: bytes) -> None:
    assert encode_options(decode_options(octets)) == octets


def acknowledge(end: End) -> bytes | None:
    for frame in reversed(end.sent):
        if frame[2:3] == b"\x01" and frame[:2] in (
            b"\xc0\x21",
            b"\x80\xfd",
            b"\x80\x21",
            b"\x80\x57",
        ):
            return frame[:2] + b"\x02" + frame[3:]
    return None


@given(policies, st.lists(events, max_size=40), st.booleans())
@example(Policy(), [b"", b"\xff", b"\xff\x03", b"\xff\x03\xc0\x21", b"\xc0\x21\x01"], True)
@settings(max_examples=120, deadline=None)
def test_any_frames(policy: Policy, sequence: list[bytes | float | bool], freezing: bool) -> None:
    end = End(Link(policy, magic=1, challenge=bytes(16)), freezing=freezing)
    now = 10.0
    end.link.start(now)
    end.act(now)
    for event in sequence:
        if event is True:
            frame = acknowledge(end)
            if frame is not None:
                end.link.receive(frame, now)
        elif isinstance(event, bytes):
            end.link.receive(event, now)
        else:
            now += float(event)
            end.link.handle_timer(now)
        end.act(now)
        check_whole(end, now)
    settle(end, now)


def check_whole(end: End, now: float) -> None:
    """At no moment is a link neither up, nor over, nor waiting for a time to come."""
    state = end.link.state
    assert (state == "active") == (end.up is not None)
    if end.finished is not None:
        assert state == "finishing" and end.link.deadline is None
    elif state != "active":
        assert end.link.deadline is not None
    if end.up is not None:
        agreed = end.up.agreed
        assert agreed.address and 0 < agreed.mtu <= 1400 and 128 <= agreed.mru <= 1500
        if end.link.policy.role == "server":
            assert agreed.address == ADDRESS and end.admissions == 1
        if end.link.policy.mppe == "require":
            assert agreed.mppe_rx_bits and agreed.mppe_tx_bits and end.mppe is not None
            assert end.mppe.rx_key and end.mppe.tx_key


def settle(end: End, now: float) -> None:
    """From here on the peer is silent."""
    limit = now + 60 + 6 + 40
    for _ in range(200):
        due = end.link.deadline
        if due is None:
            break
        now = max(now, due)
        assert now <= limit
        end.link.handle_timer(now)
        end.act(now)
    assert end.finished is not None or end.link.state == "active"
    freeze_and_thaw(end.link)


@given(policies, policies, st.integers(0, 2**16), st.sampled_from([0.0, 0.2]))
@settings(max_examples=40, deadline=None)
def test_any_two_policies(one: Policy, two: Policy, seed: int, loss: float) -> None:
    """Server meets server, client meets client, lists that share nothing: it always ends."""
    ends = tuple(
        End(Link(policy, magic=n + 1, challenge=bytes([n]) * 16))
        for n, policy in enumerate((one, two))
    )
    wire = Wire((ends[0], ends[1]), loss=loss, seed=seed, delay=0.2)
    wire.start()
    wire.run(wire.now + 200)
    for end in ends:
        assert end.finished is not None or end.link.state == "active"
    if ends[0].up and ends[1].up and ends[0].mppe and ends[1].mppe:
        assert ends[0].mppe.tx_key == ends[1].mppe.rx_key
        assert ends[0].mppe.rx_key == ends[1].mppe.tx_key
