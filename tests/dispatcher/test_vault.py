"""The vault and the dispatcher's end of it, without their processes."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import vault_wire as wire
from dispatcher.deposit import Deposit, Found
from dispatcher.vault import Vault
from dispatcher.vault_wire import Said, decode
from tests.dispatcher.test_exchange import Lines

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ours, theirs
    ours.close()
    theirs.close()


def deposit(end: socket.socket, sockets: dict[int, socket.socket] | None = None) -> Deposit:
    """Of a dispatcher that has these connections."""

    def descriptor_of(number: int) -> int | None:
        return sockets[number].fileno() if sockets and number in sockets else None

    return Deposit(os.dup(end.fileno()), Lines(), descriptor_of)


def collect(of: Deposit, vault: Vault, seconds: float = 5.0) -> list[Found]:
    """Ask, with a vault that answers meanwhile."""
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            vault.hear()
            vault.speak()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        return of.collect(seconds)
    finally:
        done.set()
        thread.join()


def drain(vault: Vault, datagrams: int) -> None:
    for _ in range(datagrams):
        vault.hear()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@given(st.integers(1, 7), st.integers(0, 2**64 - 1), st.binary(max_size=300), st.binary())
def test_round_trip(kind: int, number: int, rest: bytes, pending: bytes) -> None:
    said = Said(kind, number, number ^ 1, rest, pending)
    assert decode(said.encode()) == said


@given(st.binary(max_size=60))
def test_any_octets_are_a_datagram_or_an_error(data: bytes) -> None:
    try:
        assert decode(data).encode() == data
    except ValueError:
        pass


def test_what_was_given_comes_back(pair: Pair) -> None:
    before = open_descriptors()
    peers = [socket.socketpair() for _ in range(3)]
    held = {n: ours for n, (ours, _) in enumerate(peers)}
    vault = Vault(pair[1], Lines())
    one = deposit(pair[0], held)
    for number in held:
        one.hold(number)
    one.note(1, b"half", b"to send")
    one.note(2, b"x", b"")
    one.note(2, b"", b"")
    one.drop(0)
    drain(vault, 7)
    assert len(vault) == 2
    one.close()
    for sock in held.values():
        sock.close()
    heir = deposit(pair[0])
    found = collect(heir, vault)
    assert [(f.number, f.rest, f.pending) for f in found] == [
        (1, b"half", b"to send"),
        (2, b"", b""),
    ]
    found[0].sock.send(b"still open")
    assert peers[1][1].recv(20) == b"still open"
    assert peers[0][1].recv(1) == b""  # closed: nobody has it any more
    heir.close()
    for f in found:
        f.sock.close()
    for number in (1, 2):
        vault._drop(number)
    for _, theirs in peers:
        theirs.close()
    assert open_descriptors() == before


def test_one_who_asked_and_died_does_not_hold_up_the_next(pair: Pair) -> None:
    """More is held than the socket takes; half an answer lies there when the successor asks."""
    ours, theirs = socket.socketpair()
    held = dict.fromkeys(range(2000), ours)
    vault = Vault(pair[1], Lines())
    one = deposit(pair[0], held)
    for number in held:
        one.hold(number)
        vault.hear()
    one._send(Said(wire.ASK, 1))
    vault.hear()
    assert vault.wishes_to_speak  # and it does not wait for anybody
    vault.hear()
    before = open_descriptors()
    heir = deposit(pair[0])
    found = collect(heir, vault)
    assert sorted(f.number for f in found) == list(held)
    for f in found:
        f.sock.close()
    heir.close()
    assert open_descriptors() == before
    for number in held:
        vault._drop(number)
    one.close()
    ours.close()
    theirs.close()


def test_a_vault_that_stands_still_is_not_waited_for(pair: Pair) -> None:
    ours, theirs = socket.socketpair()
    vault = Vault(pair[1], Lines())
    held = dict.fromkeys(range(3000), ours)
    one = deposit(pair[0], held)
    for number in held:
        one.hold(number)
    assert one.unsaid > 0
    del held[2999]  # closed before it was said
    for _ in range(4000):
        vault.hear()
        one.flush()
    assert one.unsaid == 0
    assert len(vault) == 2999
    one._unsaid.append(Said(wire.HOLD, number=1))
    one.forget()
    assert one.unsaid == 0
    for number in list(held):
        vault._drop(number)
    one.close()
    ours.close()
    theirs.close()


def test_another_vault_says_so(pair: Pair) -> None:
    one = deposit(pair[0])
    assert not one.began_anew()
    Vault(pair[1], Lines()).begin()
    assert one.began_anew()
    assert not one.began_anew()
    one.close()


def test_nobody_answers(pair: Pair) -> None:
    one = deposit(pair[0])
    assert one.collect(0.05) == []
    one.close()


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, Said(wire.HOLD, number=3).encode()])
def test_what_is_no_message_changes_nothing(pair: Pair, data: bytes) -> None:
    """The last one: no descriptor came with it."""
    vault = Vault(pair[1], Lines())
    if data:
        pair[0].send(data)
    else:
        socket.send_fds(pair[0], [b"?"], [0])
    before = open_descriptors()
    vault.hear()
    assert len(vault) == 0
    assert open_descriptors() <= before
