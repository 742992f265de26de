"""Which sessions a worker tells of, and what of those that are not known yet."""

from __future__ import annotations

import os

from fastpath.layout import Table
from ops.messages import Traced
from ops.trace import NOTE, Subject, Teller
from workers.tracing import CONTROL, HEAD, NOTHING, PACKETS, PENDING_FRAMES, Tracing

LCP, CHAP, IP = 0xC021, 0xC223, 0x0021


class Told(Teller):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__("/nonexistent")
        self.said: list[tuple[int, int, bytes, int]] = []

    def tell(
        self,
        trace: Traced,
        subject: Subject,
        direction: int,
        protocol: int,
        octets: bytes,
        lost: int = 0,
        at: float | None = None,
    ) -> None:
        self.said.append((trace[0], protocol if direction != NOTE else -1, octets, lost))


class Rig:
    def __init__(self) -> None:
        self.table = Table.create(os.memfd_create("table"), 8, 1, 7)
        self.teller = Told()
        self.levels: dict[tuple[int, int], list[int]] = {}
        self.tracing = Tracing(self.table, 0, self.teller, self.push)

    def push(self, handle: tuple[int, int], level: int) -> None:
        self.levels.setdefault(handle, []).append(level)

    def call(self, index: int) -> tuple[int, int]:
        generation, _ = self.table.allot(
            index,
            worker=0,
            call_id=64 + index,
            peer_call_id=1,
            local_address=1,
            peer_address=0xC0000207,
            peer_port=2,
            peer_window=64,
            peer_speed=1,
            connection=1,
        )
        self.table.begin_link(index, generation)
        self.tracing.begin((index, generation))
        return index, generation

    def frame(self, handle: tuple[int, int], protocol: int, octets: bytes, lost: int = 0) -> None:
        head = b"\0\0" + protocol.to_bytes(2, "big") + lost.to_bytes(4, "little")
        assert len(head) == HEAD
        self.tracing.frame(handle, head + octets)


def test_a_user_who_is_not_there_yet() -> None:
    rig = Rig()
    rig.tracing.set(((1, "username", "alice", True),))
    alice, bob = rig.call(0), rig.call(1)
    assert rig.levels == {alice: [CONTROL], bob: [CONTROL]}
    for handle in (alice, bob):
        rig.frame(handle, LCP, b"\x01\x01\x00\x04")
    response = b"\x02\x01\x00\x09\x04abcd"
    rig.frame(alice, CHAP, response)
    assert rig.teller.said == []
    rig.table.set_user(0, "alice", 4)
    rig.table.set_user(1, "bob", 4)
    rig.frame(alice, CHAP, b"\x03\x01\x00\x04")
    rig.frame(bob, CHAP, b"\x03\x01\x00\x04")
    # From the beginning, and without the response.
    assert [(p, o) for _, p, o, _ in rig.teller.said] == [
        (LCP, b"\x01\x01\x00\x04"),
        (CHAP, b"\x02\x01\x00\x09\x04" + bytes(4)),
        (CHAP, b"\x03\x01\x00\x04"),
    ]
    assert rig.levels == {alice: [CONTROL, PACKETS], bob: [CONTROL, NOTHING]}
    rig.frame(alice, IP, b"inner", lost=3)
    assert rig.teller.said[-1] == (1, IP, b"inner", 3)
    rig.tracing.note(alice, "up")
    assert rig.teller.said[-1] == (1, -1, b"up", 0)
    rig.tracing.set(())
    assert rig.levels[alice][-1] == NOTHING
    rig.tracing.note(alice, "down")
    assert len(rig.teller.said) == 5


def test_packets_only_for_who_wants_them() -> None:
    rig = Rig()
    handle = rig.call(0)
    assert rig.levels == {}
    rig.tracing.set(((1, "csid", "192.0.2.7", False), (2, "sid", "0000000700000001", True)))
    assert rig.levels == {handle: [PACKETS]}
    rig.frame(handle, IP, b"inner")
    rig.frame(handle, LCP, b"lcp!")
    assert [(n, p) for n, p, _, _ in rig.teller.said] == [(2, IP), (1, LCP), (2, LCP)]
    rig.tracing.end(handle)
    rig.frame((0, handle[1] + 1), LCP, b"of a later session")
    assert len(rig.teller.said) == 3


def test_what_is_kept_is_bounded() -> None:
    rig = Rig()
    rig.tracing.set(((1, "username", "alice", False),))
    handle = rig.call(0)
    for n in range(3 * PENDING_FRAMES):
        rig.frame(handle, LCP, n.to_bytes(4, "big"))
    rig.table.set_user(0, "alice", 4)
    rig.frame(handle, LCP, b"last")
    assert len(rig.teller.said) == PENDING_FRAMES + 1
