"""Several workers on one queue's frames: each is served, whatever becomes of the others."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from dispatcher import umem, xdp
from dispatcher.umem import SEND_FRAMES, SOL_XDP, XDP_MMAP_OFFSETS
from ops.settings import Gre, Workers
from tests.netns import rough, spaces
from tests.netns.rough import LOCAL, Site, client, drops
from tests.netns.spaces import Keeper, Space
from tests.netns.test_odd_links import at
from tests.netns.test_worker import worker_pids
from tests.netns.test_xdp import attached, counts, device

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

SESSIONS: Final = 6
RING: Final = 512
BUFFER: Final = RING * umem.FRAME
PIDFD_GETFD: Final = 438
ETHTOOL_SCHANNELS: Final = 0x3D
PGOFF_RX: Final = 0
IN_KERNEL: Final = 1  # a frame that found its worker's ring full waits there to be the next
UNDER_WAY: Final = 512  # sent, and nobody has looked since


@dataclass
class Place:
    """A concentrator with sessions."""

    near: Space
    server: Space
    site: Site
    keeper: Keeper
    workers: int
    addresses: list[str]

    def pid(self, worker: int) -> int:
        """That worker's process."""
        found = [pid for pid in worker_pids(self.keeper) if f"data-{worker}" in threads(pid)]
        return found[0] if found else 0

    def by_worker(self, way: str) -> list[int]:
        """GRE packets that went by rings."""
        found = self.site.metrics().by("pptp_gre_packets_by_xdp_total", "worker", direction=way)
        return [int(found.get(str(worker), 0)) for worker in range(self.workers)]

    def answered(self, addresses: list[str], *words: str) -> list[str]:
        """Those from which pings are answered, asked at once."""
        argv = ("ping", "-q", "-i", "0.05", "-c", "10", "-W", "1", *words)
        asked = {
            address: subprocess.Popen(
                self.near.argv(*argv, "-I", address, LOCAL), stdout=subprocess.PIPE, text=True
            )
            for address in addresses
        }
        return [a for a, process in asked.items() if " 0% packet loss" in process.communicate()[0]]

    @contextlib.contextmanager
    def floods(self, addresses: list[str], *words: str) -> Iterator[None]:
        """Traffic of these sessions meanwhile, both ways."""
        argv = ("ping", "-q", "-f", "-s", "1000", "-w", "600", *words, "-I")
        running = [
            subprocess.Popen(self.near.argv(*argv, a, LOCAL), stdout=subprocess.DEVNULL)
            for a in addresses
        ]
        try:
            yield
        finally:
            for process in running:
                process.send_signal(signal.SIGINT)
                process.wait()

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[list[socket.socket], int]]:
        """The keeper's sockets and memory of the queue."""
        pid = self.keeper.process.pid
        with contextlib.ExitStack() as stack:
            handle = os.pidfd_open(pid)
            stack.callback(os.close, handle)
            rings: list[socket.socket] = []
            memory = -1
            for name in os.listdir(f"/proc/{pid}/fd"):
                where = os.readlink(f"/proc/{pid}/fd/{name}")
                if where.startswith("/memfd:xdp"):
                    memory = os.open(f"/proc/{pid}/fd/{name}", os.O_RDWR)
                    stack.callback(os.close, memory)
                elif where.startswith("socket:"):
                    fd = ctypes.CDLL(None).syscall(PIDFD_GETFD, handle, int(name), 0)
                    sock = socket.socket(umem.AF_XDP, socket.SOCK_RAW, 0, fd)
                    stack.enter_context(sock)
                    with contextlib.suppress(OSError):  # one of another family
                        sock.getsockopt(SOL_XDP, XDP_MMAP_OFFSETS, 128)
                        rings.append(sock)
            assert len(rings) == self.workers
            yield rings, memory

    def frames(self) -> tuple[int, int, int]:
        """Of those to receive into, how many are somewhere, and how many there are; of those to
        send from, how many are not known to be free."""
        split = umem.share(self.workers, BUFFER, tuple(range(self.workers)))
        with self.opened() as (rings, memory), mmap.mmap(memory, split.memory) as view:
            found = waiting(rings[0], umem.PGOFF_FILL, 2)
            found += sum(waiting(sock, PGOFF_RX, 0) for sock in rings)
            for worker in range(self.workers):
                notes = split.size + umem.PAGE_SIZE + worker * umem.NOTES_SIZE
                found += struct.unpack_from("=I", view, notes)[0]
            busy = view[split.memory - self.workers * SEND_FRAMES :].count(1)
        return found, split.frames, busy

    def whole(self) -> bool:
        """Whether no frame is lost."""
        found, all_, under_way = self.frames()
        return all_ - IN_KERNEL <= found <= all_ and under_way < UNDER_WAY


def waiting(sock: socket.socket, where: int, number: int) -> int:
    """Entries of a ring: `number` in struct xdp_mmap_offsets."""
    offsets = struct.unpack("=16Q", sock.getsockopt(SOL_XDP, XDP_MMAP_OFFSETS, 128))
    producer, consumer = offsets[4 * number : 4 * number + 2]
    with mmap.mmap(sock.fileno(), 4096, offset=where) as ring:
        made, taken = (struct.unpack_from("=I", ring, place)[0] for place in (producer, consumer))
    return int(made - taken) % (1 << 32)


def threads(pid: int) -> list[str]:
    """Their names; none if it is gone."""
    try:
        return [p.read_text().strip() for p in Path(f"/proc/{pid}/task").glob("*/comm")]
    except OSError:
        return []


@pytest.fixture(params=[2, 3])
def place(
    request: pytest.FixtureRequest, pair: tuple[Space, Space], start_keeper: rough.StartKeeper
) -> Iterator[Place]:
    """By itself it takes rings here, both ways; everything ends in order."""
    near, server = pair
    gre = Gre(interface=device(server), receive_buffer_bytes=BUFFER)
    conf = rough.settings(gre=gre, workers=Workers(count=request.param))
    keeper = start_keeper(server, conf, module="dispatcher.keeper").ready()
    assert 'mode="xdp generic"' in keeper.text and "send=xdp" in keeper.text, keeper.text.split(
        "gre mode"
    )[1][:300]
    with client(near, "user{i}", "--count", str(SESSIONS)) as one:
        addresses = [event["address"] for event in one.wait("up", SESSIONS)]
        made = Place(near, server, at(server), keeper, request.param, addresses)
        yield made
        assert one.of("down") == []
    assert keeper.stop() == 0
    assert not attached(server)
    assert server.ours() == []


def test_all_of_them_receive_and_send(place: Place) -> None:
    assert place.answered(place.addresses) == place.addresses
    before = counts(place.site)
    assert place.answered(place.addresses, "-s", "1300") == place.addresses
    after = counts(place.site)
    for way in ("received", "sent"):
        assert after[f"{way} by ring"] - before[f"{way} by ring"] >= 10 * SESSIONS
    assert after["received"] - before["received"] == (
        after["received by ring"] - before["received by ring"]
    )
    assert min(place.by_worker("receive")) > 0 and min(place.by_worker("transmit")) > 0
    assert drops(place.site.metrics()) == {}
    assert place.whole(), place.frames()


@pytest.mark.parametrize("queues", [1, 2])
@pytest.mark.parametrize("mode", ["packet", "xdp"])
def test_queues(
    pair: tuple[Space, Space], start_keeper: rough.StartKeeper, queues: int, mode: str
) -> None:
    """Each sends by one of them; what is received comes by any."""
    near, server = pair
    name = device(server)
    with server.inside():
        channels(name, queues)
        assert xdp.send_queues(name) == queues
    gre = Gre(mode=mode, send="xdp", interface=name)  # type: ignore[arg-type]
    conf = rough.settings(gre=gre, workers=Workers(count=3))
    keeper = start_keeper(server, conf, module="dispatcher.keeper").ready()
    with client(near, "user{i}", "--count", str(SESSIONS)) as one:
        addresses = [event["address"] for event in one.wait("up", SESSIONS)]
        place = Place(near, server, at(server), keeper, 3, addresses)
        before = counts(place.site)
        assert place.answered(addresses) == addresses
        after = counts(place.site)
        assert after["sent by ring"] - before["sent by ring"] >= 10 * SESSIONS
        assert min(place.by_worker("transmit")) > 0
        received = after["received by ring"] - before["received by ring"]
        assert received >= 10 * SESSIONS if mode == "xdp" else received == 0
        assert drops(place.site.metrics()) == {}
    assert keeper.stop() == 0


def channels(name: str, count: int) -> None:
    """Give a device so many queues (linux/ethtool.h)."""
    room = ctypes.create_string_buffer(
        struct.pack("=9I", ETHTOOL_SCHANNELS, 0, 0, 0, 0, count, count, 0, 0)
    )
    request = struct.pack("=16sQ16x", name.encode(), ctypes.addressof(room))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, xdp.SIOCETHTOOL, request)


def test_killed_again_and_again(place: Place) -> None:
    """Under load: the others go on at once, no frame is lost, no session ends."""
    with place.floods(place.addresses):
        for turn in range(2 * place.workers):
            _kill(place, turn % place.workers)
    for _ in range(2):
        assert place.answered(place.addresses) == place.addresses
    assert place.whole(), place.frames()
    assert place.keeper.text.count("session up") == SESSIONS
    assert "worker_lost" not in place.keeper.text


def _kill(place: Place, victim: int) -> None:
    old = spaces.wait_for(lambda: place.pid(victim), 20)
    before = place.by_worker("receive")
    spaces.wait_for(lambda: place.by_worker("receive")[victim] > before[victim] + 100, 20)
    before = place.by_worker("receive")
    spaces.kill(old)
    time.sleep(0.1)  # its successor takes longer
    after = place.by_worker("receive")
    for worker in range(place.workers):
        assert worker == victim or after[worker] > before[worker] + 10, (victim, before, after)
    spaces.wait_for(lambda: place.pid(victim) not in (0, old), 20)
    spaces.wait_for(lambda: place.by_worker("receive")[victim] > after[victim], 20)


def test_one_that_stands_still(place: Place) -> None:
    """Its ring fills and what comes for it is dropped; all others' sessions are served."""
    used = place.site.metrics().by("pptp_slots_used", "worker")
    stopped = place.pid(0)
    os.kill(stopped, signal.SIGSTOP)
    try:
        served = place.answered(place.addresses)
        assert len(served) == SESSIONS - used["0"]
        left = [address for address in place.addresses if address not in served]
        with place.floods(left, "-l", str(2 * RING)), place.opened() as (rings, _):
            spaces.wait_for(lambda: max(waiting(sock, PGOFF_RX, 0) for sock in rings) == RING, 2)
            assert place.answered(served) == served
    finally:
        os.kill(stopped, signal.SIGCONT)
    spaces.wait_for(lambda: place.answered(place.addresses) == place.addresses, 30)
    assert place.whole(), place.frames()
    assert place.keeper.text.count("worker said Hello") == place.workers  # nobody was killed
