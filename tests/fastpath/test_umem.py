"""Frames that workers share: none is lost and none is there twice, whoever dies when."""

from __future__ import annotations

import ctypes
import gc
import mmap
import multiprocessing
import os
import random
import signal
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from dispatcher import umem
from dispatcher.umem import FRAME, SEND_FRAMES, Share
from fastpath.umem import Umem

RING: Final = 64
FOUND: Final = 2  # by another worker in the completion ring
FILLING, REAPING, FILLER, FILLED = 0, 64, 128, 132  # in the page
OWNER_DIED: Final = 0x40000000  # linux/futex.h
PTRACE_TRACEME, PTRACE_SINGLESTEP = 0, 9
REFUSED: Final = 77
PROCESSES: Final = multiprocessing.get_context("forkserver")


class Ring:
    """One ring, from the kernel's side."""

    def __init__(self, words: memoryview, at: int, entries: int, size: int) -> None:
        """`words`: of 32 bits, each of them written at once."""
        self.words, self.at, self.entries, self.size = words, at // 4, entries, size // 4

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return 4 * self.at + 128 + self.entries * 4 * self.size

    @property
    def producer(self) -> int:
        """Entries ever written."""
        return self.words[self.at]

    @property
    def consumer(self) -> int:
        """Entries ever read."""
        return self.words[self.at + 16]

    def __len__(self) -> int:
        return (self.producer - self.consumer) % (1 << 32)

    def waiting(self) -> list[int]:
        """Addresses not read yet."""
        places = range(self.consumer, self.consumer + len(self))
        return [self._address(place) for place in places]

    def _place(self, place: int) -> int:
        return self.at + 32 + place % self.entries * self.size

    def _address(self, place: int) -> int:
        at = self._place(place)
        return (self.words[at] | self.words[at + 1] << 32) & ~(FRAME - 1)

    def pop(self) -> int:
        """The next address."""
        found = self._address(self.consumer)
        self.words[self.at + 16] = (self.consumer + 1) % (1 << 32)
        return found

    def push(self, address: int) -> None:
        """A packet, or a frame that is done with."""
        assert len(self) < self.entries
        at = self._place(self.producer)
        self.words[at], self.words[at + 1] = address, 0
        if self.size == 4:
            self.words[at + 2], self.words[at + 3] = 60, 0
        self.words[self.at] = (self.producer + 1) % (1 << 32)


class Made:
    """A queue's frames and rings, and a kernel that hands packets to workers by chance."""

    def __init__(self, workers: int) -> None:
        self.split = Share(workers, RING, tuple(range(workers)))
        frames, done = self.split.frames, umem.power(workers * SEND_FRAMES)
        self.memory, self.rings = os.memfd_create("frames"), os.memfd_create("rings")
        os.ftruncate(self.memory, self.split.memory)
        umem._locks(self.memory, self.split)
        self.size = 256 + 8 * (frames + done)
        self.size += workers * (256 + 16 * (RING + SEND_FRAMES))
        os.ftruncate(self.rings, self.size)
        self.page = mmap.mmap(self.memory, self.split.memory)
        self.view = mmap.mmap(self.rings, self.size)
        view = memoryview(self.view).cast("I")
        self.fill = Ring(view, 0, frames, 8)
        self.done = Ring(view, self.fill.end, done, 8)
        self.receive: list[Ring] = []
        self.send: list[Ring] = []
        at = self.done.end
        for _ in range(workers):
            self.receive.append(Ring(view, at, RING, 16))
            self.send.append(Ring(view, self.receive[-1].end, SEND_FRAMES, 16))
            at = self.send[-1].end
        for frame in range(frames):
            self.fill.push(frame * FRAME)
        self.sent: list[int] = []  # on their way
        self.chance = random.Random(workers)

    def worker(self, number: int) -> Umem:
        """As that worker sees it."""
        split = self.split
        return Umem(
            *(self.memory, self.rings, self.size, split.frames, split.ring),
            *(len(split.senders), split.workers, number, self.done.entries),
        )

    def packet(self, worker: int) -> bool:
        """One arrives, if there is a frame and room."""
        if not len(self.fill) or len(self.receive[worker]) == RING:
            return False
        self.receive[worker].push(self.fill.pop())
        return True

    def work(self, steps: int) -> None:
        """Receive and send."""
        for _ in range(steps):
            self.packet(self.chance.randrange(self.split.workers))
            for ring in self.send:
                if len(ring):
                    self.sent.append(ring.pop())
            while len(self.sent) > 100:
                self.done.push(self.sent.pop(self.chance.randrange(len(self.sent))))

    def check(self, workers: list[Umem]) -> None:
        """Every frame is in one place."""
        assert [w.in_hand for w in workers] == [0] * len(workers)
        found = Counter(self.fill.waiting())
        for ring in self.receive:
            found.update(ring.waiting())
        assert found == Counter(range(0, self.split.frames * FRAME, FRAME))
        first = self.split.frames
        sends = Counter(address // FRAME - first for address in self.sent)
        for ring in (self.done, *self.send):
            sends.update(address // FRAME - first for address in ring.waiting())
        for w in workers:
            sends.update(w.free)
        notes = self.split.memory - len(self.split.senders) * SEND_FRAMES
        sends.update(f for f, mark in enumerate(self.page[notes:]) if mark == FOUND)
        assert sends == Counter(range(len(self.split.senders) * SEND_FRAMES))

    def lock(self, at: int, *, die: bool) -> None:
        """Take a lock of the page; `die`: in a thread that ends with it."""
        libc = ctypes.CDLL(None)
        where = ctypes.c_char.from_buffer(self.page, self.split.size + at)
        if die:
            process = PROCESSES.Process(
                target=_locks, args=(os.getpid(), self.memory, at, self.split)
            )
            process.start()
            process.join()
            assert process.exitcode == 0
        else:
            assert libc.pthread_mutex_lock(ctypes.byref(where)) == 0

    def note(self, at: int, value: int) -> None:
        """Write to the page."""
        struct.pack_into("=I", self.page, self.split.size + at, value)

    def state(self) -> tuple[bytes, bytes]:
        """All that outlives a worker."""
        return self.page[self.split.size :], bytes(self.view)

    def put_back(self, state: tuple[bytes, bytes]) -> None:
        """As the kernel leaves it when the owner of a lock ends."""
        self.page[self.split.size :], self.view[:] = state
        for at in (FILLING, REAPING):
            place = self.split.size + at
            if int.from_bytes(self.page[place : place + 4], "little"):
                self.note(at, OWNER_DIED)


def steps(made: Made, act: Callable[[], object]) -> list[tuple[bytes, bytes]]:
    """Each state that somebody who does this may leave behind, instruction by instruction."""
    libc = ctypes.CDLL(None)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        if libc.ptrace(PTRACE_TRACEME, 0, None, None):
            os._exit(REFUSED)
        os.kill(os.getpid(), signal.SIGSTOP)
        act()
        os._exit(0)
    found = [made.state()]
    while True:
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            break
        now = made.state()
        if now != found[-1]:
            found.append(now)
        libc.ptrace(PTRACE_SINGLESTEP, child, None, None)
    if os.WEXITSTATUS(status) == REFUSED:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no ptrace here")
    assert status == 0
    return found


def _opened(parent: int, fd: int) -> int:
    return os.open(f"/proc/{parent}/fd/{fd}", os.O_RDWR)


def _locks(parent: int, memory: int, at: int, split: Share) -> None:
    """A process that dies with a lock."""
    view = mmap.mmap(_opened(parent, memory), split.memory)
    where = ctypes.c_char.from_buffer(view, split.size + at)
    os._exit(ctypes.CDLL(None).pthread_mutex_lock(ctypes.byref(where)))


def _works(
    parent: int, memory: int, rings: int, split: Share, size: int, done: int, n: int
) -> None:
    """A worker's life."""
    mine = _opened(parent, memory), _opened(parent, rings)
    figures = size, split.frames, split.ring, len(split.senders), split.workers
    one = Umem(*mine, *figures, n, done)
    assert one.mend()
    one.run(16)


@pytest.fixture(params=[1, 2, 3])
def made(request: pytest.FixtureRequest) -> Iterator[Made]:
    """For so many workers."""
    yield Made(request.param)


@pytest.fixture
def two() -> Made:
    """For two."""
    return Made(2)


def workers_of(made: Made) -> list[Umem]:
    """All of them, at their start."""
    found = [made.worker(number) for number in range(made.split.workers)]
    assert all(one.mend() for one in found)
    return found


def test_frames_go_round(made: Made) -> None:
    workers = workers_of(made)
    for _ in range(300):
        made.work(50)
        for one in workers:
            one.take(16)
            one.give()
            one.hand_over(one.put(16))
    for one in workers:
        while one.take(RING):
            one.give()
    made.check(workers)
    assert sum(ring.consumer for ring in made.send) > 2 * SEND_FRAMES


def test_a_full_ring_leaves_the_others_their_frames(two: Made) -> None:
    _, awake = workers_of(two)
    while two.packet(0):
        pass
    for _ in range(1000):
        assert two.packet(1)
        assert awake.take(16) == 1
        assert awake.give()
    assert len(two.receive[0]) == RING


def test_a_busy_lock_leaves_them_in_hand(two: Made) -> None:
    one, _ = workers_of(two)
    two.lock(FILLING, die=False)
    for n in (1, 2):
        two.packet(0)
        assert one.take(16) == 1
        assert not one.give() and not one.give(patient=True)
        assert one.in_hand == n
    two.lock(REAPING, die=False)
    assert one.put(SEND_FRAMES) == SEND_FRAMES
    one.hand_over(SEND_FRAMES)
    assert one.put(1) == 0


@pytest.mark.parametrize("moved", [False, True])
def test_who_died_while_its_hand_went_back(two: Made, moved: bool) -> None:
    one, other = workers_of(two)
    two.packet(0)
    two.packet(1)
    assert one.take(16) == other.take(16) == 1
    two.note(FILLED, two.fill.producer)
    two.note(FILLER, 1)
    if moved:
        two.fill.push(0)  # the frame that it has in hand
    two.lock(FILLING, die=True)
    assert other.give()
    assert (one.in_hand, other.in_hand) == (0 if moved else 1, 0)
    successor = two.worker(0)
    assert successor.mend()
    two.check([successor, other])


def test_what_was_put_and_never_handed_over(made: Made) -> None:
    workers = workers_of(made)
    for n in (5, 3):
        workers[0].hand_over(workers[0].put(n))
    workers[0].put(7)
    workers[0] = made.worker(0)
    assert workers[0].mend()
    assert len(workers[0].free) == SEND_FRAMES - 8
    made.check(workers)


def test_another_one_finds_it(two: Made) -> None:
    one, other = workers_of(two)
    one.hand_over(one.put(SEND_FRAMES))
    two.work(SEND_FRAMES)
    two.lock(REAPING, die=True)
    other.put(1)
    assert len(two.done) == 0 and one.free == []
    one.reap()
    assert len(one.free) == SEND_FRAMES - len(two.sent)


@pytest.mark.parametrize("first", ["its successor", "another one"])
def test_dead_after_each_instruction(made: Made, first: str) -> None:
    """One worker takes, gives back, finds and sends; it may end anywhere in between."""
    one, *others = workers_of(made)
    for number in range(made.split.workers):
        for _ in range(3):
            made.packet(number)
    one.take(2)
    one.hand_over(one.put(1500))
    for other in others:
        other.hand_over(other.put(3))
    made.work(800)
    for other in others:
        other.reap()
    made.work(200)

    def act() -> None:
        one.take(16)
        one.give()
        for n in (2, 1):
            one.hand_over(one.put(n))

    found = steps(made, act)
    assert len(found) > 30
    for state in found:
        made.put_back(state)
        if first == "another one":
            for number in range(1, made.split.workers):
                assert made.worker(number).mend()
        workers = [made.worker(number) for number in range(made.split.workers)]
        assert all(worker.mend() for worker in workers)
        made.check(workers)


def test_killed_at_any_instant(made: Made) -> None:
    """Each in a process of its own, killed again and again in the midst of it."""
    words = os.getpid(), made.memory, made.rings, made.split, made.size, made.done.entries

    def start(number: int) -> multiprocessing.process.BaseProcess:
        process = PROCESSES.Process(target=_works, args=(*words, number))
        process.start()
        return process

    running = [start(number) for number in range(made.split.workers)]
    try:
        for _ in range(15):
            number = made.chance.randrange(made.split.workers)
            before = made.receive[number].consumer, made.send[number].producer
            while True:  # it is at work
                made.work(made.chance.randrange(1, 300))
                now = made.receive[number].consumer, made.send[number].producer
                if all((n - b) % (1 << 32) > 20 for n, b in zip(now, before, strict=True)):
                    break
            os.kill(running[number].pid or 0, signal.SIGKILL)
            running[number].join()
            running[number] = start(number)
        made.work(2000)
    finally:
        for process in running:
            process.kill()
            process.join()
    made.check(workers_of(made))
