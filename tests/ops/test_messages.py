"""The bus's one list of messages: round trip, and any octets."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args, get_type_hints

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops import messages
from ops.messages import MESSAGES, VERSION, Hello, MessageError, decode, encode

ints = st.integers(0, 2**64 - 1)
VALUES = {
    int: ints,
    str: st.text(max_size=20)
    | st.binary(max_size=8).map(lambda b: b.decode("utf-8", "surrogateescape")),
    bool: st.booleans(),
    bytes: st.binary(max_size=20),
    tuple[messages.HeldBan, ...]: st.lists(
        st.tuples(st.text(max_size=9), st.text(max_size=9), ints, ints), max_size=3
    ).map(tuple),
    tuple[messages.Traced, ...]: st.lists(
        st.tuples(ints, st.text(max_size=9), st.text(max_size=9), st.booleans()), max_size=3
    ).map(tuple),
    tuple[int, ...]: st.lists(ints, max_size=3).map(tuple),
    tuple[str, ...]: st.lists(st.text(max_size=20), max_size=3).map(tuple),
    tuple[tuple[int, int], ...]: st.lists(st.tuples(ints, ints), max_size=4).map(tuple),
}
past_calls = st.tuples(*(VALUES[kind] for kind in get_args(messages.PastCall)))
VALUES[tuple[messages.PastCall, ...]] = st.lists(past_calls, max_size=3).map(tuple)


def built(kind: type) -> st.SearchStrategy[messages.Message]:
    hints = get_type_hints(kind)
    chosen = {
        f.name: st.just(VERSION) if f.name == "version" else VALUES[hints[f.name]]
        for f in fields(kind)
    }
    return st.builds(kind, **chosen)


@given(st.one_of(*(built(kind) for kind in MESSAGES)))
def test_round_trip(message: messages.Message) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=60))
def test_any_octets(frame: bytes) -> None:
    try:
        decode(frame)
    except MessageError as e:
        assert str(e)


json_like = st.recursive(
    st.none() | st.booleans() | ints | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@given(st.integers(-2, len(MESSAGES) + 2), st.lists(json_like, max_size=8))
def test_any_fields(tag: int, values: list[object]) -> None:
    try:
        decode(msgpack.packb([tag, *values]))
    except MessageError as e:
        assert str(e)


def test_a_wrong_version_is_refused_by_name() -> None:
    other = msgpack.packb([0, VERSION + 6, 1, "fields", "of", "another", "version"])
    with pytest.raises(MessageError, match=f"Hello: bus version {VERSION + 6}, .*{VERSION}"):
        decode(other)
    assert decode(encode(Hello(VERSION, 1, 2, 3, ((4, 5),)))) == Hello(VERSION, 1, 2, 3, ((4, 5),))
