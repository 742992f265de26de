"""What sources of accounts say: frozen and thawed, and changed while a session is up."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.policy import (
    AT_LOGIN,
    NOTHING_SAID,
    Policy,
    PolicyError,
    pack_changes,
    unpack_changes,
)

FULL = Policy(
    source="radius",
    pool="gold",
    routes=("192.168.7.0/24",),
    sessions=2,
    session_timeout_s=3600,
    rate_up=1_000_000,
    classes=(b"\x00\xff",),
)


def test_frozen_and_thawed_it_is_the_same() -> None:
    assert NOTHING_SAID.freeze() == {}
    assert Policy.thaw(FULL.freeze()) == FULL
    assert Policy.thaw(FULL.freeze() | {"of_a_later_version": 1}) == FULL


def test_what_changes_is_a_field_of_its_type() -> None:
    changed = FULL.changed({"rate_up": 5, "address_lists": ["a", "b"]})
    assert (changed.rate_up, changed.address_lists) == (5, ("a", "b"))
    assert changed.session_timeout_s == 3600
    for changes, text in (
        ({"colour": 1}, "colour: no such field"),
        ({"rate_up": "fast"}, "rate_up: str, not int"),
        ({"rate_up": True}, "rate_up: bool, not int"),
        ({"rate_up": -5}, "rate_up: -5 is out of range"),
        ({"routes": "10.0.0.0/8"}, "routes: str, not a list"),
        ({"routes": [1]}, "routes: int, not str"),
        ({"address": 7}, "address: cannot change while the session is up"),
    ):
        with pytest.raises(PolicyError, match=text):
            FULL.changed(changes)


def test_what_holds_from_login_on_are_fields() -> None:
    assert {f.name for f in fields(Policy)} >= AT_LOGIN


def test_changes_travel() -> None:
    changes: dict[str, Any] = {"rate_up": 5, "reply": "\udcff", "classes": (b"x",)}
    assert unpack_changes(pack_changes(changes)) == changes


@given(st.binary(max_size=40))
def test_any_octets_are_changes_or_named(data: bytes) -> None:
    try:
        found = unpack_changes(data)
    except PolicyError:
        return
    try:
        FULL.changed(found)
    except PolicyError:
        pass
