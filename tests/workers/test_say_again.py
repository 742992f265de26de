"""Another dispatcher, or one that did not hear us: after Welcome it is told all it may not know."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ops.messages import Admit, Admitted, Down, Ended, Installed, Message, Up, Welcome
from tests.workers.world import LOCAL, World
from workers.ended import KEPT, KEPT_S, LatelyEnded


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def greet(world: World) -> list[Message]:
    """A dispatcher says Welcome; what it hears."""
    world.messages.clear()
    world.control.message(Welcome(1, 0x5EED, ()), world.now)
    return list(world.messages)


def test_what_is_up_and_at_rest_says_nothing(world: World) -> None:
    handle = world.up()
    hello = world.control.hello(1, world.now)
    assert (hello.sessions, hello.starting, hello.ended) == ((handle,), (), ())
    assert greet(world) == []


def test_a_call_that_waits_for_its_admission(world: World) -> None:
    world.answer_admits = False
    handle = world.start()
    (asked,) = world.of(handle, Admit)
    hello = world.control.hello(1, world.now)
    assert (hello.sessions, hello.starting) == ((), (handle,))
    assert greet(world) == [Installed(*handle, True, ""), asked]
    for _ in range(2):  # both may be answered
        world.control.message(Admitted(*handle, world.pool, LOCAL, "", ""), world.now)
        world.run()
    assert world.clients[handle].up, world.log.lines
    assert len(world.of(handle, Up)) == 1
    assert greet(world) == []


def test_a_call_of_which_nothing_came_yet(world: World) -> None:
    handle = world.install()
    world.run()
    assert world.control.hello(1, world.now).starting == (handle,)
    assert greet(world) == [Installed(*handle, True, "")]


def test_what_ended_meanwhile(world: World) -> None:
    handle = world.up()
    world.clients[handle].link.close("user_request", "bye", world.now)
    world.run()
    world.wait(10.0)
    assert world.of(handle, Ended)
    hello = world.control.hello(1, world.now)
    assert (hello.sessions, hello.starting, hello.ended) == ((), (), (handle,))
    down, ended = greet(world)
    assert isinstance(down, Down)
    assert (down.cause, ended) == ("user_request", Ended(*handle))
    world.now += KEPT_S + 1
    assert world.control.hello(1, world.now).ended == ()
    assert greet(world) == []


def test_what_is_ending(world: World) -> None:
    handle = world.up()
    world.answer_routes = False
    world.clients[handle].link.close("user_request", "bye", world.now)
    world.run()
    world.wait(10.0)
    assert not world.of(handle, Ended)
    assert world.control.hello(1, world.now).starting == (handle,)
    (down,) = greet(world)
    assert isinstance(down, Down)
    assert down.cause == "user_request"


def test_lately_is_bounded() -> None:
    lately = LatelyEnded()
    for index in range(KEPT + 10):
        lately.add((index, 1), "idle_timeout", "", 5.0)
    assert len(lately.handles(5.0)) == KEPT
    assert lately.handles(5.0)[-1] == (KEPT + 9, 1)
    assert lately.since(5.0)[0] == ((10, 1), "idle_timeout", "")
    assert lately.handles(6.0 + KEPT_S) == ()
