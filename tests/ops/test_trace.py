"""Datagrams of a trace: whom they are about, and what is counted when nobody takes them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.ranges import parse_address
from ops.trace import FROM_CLIENT, NOTE, SOCKET, Subject, Teller, fits, unpack

PEER = parse_address("192.0.2.7")
ALICE = Subject("00000001000000ab", "alice", parse_address("10.99.1.5"), PEER, True)
NEW = Subject("00000001000000ab", "", 0, PEER, False)


@pytest.mark.parametrize(
    ("by", "value", "alice", "new"),
    [
        ("sid", "00000001000000ab", True, True),
        ("sid", "00000001000000ac", False, False),
        ("username", "alice", True, None),
        ("username", "bob", False, None),
        ("ip", "10.99.1.5", True, None),
        ("csid", "192.0.2.7", True, True),
        ("csid", "192.0.2.8", False, False),
    ],
)
def test_fits(by: str, value: str, alice: bool, new: bool | None) -> None:
    assert fits((1, by, value, False), ALICE) is alice
    assert fits((1, by, value, False), NEW) is new


def test_tell(tmp_path: Path) -> None:
    teller = Teller(str(tmp_path))
    trace = (5, "username", "alice", True)
    teller.set([trace, (6, "username", "bob", True)])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / SOCKET))
        listener.listen(1)
        teller.tell(trace, ALICE, FROM_CLIENT, 0xC021, b"x" * 10_000, lost=2)
        sock, _ = listener.accept()
        sock.settimeout(10)
        told = unpack(sock.recv(65536))
        assert (told.trace, told.sid, told.user, told.peer) == (5, ALICE.sid, "alice", "192.0.2.7")
        assert (told.protocol, len(told.octets), told.lost) == (0xC021, 4096, 2)
        teller.note(ALICE, "up")
        told = unpack(sock.recv(65536))
        assert (told.direction, told.octets) == (NOTE, b"up")
        # Nobody reads: sending never blocks, and what was left out is told.
        sent = 0
        while sent < 100_000:
            teller.note(ALICE, "more")
            sent += 1
            if teller._lost:
                break
        for _ in range(sent - 1):
            sock.recv(65536)
        teller.note(ALICE, "after")
        assert unpack(sock.recv(65536)).lost == 1
        assert not teller.deaf
        sock.close()
    teller.probe()
    assert teller.deaf
    teller.set([])


@given(st.binary(max_size=60))
def test_any_octets(data: bytes) -> None:
    try:
        unpack(data)
    except ValueError:
        pass
