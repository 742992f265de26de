"""The client's process: real TCP on loopback, real asyncio, the engine's twin, no packets."""

from __future__ import annotations

import asyncio
import json
import os
from io import StringIO
from typing import Any

import pytest

from fastpath.layout import STATE_ACTIVE, Table
from ops.client.fleet import EventKinds, Fleet, Path
from ops.client.netlink import NetlinkError
from ops.client.options import Options
from ops.client.report import Report, quantile
from tests.ops.client.server_end import PASSWORD, ServerEnd
from tests.workers.slow_engine import KINDS, SlowEngine

FIRST_CALL = 6400


class NoDevice:
    """Keeps what the TUN device would have; refuses one address if told so."""

    def __init__(self, refuses: int = 0) -> None:
        self.addresses: set[int] = set()
        self.refuses = refuses

    def up(self, mtu: int) -> None:
        self.mtu = mtu

    def add_address(self, address: int) -> None:
        if address == self.refuses:
            raise NetlinkError("address 10.99.1.1: File exists")
        self.addresses.add(address)

    def delete_address(self, address: int) -> None:
        self.addresses.remove(address)


class Rig:
    """A fleet, its twin engine, and a server that answers frames at once."""

    def __init__(self, count: int, *, refuse_user: int = 0, room: int | None = None) -> None:
        self.engine = SlowEngine(room=room)
        fd = os.memfd_create("fleet")
        self.table = Table.create(fd, count, 1, 1)
        os.close(fd)
        self.device = NoDevice()
        self.count = count
        self.refuse = refuse_user
        self.ends: dict[int, ServerEnd] = {}  # by the client's call ID
        self.output = StringIO()
        self.writers: list[asyncio.StreamWriter] = []
        self._number = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._number += 1
        number = self._number
        end = ServerEnd(address=0x0A630100 + number, call_id=number)
        end.refuse = 4 if number == self.refuse else 0
        self.writers.append(writer)
        while data := await reader.read(4096):
            answer = end.control(data)
            self.ends[end.peer_call_id] = end
            writer.write(answer)
        writer.close()

    async def carry(self) -> None:
        """Frames of the engine to the server's links and back; room in its ring again."""
        while True:
            await asyncio.sleep(0)
            if self.engine.room is not None:
                self.engine.room = 5
            while self.engine.sent:
                handle, frame = self.engine.sent.popleft()
                call_id = self.table.session(handle[0]).call_id
                now = asyncio.get_running_loop().time()
                for answer in self.ends[call_id].frame(frame, now):
                    self.engine.deliver(handle, answer)
            await asyncio.sleep(0.001)

    async def run(self, during: Any = None, **words: Any) -> int:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        options = Options("127.0.0.1", "user{i}", PASSWORD, port=port, count=self.count, **words)
        kinds = EventKinds(
            KINDS.frame, KINDS.installed, KINDS.removed, KINDS.echo_lost, KINDS.desync
        )
        path = Path(
            *(self.table, self.engine, kinds),
            self.device,  # type: ignore[arg-type]
            *("none", FIRST_CALL, lambda: None),
        )
        fleet = Fleet(options, Report(self.output, as_json=True), path)
        carrier = asyncio.create_task(self.carry())
        beside = asyncio.create_task(during(fleet)) if during else None
        try:
            return await fleet.run()
        finally:
            carrier.cancel()
            if beside is not None:
                await beside
            server.close()
            self.engine.close()

    async def all_up(self, fleet: Fleet) -> None:
        """Until every session has come up."""
        async with asyncio.timeout(10):
            while len(fleet.seconds) < self.count:  # noqa: ASYNC110 - nobody tells us
                await asyncio.sleep(0.005)

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.output.getvalue().splitlines()]
        return [line for line in lines if line["event"] == kind]

    def check_nothing_left(self) -> None:
        assert self.table.used() == [0]
        assert self.device.addresses == set()
        assert self.engine.installed == set()


def test_twenty_come_up_and_go() -> None:
    rig = Rig(20)
    seen: dict[str, Any] = {}

    async def look(fleet: Fleet) -> None:
        await rig.all_up(fleet)
        seen["addresses"] = set(rig.device.addresses)
        seen["sessions"] = rig.table.sessions()
        seen["up"] = set(rig.engine.is_up)
        fleet.stop()

    assert asyncio.run(rig.run(look)) == 0
    ups = rig.events("up")
    assert sorted(e["i"] for e in ups) == list(range(1, 21))
    assert len({e["address"] for e in ups}) == 20
    assert all(e["mppe"] == 128 and e["seconds"] > 0 for e in ups)
    assert len(seen["addresses"]) == len(seen["up"]) == 20
    for session in seen["sessions"]:
        end = rig.ends[session.call_id]
        assert session.state == STATE_ACTIVE
        assert session.address == end.address
        assert session.peer_call_id == end.call_id
        assert FIRST_CALL <= session.call_id < FIRST_CALL + 20
    assert all(end.stopped and end.terminated for end in rig.ends.values())
    assert [e["cause"] for e in rig.events("down")] == ["closed"] * 20
    rig.check_nothing_left()


def test_a_refused_one_makes_it_fail_and_the_others_stay() -> None:
    rig = Rig(3, refuse_user=2)
    assert asyncio.run(rig.run(hold=0.05)) == 1
    assert len(rig.events("up")) == 2
    (failed,) = rig.events("failed")
    assert failed["cause"] == "refused"
    (everyone,) = rig.events("all")
    assert (everyone["up"], everyone["failed"]) == (2, 1)
    rig.check_nothing_left()


def test_full_ring_delays_and_loses_nothing() -> None:
    rig = Rig(8, room=2)
    assert asyncio.run(rig.run(hold=0.05)) == 0
    assert len(rig.events("up")) == 8
    rig.check_nothing_left()


def test_lost_server_is_a_loss() -> None:
    rig = Rig(2)

    async def cut(fleet: Fleet) -> None:
        await rig.all_up(fleet)
        for writer in rig.writers:
            writer.transport.abort()

    assert asyncio.run(rig.run(cut)) == 1
    assert [e["cause"] for e in rig.events("down")] == ["lost_carrier"] * 2
    rig.check_nothing_left()


def test_engine_events_end_a_session() -> None:
    rig = Rig(2)

    async def spoil(fleet: Fleet) -> None:
        await rig.all_up(fleet)
        for handle in sorted(rig.engine.is_up):
            rig.engine.emit(KINDS.echo_lost if handle[0] else KINDS.desync, handle)

    assert asyncio.run(rig.run(spoil)) == 1
    assert sorted(e["cause"] for e in rig.events("down")) == ["ccp_failed", "echo_timeout"]
    rig.check_nothing_left()


def test_address_that_the_kernel_refuses() -> None:
    rig = Rig(1)
    rig.device.refuses = 0x0A630101
    assert asyncio.run(rig.run(hold=0.05)) == 1
    (end,) = rig.events("down")
    assert end["cause"] == "internal_error"
    assert "10.99.1.1" in end["reason"]
    rig.check_nothing_left()


def test_nobody_listens() -> None:
    async def run() -> int:
        rig.engine = SlowEngine()
        path = Path(
            *(rig.table, rig.engine, EventKinds(1, 2, 3, 4, 5)),
            rig.device,  # type: ignore[arg-type]
            *("none", FIRST_CALL, lambda: None),
        )
        options = Options("127.0.0.1", "u", PASSWORD, port=1)
        return await Fleet(options, Report(rig.output, as_json=True), path).run()

    rig = Rig(1)
    assert asyncio.run(run()) == 1
    (failed,) = rig.events("failed")
    assert failed["cause"] == "connect_failed"


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 3.0), (0.95, 5.0), (1.0, 5.0)])
def test_quantile(share: float, value: float) -> None:
    assert quantile([5.0, 3.0, 1.0, 2.0, 4.0], share) == value
    assert quantile([], share) == 0.0
