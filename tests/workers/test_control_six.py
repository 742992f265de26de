"""IPv6CP, challenges to resting sessions, EAP and accounts of their own, in a whole worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fastpath import layout
from ops.messages import End
from ops.settings import AccountRule, MppePolicy, Settings
from tests.workers.slow_engine import KINDS
from tests.workers.world import Client, World, settings
from workers.control import RESUME_SPREAD, RESUME_WAIT_S
from workers.live import Handle
from workers.ppp.actions import Network6Up, Policy
from workers.ppp.link import Link

OURS = bytes(7) + b"\x01"
TERMINATE_SIX = b"\x80\x57\x05\x09\x00\x04"


def conf(**keys: object) -> Settings:
    base = settings()
    six = replace(base.ipv6, ipv6cp="on")
    return replace(base, ipv6=six, ppp=replace(base.ppp, **keys))  # type: ignore[arg-type]


def make(settings_: Settings) -> Iterator[World]:
    world = World(settings_)
    yield world
    world.close()


@pytest.fixture
def world() -> Iterator[World]:
    yield from make(conf())


@pytest.fixture
def asking() -> Iterator[World]:
    yield from make(conf(chap_rechallenge_s=600))


def up(world: World, index: int = 0, *, seed: bytes = bytes(16), **policy: object) -> Handle:
    """A client with IPv6; clients of one seed have one identifier."""
    handle = world.install(index)
    keys = {"role": "client", "name": "billy", "password": "bob", "ipv6": True}
    keys |= {"auth": ("mschapv2", "mschap", "chap-md5", "pap", "eap")} | policy
    link = Link(Policy(**keys), magic=index + 1, challenge=seed)  # type: ignore[arg-type]
    world.clients[handle] = Client(link)
    world.run()
    link.start(world.now)
    world.run()
    assert world.clients[handle].up, world.log.lines
    return handle


def test_identifiers_are_in_the_record_before_the_data_path_has_them(world: World) -> None:
    handle = up(world)
    session = world.table.session(0)
    assert len(session.iid) == 8 and session.our_iid == OURS
    agreed = next(a for a in world.clients[handle].actions if isinstance(a, Network6Up))
    assert (agreed.iid, agreed.our_iid) == (session.iid, OURS)
    assert handle in world.engine.is_up6
    assert world.control.busy == 0, "at rest like any other"


def test_the_client_ends_ipv6_alone(world: World) -> None:
    handle = up(world)
    world.clients[handle].mute = (b"\x80\x57",)
    world.engine.deliver(handle, TERMINATE_SIX)
    world.run()
    world.wait(10)
    assert handle in world.engine.is_up and handle not in world.engine.is_up6
    session = world.table.session(0)
    assert session.state == layout.STATE_ACTIVE and session.iid == b""
    assert world.control.busy == 0


def test_an_identifier_belongs_to_one_session(world: World) -> None:
    """A second client that names the same would get the first one's packets."""
    first = up(world, 0)
    second = up(world, 1)
    world.wait(10)
    assert world.table.session(0).iid and not world.table.session(1).iid
    assert world.engine.is_up6 == {first}
    assert {first, second} <= world.engine.is_up
    (line,) = world.log.named("IPv6 refused")
    assert line["peer"] == "198.18.1.2" and "is another session's" in str(line["reason"])
    world.control.message(End(*first, "admin_reset", False), world.now)
    world.run()
    third = up(world, 2)
    assert third in world.engine.is_up6, "free again"
    assert up(world, 3, seed=b"other seed......") in world.engine.is_up6


def test_a_successor_knows_the_identifiers(world: World) -> None:
    first = up(world, 0)
    world.restart()
    world.run()
    up(world, 1)
    world.wait(10)
    assert world.table.session(0).iid and not world.table.session(1).iid
    world.engine.is_up6.add(first)
    world.clients[first].mute = (b"\x80\x57",)
    world.engine.deliver(first, TERMINATE_SIX)
    world.run()
    assert first not in world.engine.is_up6 and world.table.session(0).iid == b""


def test_the_end_takes_the_identifier_along(world: World) -> None:
    handle = up(world)
    world.engine.emit(KINDS.echo_lost, handle)
    world.run()
    assert world.table.session(0).iid == b"" and world.engine.is_up6 == set()
    assert world.table.session(0).state == layout.STATE_NONE


def test_off_by_default() -> None:
    world = World()
    handle = up(world)
    world.wait(20)
    assert world.table.session(0).iid == b"" and handle not in world.engine.is_up6
    assert world.counter("protocol_rejects_sent") == 1
    assert world.control.busy == 0
    world.close()


# -- challenges to a session at rest


def test_a_resting_session_is_challenged_when_it_is_due(asking: World) -> None:
    up(asking)
    assert asking.control.busy == 0
    assert asking.control.deadline() == pytest.approx(asking.now + 600)
    for n in range(2, 5):
        asking.wait(601)
        assert asking.counter("auth_mschapv2_accept") == n
        assert asking.control.busy == 0
    assert asking.table.session(0).state == layout.STATE_ACTIVE


def test_events_in_between_add_no_timers(asking: World) -> None:
    handle = up(asking)
    for number in range(100):
        asking.engine.deliver(handle, b"\xc0\x21\x0c" + bytes([number]) + b"\x00\x08abcd")
        asking.run()
    assert len(asking.control._timers) < 20
    asking.wait(601)
    assert asking.counter("auth_mschapv2_accept") == 2


def test_a_session_whose_client_changed_its_password(asking: World) -> None:
    handle = up(asking)
    exchange = asking.clients[handle].link._auth
    assert exchange is not None
    exchange.policy = replace(exchange.policy, password="other")
    asking.wait(650)
    assert asking.causes(handle) == ["auth_failed"]
    assert asking.counter("auth_mschapv2_reject") == 1
    assert asking.control.busy == 0 and asking.control.deadline() is None


def test_a_session_that_ended_leaves_a_timer_that_does_nothing(asking: World) -> None:
    handle = up(asking)
    asking.control.message(End(*handle, "admin_reset", False), asking.now)
    asking.run()
    asking.wait(700)
    assert asking.control.busy == 0 and asking.control.deadline() is None


def test_a_successor_goes_on_asking(asking: World) -> None:
    up(asking)
    asking.wait(300)
    asking.restart()
    asking.run()
    assert asking.control.deadline() is not None
    asking.wait(RESUME_WAIT_S + RESUME_SPREAD)
    assert asking.counter("auth_mschapv2_accept") == 1
    asking.wait(300)
    assert asking.counter("auth_mschapv2_accept") == 2


# -- the rest


@pytest.mark.parametrize("kind", ["mschapv2", "md5"])
def test_eap(kind: str) -> None:
    base = conf(auth=("eap",), eap=("mschapv2", "md5"))
    policy: MppePolicy = "require" if kind == "mschapv2" else "prefer"
    world = World(replace(base, mppe=replace(base.mppe, policy=policy)))
    up(world, eap=(kind,), mppe=policy)
    assert world.counter(f"auth_eap-{kind}_accept") == 1
    assert world.table.session(0).mppe_rx_bits == (128 if kind == "mschapv2" else 0)
    world.close()


def test_an_account_with_a_policy_of_its_own() -> None:
    base = settings()
    rules = (AccountRule("billy", mppe="deny"),)
    world = World(replace(base, accounts=replace(base.accounts, rules=rules)))
    up(world, mppe="prefer")
    assert world.table.session(0).mppe_rx_bits == 0
    world.close()
