"""The data thread's look at what ends a session: time, idleness, volume."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from fastpath import engine
from tests.fastpath.peer import INNER, Peer, running, udp
from workers.bounds import FIELDS, SAID

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(
        os.geteuid() != 0 and not os.environ.get("CI"), reason="raw sockets need root"
    ),
]
HOST = 0xC6130005


def bind(p: Peer, **bounds: int) -> None:
    values: dict[str, Any] = dict.fromkeys((*FIELDS, "idle_by"), 0)
    p.table.set_bounds(p.index, **values | bounds)


def said(p: Peer) -> tuple[str, int]:
    kind, value = SAID.unpack(p.event(engine.EVENT_BOUND, wait=4.0))
    return FIELDS[kind - 1], value


def quiet(p: Peer) -> bool:
    """Whether nothing of the kind was said since the last look."""
    events = p.seen + p.engine.events()
    p.seen.clear()
    return not [e for e in events if e[0] == engine.EVENT_BOUND]


def test_each_is_said_with_what_was_reached() -> None:
    with running() as p:
        p.install()
        p.up()
        over = time.monotonic_ns()
        bind(p, ends_ns=over)
        assert said(p) == ("ends_ns", over)
        assert said(p) == ("ends_ns", over)  # until somebody does something about it
        for _ in range(3):
            p.send(b"\x21" + udp(INNER, HOST, bytes(72)))  # 100 octets of IP
            p.to_tun(udp(HOST, INNER, bytes(172)))
            p.data()
        p.wait_count("rx_data", 3)
        session = p.table.session(p.index)
        assert (session.rx_bytes, session.tx_bytes) == (300, 600)
        for name, value in (("volume_up", 300), ("volume_down", 600), ("volume", 900)):
            bind(p, **{name: value})
            while (found := said(p))[0] != name:  # what was in the ring before
                pass
            assert found == (name, value)
        bind(p, volume_up=301, volume_down=601, volume=901, ends_ns=over + 10**12)
        time.sleep(1.2)
        quiet(p)
        time.sleep(1.2)
        assert quiet(p)


def test_data_of_either_way_is_no_idleness_and_a_successor_goes_on_counting() -> None:
    with running() as p:
        p.install()
        p.up()
        bind(p, idle_s=2)
        began = p.table.session(p.index).last_data_ns
        assert began
        for _ in range(4):
            time.sleep(0.8)
            p.to_tun(udp(HOST, INNER, b"down"))
            p.data()
        assert quiet(p)
        assert p.table.session(p.index).last_data_ns > began + 2 * 10**9
        bind(p, idle_s=3, idle_by=1)  # from now on only the subscriber's data counts
        time.sleep(1.2)
        table, last = p.table, p.table.session(p.index).last_data_ns
    with running(table) as q:
        q.event(engine.EVENT_RESUMED)
        assert table.session(q.index).last_data_ns == last
        for _ in range(3):
            q.to_tun(udp(HOST, INNER, b"down"))
        assert said(q) == ("idle_s", 3)
        assert time.monotonic_ns() - last < 6 * 10**9
