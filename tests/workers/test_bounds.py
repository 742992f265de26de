"""Timeouts and volumes: from the account to the record, changed, reached, and after a death."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from ops.ranges import parse_address
from ops.settings import AccountRule, Limits, Settings
from tests.workers.slow_engine import KINDS
from tests.workers.world import World, settings
from workers.accounts import Accounts
from workers.bounds import FIELDS, SAID, Bounds, bounds_of
from workers.live import Handle
from workers.policy import Policy
from workers.ppp.actions import Send

RULES = (AccountRule("billy", session_timeout_s=600, idle_timeout_s=60, volume=10**9),)


def conf(**limits: Any) -> Settings:
    base = settings()
    accounts = replace(base.accounts, rules=RULES)
    return replace(base, accounts=accounts, limits=replace(Limits(), **limits))


@pytest.fixture
def world() -> Iterator[World]:
    world = World(conf())
    yield world
    world.close()


def bounds(world: World, handle: Handle) -> Bounds:
    return Bounds.of(world.table.session(handle[0]))


def say(world: World, handle: Handle, field: str, value: int = -1) -> None:
    """The data thread's word that a bound is reached."""
    if value < 0:
        value = getattr(world.table.session(handle[0]), field)
    world.engine.emit(KINDS.bound, handle, SAID.pack(FIELDS.index(field) + 1, value))
    world.run()


def test_the_account_goes_before_the_configuration() -> None:
    general = replace(
        settings(), limits=Limits(session_timeout_s=10, idle_timeout_s=20, idle_by="subscriber")
    )
    assert bounds_of(general, Policy(), 5.0) == Bounds(15 * 10**9, 20, 1)
    own = Policy(session_timeout_s=7, idle_timeout_s=-1, volume_up=1, volume_down=2, volume=3)
    assert bounds_of(general, own, 5.0) == Bounds(12 * 10**9, 0, 1, 1, 2, 3)
    assert bounds_of(general, Policy(session_timeout_s=-1), 5.0).ends_ns == 0
    assert bounds_of(general, Policy(idle_timeout_s=1 << 40), 5.0).idle_s == 0xFFFFFFFF


@pytest.mark.parametrize(
    ("field", "cause", "text"),
    [
        ("ends_ns", "session_timeout", "Session-Timeout of 600 s"),
        ("idle_s", "idle_timeout", "no data for 60 s"),
        ("volume", "volume_limit", "0 octets both ways, 1000000000 are allowed"),
    ],
)
def test_each_ends_the_session_with_its_cause(
    world: World, field: str, cause: str, text: str
) -> None:
    handle = world.up()
    assert bounds(world, handle) == Bounds(int((1000.0 + 600) * 1e9), 60, 0, 0, 0, 10**9)
    assert world.control.busy == 0  # at rest, nothing of it is in Python
    say(world, handle, field)
    assert world.causes(handle) == [cause]
    (line,) = world.log.named("link ended")
    assert line["reason"] == text
    assert world.accounting[-1] == ("stop", handle, cause)
    told = world.clients[handle].actions[-1]
    assert isinstance(told, Send) and told.frame[:3] == b"\xc0\x21\x06"  # its Terminate-Ack


def test_what_was_changed_meanwhile_ends_nothing(world: World) -> None:
    handle = world.up()
    old = world.table.session(handle[0]).ends_ns
    world.now += 100
    assert world.control.apply(handle, {"session_timeout_s": 50, "volume": 5}, world.now) == ""
    # From now on, as whoever changes it means it.
    assert bounds(world, handle) == Bounds(int((1100.0 + 50) * 1e9), 60, 0, 0, 0, 5)
    say(world, handle, "ends_ns", old)
    say(world, handle, "volume", 10**9)
    assert world.causes(handle) == [] and world.control.busy == 0
    # Something else changes: the time runs on.
    assert world.control.apply(handle, {"idle_timeout_s": -1, "rate_up": 9}, world.now + 5) == ""
    assert bounds(world, handle) == Bounds(int((1100.0 + 50) * 1e9), 0, 0, 0, 0, 5)
    assert world.control.apply(handle, {"session_timeout_s": -1}, world.now) == ""
    assert bounds(world, handle).ends_ns == 0


def test_a_successor_has_them(world: World) -> None:
    handle = world.up()
    before = bounds(world, handle)
    world.restart()
    world.run()
    assert bounds(world, handle) == before
    say(world, handle, "idle_s")
    assert world.causes(handle) == ["idle_timeout"]


def test_said_every_second_it_ends_once(world: World) -> None:
    handle = world.up()
    world.clients[handle].deaf = True  # its Terminate-Ack never comes
    say(world, handle, "ends_ns")
    say(world, handle, "ends_ns")
    world.wait(30)
    assert world.causes(handle) == ["session_timeout"]


def test_a_reload_changes_what_holds_for_those_who_say_nothing() -> None:
    world = World(conf(session_timeout_s=50, idle_timeout_s=5))
    static = world.start(0, "static", "secret")
    billy = world.up(1)
    world.now += 20
    world.control.configure(conf(session_timeout_s=80, idle_by="subscriber"))
    assert bounds(world, static) == Bounds(1080 * 10**9, 0, 1)
    assert bounds(world, billy) == Bounds(1600 * 10**9, 60, 1, 0, 0, 10**9)
    world.control.configure(conf())
    assert bounds(world, static) == Bounds()
    world.close()


def test_other_rules_change_what_the_old_ones_gave(world: World) -> None:
    billy, static = world.up(), world.start(1, "static", "secret")
    # RADIUS, or a CoA, has said something of its own.
    assert world.control.apply(billy, {"idle_timeout_s": 99}, world.now) == ""
    world.now += 100
    before, base = world.accounts, conf()
    rules = (
        AccountRule("billy", session_timeout_s=900, idle_timeout_s=5, rate_up=10**6),
        AccountRule("*", session_timeout_s=50),
    )
    after = replace(base, accounts=replace(base.accounts, rules=rules))
    accounts = Accounts(after, before.index)
    world.control.configure(after)
    world.control.revise(partial(accounts.changes, before), world.now)
    world.run()
    assert bounds(world, billy) == Bounds(1900 * 10**9, 99, 0, 0, 0, 0)
    assert world.table.session(billy[0]).rate_up == 10**6
    assert bounds(world, static).ends_ns == 1050 * 10**9
    assert world.control.busy == 0
    changed = [line["fields"] for line in world.log.named("session changed")]
    assert changed[1:] == ["rate_up,session_timeout_s,volume", "session_timeout_s"]


def test_time_over_and_logged_in_again() -> None:
    world = World(conf())
    check = world.accounts.check
    said: list[Policy] = [
        Policy(source="radius", session_timeout_s=30, again=True, state=b"first"),
        Policy(source="radius", session_timeout_s=40, again=True, state=b"second", rate_up=7000),
        Policy(source="radius", session_timeout_s=9, dns=(parse_address("9.9.9.9"),)),
    ]
    states: list[bytes] = []

    def ask(request: Any, unit: int) -> Any:
        states.append(request.state)
        return replace(check(request, unit), policy=said.pop(0))

    world.accounts.check = ask  # type: ignore[method-assign]
    handle = world.up()
    world.now += 30
    say(world, handle, "ends_ns")
    assert (bounds(world, handle).ends_ns, states) == (1070 * 10**9, [b"", b"first"])
    assert world.table.session(handle[0]).rate_up == 7000
    assert world.control.busy == 0
    world.now += 40
    say(world, handle, "ends_ns")
    assert (bounds(world, handle).ends_ns, states[-1]) == (1079 * 10**9, b"second")
    assert world.causes(handle) == []
    world.now += 9
    say(world, handle, "ends_ns")  # the last word was: end it
    assert world.causes(handle) == ["session_timeout"]
    world.close()


def test_who_cannot_be_asked_again_ends() -> None:
    base = conf()
    ppp, mppe = replace(base.ppp, auth=("pap",)), replace(base.mppe, policy="deny")
    world = World(replace(base, ppp=ppp, mppe=mppe))
    check = world.accounts.check
    world.accounts.check = lambda request, unit: replace(  # type: ignore[method-assign]
        check(request, unit), policy=Policy(session_timeout_s=30, again=True, state=b"s")
    )
    handle = world.start()
    world.wait(20)
    assert world.clients[handle].up, world.log.lines
    world.now += 30
    say(world, handle, "ends_ns")
    assert world.causes(handle) == ["session_timeout"]
    world.close()
