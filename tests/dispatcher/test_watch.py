"""The keeper's watch: a thread that stands still, and one that is only kept from running."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from dispatcher import watch
from dispatcher.children import Role
from dispatcher.watch import Limits, Watch, cpu_wait
from ops.log import Log


@dataclass
class Page:
    """A worker's page."""

    data_beat_ns: int = 0
    control_beat_ns: int = 0
    data_tid: int = 11
    control_tid: int = 12


@dataclass
class Table:
    """Of one worker."""

    page: Page = field(default_factory=Page)
    dispatcher_beat_ns: int = 0

    def worker(self, index: int) -> Page:
        return self.page


@dataclass
class Child:
    """What Watch asks of a child."""

    role: Role = field(default_factory=lambda: Role("worker-0", "worker", "workers.process"))
    pid: int = 10
    started: float = 0.0
    age: float = 100.0
    eof_at: float = 0.0
    ready: bool = True
    killed: bool = False

    def kill(self) -> None:
        self.killed = True


@dataclass
class Scene:
    """The watch, its child, and how long that child's threads waited for a CPU."""

    table: Table
    child: Child
    watch: Watch
    waits: dict[int, float]
    now: float

    def beat(self, data: bool = True, control: bool = True) -> None:
        page = self.table.page
        page.data_beat_ns = int(self.now * 1e9) if data else page.data_beat_ns
        page.control_beat_ns = int(self.now * 1e9) if control else page.control_beat_ns

    def second(self) -> None:
        self.now += 1.0
        self.watch.look([self.child], self.now)  # type: ignore[list-item]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    waits = {11: 1.0, 12: 1.0}
    monkeypatch.setattr(watch, "cpu_wait", lambda pid, tid: waits[tid])
    table: Any = Table()
    made = Scene(
        table, Child(), Watch(table, Log("test", level=0), Limits()), waits, time.monotonic() + 100
    )
    made.beat()
    made.second()
    yield made


def test_a_thread_that_stands_still_is_killed(scene: Scene) -> None:
    for _ in range(6):
        scene.beat(control=False)
        scene.second()
    assert scene.child.killed


def test_a_thread_without_a_cpu_is_not(scene: Scene) -> None:
    for _ in range(25):
        scene.waits[12] += 0.9
        scene.beat(control=False)
        scene.second()
    assert not scene.child.killed
    scene.beat()
    for _ in range(4):
        scene.beat(control=False)
        scene.second()
    assert not scene.child.killed
    for _ in range(3):  # it had waited before its last beat, not since
        scene.beat(control=False)
        scene.second()
    assert scene.child.killed


def test_not_even_that_for_ever(scene: Scene) -> None:
    for _ in range(32):
        scene.waits[11] += 1.0
        scene.beat(data=False)
        scene.second()
    assert scene.child.killed


def test_the_kernel_tells() -> None:
    assert cpu_wait(1, 1) >= 0.0
    assert cpu_wait(0, 0) == 0.0
