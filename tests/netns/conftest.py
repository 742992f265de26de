"""Fixtures of namespaces: made for one test, removed after it, whatever became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.netns import spaces
from tests.netns.spaces import Keeper, Space


@pytest.fixture
def make_space() -> Iterator[Callable[[], Space]]:
    """Make as many namespaces as the test needs."""
    spaces.need_root()
    made: list[Space] = []

    def make() -> Space:
        made.append(Space())
        return made[-1]

    yield make
    for space in made:
        space.remove()


@pytest.fixture
def space(make_space: Callable[[], Space]) -> Space:
    """A single namespace."""
    return make_space()


@pytest.fixture
def pair(make_space: Callable[[], Space]) -> tuple[Space, Space]:
    """Client 192.0.2.1 and server 192.0.2.2 with a wire between them."""
    client, server = make_space(), make_space()
    spaces.join(client, server, "192.0.2")
    return client, server


@pytest.fixture
def start_keeper() -> Iterator[Callable[..., Keeper]]:
    """Start keepers; those that still run at the end are killed."""
    started: list[Keeper] = []

    def start(*words: object, **options: object) -> Keeper:
        started.append(Keeper(*words, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for keeper in started:
        if keeper.process.poll() is None:
            keeper.process.kill()
            keeper.process.wait()
