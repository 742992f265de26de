"""RFC 2637 section 2: octets typed from the figures, round trips, any octets at all."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.pptp.framing import Framer
from dispatcher.pptp.messages import (
    HEADER,
    LENGTHS,
    MESSAGES,
    ClearRequest,
    ControlType,
    DisconnectNotify,
    EchoReply,
    EchoRequest,
    IncomingConnected,
    IncomingReply,
    IncomingRequest,
    Message,
    OutgoingReply,
    OutgoingRequest,
    RemoteError,
    SetLinkInfo,
    StartReply,
    StartRequest,
    StopReason,
    StopReply,
    StopRequest,
    WanErrorNotify,
    decode,
    field_text,
    text_field,
)


def octets(text: str) -> bytes:
    """Hex; `*N` is N zero octets, words in quotes are text."""
    out = b""
    for word in text.split():
        if word.startswith("*"):
            out += bytes(int(word[1:]))
        elif word.startswith("'"):
            out += word[1:-1].replace("_", " ").encode()
        else:
            out += bytes.fromhex(word)
    return out


GOLDEN: list[tuple[Message, str]] = [
    (  # what Windows sends: framing 1, bearer 1, firmware 2600
        StartRequest(framing=1, bearer=1, firmware=2600, vendor=text_field("Microsoft Windows NT")),
        "009c 0001 1a2b3c4d 0001 0000 0100 0000 00000001 00000001 0000 0a28 *64"
        " 'Microsoft_Windows_NT' *44",
    ),
    (
        StartReply(host_name=text_field("pac"), vendor=text_field("v"), firmware=1),
        "009c 0001 1a2b3c4d 0002 0000 0100 01 00 00000003 00000003 0000 0001 'pac' *61 'v' *63",
    ),
    (StopRequest(3), "0010 0001 1a2b3c4d 0003 0000 03 00 0000"),
    (StopReply(1, 0), "0010 0001 1a2b3c4d 0004 0000 01 00 0000"),
    (EchoRequest(1234), "0010 0001 1a2b3c4d 0005 0000 000004d2"),
    (EchoReply(1234), "0014 0001 1a2b3c4d 0006 0000 000004d2 01 00 0000"),
    (  # Windows again: call ID 0, serial 31240, 300 to 100000000 bit/s, window 64
        OutgoingRequest(0, 31240, 300, 100_000_000, 3, 3, 64, 0, 2, text_field("42")),
        "00a8 0001 1a2b3c4d 0007 0000 0000 7a08 0000012c 05f5e100 00000003 00000003"
        " 0040 0000 0002 0000 '42' *62 *64",
    ),
    (
        OutgoingReply(0x1234, 0, 1, 0, 0, 100_000_000, 64, 1, 7),
        "0020 0001 1a2b3c4d 0008 0000 1234 0000 01 00 0000 05f5e100 0040 0001 00000007",
    ),
    (
        IncomingRequest(1, 2, 3, 4, 5, 6, text_field("12345"), text_field("678901")),
        "00dc 0001 1a2b3c4d 0009 0000 0001 0002 00000003 00000004 0005 0006"
        " '12345' *59 '678901' *58 *64",
    ),
    (IncomingReply(0, 9, 3, 0, 0, 0), "0018 0001 1a2b3c4d 000a 0000 0000 0009 03 00 *6"),
    (
        IncomingConnected(9, 64000, 16, 1, 2),
        "001c 0001 1a2b3c4d 000b 0000 0009 0000 0000fa00 0010 0001 00000002",
    ),
    (ClearRequest(5), "0010 0001 1a2b3c4d 000c 0000 0005 0000"),
    (
        DisconnectNotify(0x1234, 4, 0, 16),
        "0094 0001 1a2b3c4d 000d 0000 1234 04 00 0010 0000 *128",
    ),
    (
        WanErrorNotify(5, 1, 2, 3, 4, 5, 6),
        "0028 0001 1a2b3c4d 000e 0000 0005 0000 00000001 00000002 00000003 00000004"
        " 00000005 00000006",
    ),
    (SetLinkInfo(5), "0018 0001 1a2b3c4d 000f 0000 0005 0000 ffffffff ffffffff"),
]


@pytest.mark.parametrize(("message", "text"), GOLDEN, ids=lambda v: type(v).__name__)
def test_golden(message: Message, text: str) -> None:
    assert message.encode().hex() == octets(text).hex()
    assert decode(octets(text)) == message


def test_lengths_are_those_of_the_rfc() -> None:
    assert LENGTHS == {
        1: 156, 2: 156, 3: 16, 4: 16, 5: 16, 6: 20, 7: 168, 8: 32,
        9: 220, 10: 24, 11: 28, 12: 16, 13: 148, 14: 40, 15: 24,
    }  # fmt: skip
    assert {type(message) for message, _ in GOLDEN} == set(MESSAGES)


def value_of(kind: type[Message], name: str) -> st.SearchStrategy[int | bytes]:
    """Any value that fits the field: found by trying what the layout takes."""
    base: Any = next(message for message, _ in GOLDEN if type(message) is kind)
    default = getattr(base, name)
    if isinstance(default, bytes):
        return st.binary(min_size=len(default), max_size=len(default))
    for bits in (32, 16, 8):
        try:
            replace(base, **{name: (1 << bits) - 1}).encode()
        except Exception:  # noqa: S112 - struct.error: the field is narrower
            continue
        return st.integers(0, (1 << bits) - 1)
    raise AssertionError(name)


any_message = st.sampled_from(MESSAGES).flatmap(
    lambda kind: st.builds(kind, **{f.name: value_of(kind, f.name) for f in fields(kind)})
)


@given(any_message)
def test_round_trip(message: Message) -> None:
    wire = message.encode()
    assert len(wire) == LENGTHS[message.TYPE]
    assert int.from_bytes(wire[:2], "big") == len(wire)
    assert decode(wire) == message


def headed(kind: int, length: int, body: bytes, magic: int = 0x1A2B3C4D, pptp: int = 1) -> bytes:
    return HEADER.pack(length, pptp, magic, kind, 0) + body


@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(headed, st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=300)),
        st.builds(
            headed,
            st.integers(0, 20),
            st.sampled_from(sorted(set(LENGTHS.values()))),
            st.binary(max_size=300),
        ),
    )
)
def test_any_octets_give_a_message_or_a_remote_error(data: bytes) -> None:
    try:
        message = decode(data)
    except RemoteError as e:
        assert e.text
        if e.answer is not None:
            decode(e.answer.encode())
        return
    assert len(message.encode()) == len(data)


@pytest.mark.parametrize("kind", range(20))
def test_every_length_but_the_right_one_is_refused(kind: int) -> None:
    """RFC 2637 has one length a type; the header's is judged before the body comes."""
    for length in (*range(600), 0x1000, 0x8000, 0xFFFF):
        messages, error = Framer().feed(headed(kind, length, b""))
        assert not messages
        assert (error is None) == (LENGTHS.get(kind) == length), (kind, length)


@pytest.mark.parametrize(
    ("data", "says", "answered"),
    [
        (headed(1, 156, bytes(144), magic=0x1A2B3C4E), "magic cookie 1a2b3c4e", False),
        (headed(1, 156, bytes(144), pptp=2), "PPTP message type 2", True),
        (headed(16, 16, bytes(4)), "control message type 16", True),
        (headed(7, 8, b""), "OUTGOING_REQUEST with length 8, not 168", True),
        (b"GET / HTTP/1.1\r\n", "magic cookie", False),
    ],
)
def test_errors_say_what_and_carry_the_answer(data: bytes, says: str, answered: bool) -> None:
    _, error = Framer().feed(data)
    assert error is not None
    assert says in error.text
    assert error.answer == (StopRequest(StopReason.PROTOCOL) if answered else None)


STREAM = [message for message, _ in GOLDEN]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=80))
def test_the_cut_of_the_stream_does_not_matter(cuts: list[int]) -> None:
    wire = b"".join(message.encode() for message in STREAM)
    framer = Framer()
    out: list[Message] = []
    at = 0
    while at < len(wire):
        for size in cuts:
            messages, error = framer.feed(wire[at : at + size])
            assert error is None
            out += messages
            at += size
    assert out == STREAM
    assert framer.partial == 0


def test_octet_by_octet() -> None:
    wire = b"".join(message.encode() for message in STREAM)
    framer = Framer()
    assert [m for octet in wire for m in framer.feed(bytes([octet]))[0]] == STREAM


def test_messages_before_an_error_count_and_nothing_after_it() -> None:
    framer = Framer()
    good = EchoRequest(1).encode()
    messages, error = framer.feed(good + bytes(12) + good)
    assert messages == [EchoRequest(1)]
    assert error is not None
    assert framer.feed(good) == ([], None)


def test_a_reserved_field_is_not_looked_at() -> None:
    wire = bytearray(StartRequest().encode())
    wire[10:12] = b"\xff\xff"
    wire[14:16] = b"\xff\xff"
    assert decode(bytes(wire)) == StartRequest()


def test_text_fields() -> None:
    assert text_field("x" * 80) == b"x" * 64
    assert field_text(b"abc\0def") == "abc"
    assert field_text(b"\xff\x1b[0m") == "\\xff\x1b[0m"  # the log escapes the rest
    assert ControlType(StartRequest.TYPE) is ControlType.START_REQUEST
