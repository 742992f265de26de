"""The worker's DEALER against a real ROUTER: greeting, order, restarts, bad frames."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zmq

from ops.messages import (
    VERSION,
    Ended,
    Heartbeat,
    Hello,
    Message,
    MessageError,
    Up,
    Welcome,
    decode,
    encode,
)
from workers import bus as bus_module
from workers.bus import Bus


class Router:
    """The dispatcher's end, as plain as can be."""

    def __init__(self, address: str) -> None:
        self.context = zmq.Context()
        self.socket: Any = self.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self.socket.bind(address)

    def take(self) -> list[tuple[bytes, Message]]:
        found: list[tuple[bytes, Message]] = []
        while True:
            try:
                identity, frame = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return found
            found.append((identity, decode(frame)))

    def say(self, message: Message, identity: bytes = b"worker-3") -> None:
        self.socket.send_multipart((identity, encode(message)))

    def close(self) -> None:
        self.socket.close()
        self.context.term()


class Worker:
    """A Bus and what it reported."""

    def __init__(self, address: str) -> None:
        self.received: list[Message] = []
        self.broken: list[str] = []
        self.hellos = 0
        self.bus = Bus(
            address,
            b"worker-3",
            asyncio.get_running_loop(),
            hello=self.hello,
            received=self.received.append,
            broken=self.broken.append,
        )

    def hello(self) -> Hello:
        self.hellos += 1
        return Hello(VERSION, 3, 99, 512, ((1, self.hellos),))


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    yield f"ipc://{tmp_path}/bus.sock"


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < end, "nothing happened"
        await asyncio.sleep(0.002)


def gather(router: Router, got: list[tuple[bytes, Message]]) -> bool:
    found = router.take()
    got += found
    return bool(found)


def test_hello_is_first_and_order_is_kept(address: str) -> None:
    async def scenario() -> None:
        router = Router(address)
        worker = Worker(address)
        assert not worker.bus.send(Up(1, 1))  # nobody there yet: reconciliation will tell
        await until(lambda: worker.bus.greeted)
        for n in range(1000):
            assert worker.bus.send(Ended(n, 1))
        got: list[tuple[bytes, Message]] = []
        while len(got) < 1001:
            await until(lambda: gather(router, got))
        assert got[0] == (b"worker-3", Hello(VERSION, 3, 99, 512, ((1, 1),)))
        assert [m.index for _, m in got[1:] if isinstance(m, Ended)] == list(range(1000))
        for n in range(600):  # more than one turn of the loop takes
            router.say(Welcome(VERSION, n, ()))
        router.say(Heartbeat(0))
        await until(lambda: len(worker.received) == 600)
        assert worker.received == [Welcome(VERSION, n, ()) for n in range(600)]
        worker.bus.close()
        router.close()

    asyncio.run(scenario())


def test_a_dispatcher_that_starts_later_or_again_hears_hello(address: str) -> None:
    async def scenario() -> None:
        worker = Worker(address)
        await asyncio.sleep(0.05)
        for turn in (1, 2, 3):
            router = Router(address)
            got: list[tuple[bytes, Message]] = []
            await until(partial(gather, router, got))
            assert got == [(b"worker-3", Hello(VERSION, 3, 99, 512, ((1, turn),)))]
            worker.bus.send(Up(1, turn))
            router.close()
            await until(lambda: not worker.bus.greeted)
        worker.bus.close(0)

    asyncio.run(scenario())


def test_a_silent_dispatcher_is_greeted_anew(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(bus_module, "SILENCE_S", 0.02)
        router = Router(address)
        worker = Worker(address)
        await until(lambda: worker.bus.greeted)
        worker.bus.tick()
        assert worker.bus.greeted
        await asyncio.sleep(0.03)
        worker.bus.tick()
        assert not worker.bus.greeted
        await until(lambda: worker.bus.greeted)
        assert worker.hellos == 2
        assert "silent" in worker.broken[0]
        worker.bus.close(0)
        router.close()

    asyncio.run(scenario())


def test_bad_frames_are_reported_and_cost_nothing_else(address: str) -> None:
    async def scenario() -> None:
        router = Router(address)
        worker = Worker(address)
        await until(lambda: worker.bus.greeted and router.take())
        router.socket.send_multipart((b"worker-3", b"\xc1\xff"))
        router.socket.send_multipart((b"worker-3", encode(Welcome(VERSION + 1, 1, ()))))
        router.say(Welcome(VERSION, 1, ()))
        await until(lambda: worker.received)
        assert len(worker.broken) == 2
        assert f"bus version {VERSION + 1}" in worker.broken[1]
        with pytest.raises(MessageError):
            decode(b"\xc1\xff")
        worker.bus.close(0)
        router.close()

    asyncio.run(scenario())
