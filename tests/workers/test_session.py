"""The blob: what goes in comes out; anything else is named and refused."""

from __future__ import annotations

import os

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath.layout import BLOB_MAX, Table
from workers.ppp.actions import Policy, Verdict
from workers.ppp.eap import EapServer
from workers.ppp.packets import Packet
from workers.session import BlobError, Saved

SAVED = Saved(
    link={"state": 9, "magic": 0xFFFFFFFF, "ids": (1, 2), "last": b"\x00\xff"},
    user="sue",
    peer_name="DBNET\\s\udcfce",
    auth="mschapv2",
    called=0xC6120001,
    calling=0xC6120101,
    dns=(0x08080808, 0),
    pool="",
    started=12.5,
    up=13.25,
)


def test_round_trip() -> None:
    assert Saved.unpack(SAVED.pack()) == SAVED


def test_other_versions_and_rubbish_are_named() -> None:
    items = msgpack.unpackb(SAVED.pack(), unicode_errors="surrogateescape")
    items[0] = 4
    other = msgpack.packb(items, unicode_errors="surrogateescape")
    for data, text in (
        (b"", "no valid copy"),
        (other, "blob version 4, this program has 3"),
        (b"\xc1", "not msgpack"),
        (b"\x8a" * 2 + b"\x09" * 23, "not msgpack: unhashable"),
        (msgpack.packb([1, 2]), "2 items"),
        (msgpack.packb({}), "not a list"),
    ):
        with pytest.raises(BlobError, match=text):
            Saved.unpack(data)


def test_a_blob_without_a_policy_is_read() -> None:
    items = msgpack.unpackb(SAVED.pack(), unicode_errors="surrogateescape")
    for version, length in ((1, 11), (2, 12)):
        first = msgpack.packb([version, *items[1:length]], unicode_errors="surrogateescape")
        assert Saved.unpack(first) == SAVED
    for policy in (7, None, [1]):
        odd = msgpack.packb([*items[:-1], policy], unicode_errors="surrogateescape")
        with pytest.raises(BlobError, match="policy"):
            Saved.unpack(odd)


@given(st.binary(max_size=60))
def test_any_octets(data: bytes) -> None:
    try:
        Saved.unpack(data)
    except BlobError:
        pass


def test_the_longest_names_fit() -> None:
    long = Saved(
        link=SAVED.link,
        user="u" * 256,
        peer_name="D" * 256,
        auth="mschapv2",
        called=2**32 - 1,
        calling=2**32 - 1,
        dns=(2**32 - 1,) * 2,
        pool="p" * 64,
        started=1e9,
        up=1e9,
    )
    fd = os.memfd_create("t")
    table = Table.create(fd, 1, 1, 1)
    os.close(fd)
    table.begin_link(0, 0)
    data = long.pack()
    assert len(data) < BLOB_MAX - 600  # room for the link
    table.write_blob(0, data)
    assert Saved.unpack(table.blob(0)) == long


def test_an_eap_login_with_the_longest_names_leaves_nothing_of_them_in_the_link() -> None:
    """Identity and name of 256 octets each; the name stands in the blob three times."""
    eap = EapServer(Policy(eap=("mschapv2",)), "eap", challenge=bytes(range(32)))
    eap.start(0.0)
    eap.receive(Packet(2, eap.identifier, b"\x01" + b"i" * 256), 0.0)
    value = b"\x31" + bytes(49) + b"n" * 256
    head = bytes([26, 2, eap.ms_id]) + (4 + len(value)).to_bytes(2, "big")
    eap.receive(Packet(2, eap.identifier, head + value), 0.0)
    eap.decide(Verdict(True, authenticator_response="S=" + "0" * 40, master=bytes(16)), 0.0)
    eap.receive(Packet(2, eap.identifier, b"\x1a\x03"), 0.0)
    assert eap.over
    assert len(msgpack.packb(eap.freeze())) < 160
